"""A new run that begins where a checkpoint of an earlier one left off, on the same data or nearly so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.messages import Array, Version
from paramserver.server.parameters import Parameters
from paramserver.server.slots import Slot

DIGITS = 8  #: of a fingerprint, by which chunks are known again: sums may be added up in another order


@dataclass
class Resumed:
    """An earlier run's state, unpacked; a chunk of the new run is one of the old if its fingerprint is."""

    state: dict[str, Any]

    def enter(self, params: Parameters, now: float) -> str:
        """Take z, and the local models of chunks that are the same; what was taken, in words."""
        assert params.setup is not None
        if self.state["z"] is None or len(self.state["z"]) != params.setup.p:
            return f"the checkpoint's z is not of this problem's size, {params.setup.p}: the run began anew"
        params.jump(params.bound.project(self._z(params)), now)
        same = self._models(params) if self._fits(params) else {}
        for i, kept in same.items():
            slot = params.slots[i]
            slot.fields, slot.seq = kept["fields"], kept["seq"]
            slot.version = None if kept["version"] is None else Version(*kept["version"])
        params.recount(params.setup.start)
        return self._said(params, same)

    def _z(self, params: Parameters) -> Array:
        """In the units that this run found in its data."""
        old = params.spec.problem.at(self.state["bound_by"])
        return np.asarray(params.problem.inward(old.outward(np.array(self.state["z"]))))

    def _fits(self, params: Parameters) -> bool:
        """Whether the old local models are models here: of the same rule, in the same units."""
        was, now = self.state["bound_by"], params.bound_by
        units = np.shape(was) == np.shape(now) and self._in_units(params)
        return bool(units and self.state["rule"]["type"] == type(params.rule).__qualname__)

    def _in_units(self, params: Parameters) -> bool:
        ones = np.ones(len(self.state["z"]))
        old = params.spec.problem.at(self.state["bound_by"])
        return np.allclose(old.outward(ones), params.problem.outward(ones), rtol=1e-9, atol=0.0)

    def _models(self, params: Parameters) -> dict[int, dict[str, Any]]:
        pool = {_known(kept["fingerprint"]): kept for kept in self.state["slots"] if kept["fields"] is not None}
        pool.pop(None, None)
        return {i: pool[known] for i in params.live if (known := _mark(params.slots[i])) in pool}

    def _said(self, params: Parameters, same: dict[int, Any]) -> str:
        fresh = [i for i in params.live if i not in same]
        text = f"resumed from {self.state['pushes']} pushes, epoch {self.state['epoch']}: "
        text += f"{len(same)} of {len(params.live)} chunks with their local models"
        return text if not fresh or not same else f"{text}; afresh: {_some(fresh)}"


def _mark(slot: Slot) -> tuple[float, ...] | None:
    return _known(slot.fingerprint)


def _known(fingerprint: Any) -> tuple[float, ...] | None:
    return None if fingerprint is None else tuple(float(f"{value:.{DIGITS}g}") for value in fingerprint)


def _some(chunks: list[int]) -> str:
    shown = ", ".join(map(str, chunks[:20]))
    return shown if len(chunks) <= 20 else f"{shown} and {len(chunks) - 20} more"
