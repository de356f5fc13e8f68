"""Aggregated Newton: every chunk's quadratic model, summed, minimised with the penalty.

The incremental Newton method of Rodomanov & Kropotov (2016, NIM), asynchronous, with a
per-chunk trust factor σ, Hessians that are kept while their rows' curvatures hardly moved, and
anchors: points with exact values to which a line search goes back, so that F along anchors never
rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.anchors import SIGMA_MAX, Anchored, AnchoredNewton, needs_hessian, too_high
from paramserver.consensus.base import Absorbed, Exact, Kept, Pull, Setup
from paramserver.consensus.warm_up import VISITS, sampled, within_error
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem


@dataclass
class NewtonState(Anchored):
    """Sums over the slots, about ``ref``: B = ΣσH (p, p), c = Σ(σH(x − ref) − g) (p,)."""

    ref: Array
    B: Array
    c: Array
    rows: float  #: of all chunks
    rows_seen: float
    quadratic: bool = False  #: the slots' models are exact
    every: int = 1  #: the first steps are on one row in so many


@dataclass(frozen=True, kw_only=True)
class AggregatedNewton(AnchoredNewton):
    """The default rule: 2 to 8 pushes a chunk to a certified gap of 1e-8 on GLMs.

    Parameters
    ----------
    min_fresh, max_staleness :
        See `Consensus`.

    Notes
    -----
    The server keeps one (p, p) model a chunk: N·p²·8 bytes.
    """

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("p",), "f": (), "g": ("p",), "H": ("p", "p"), "every": ()
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset({"H", "every"})
    replays: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian")

    def init(self, setup: Setup) -> NewtonState:
        p = setup.p
        null = setup.start  # its objective is exact: the first anchor, though its step is not known yet
        return NewtonState(
            null.z, np.zeros((p, p)), np.zeros(p), float(setup.rows), 0.0, setup.quadratic, sampled(setup),
            anchor=null.z, anchor_step=np.zeros(p), anchor_objective=null.objective * (1 + 1e-9),
        )  # fmt: skip

    def is_delta(self, payload: Fields) -> bool:
        return "H" not in payload

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        every = pull.fields.get("every", 1) if problem.samples else 1
        some = problem.sample(data, every) if every > 1 else data  # type: ignore[attr-defined]
        at = problem.evaluate(some, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        up = data.rows / max(some.rows, 1)
        out: Fields = {"x": pull.z, "f": up * float(at.value), "g": up * at.gradient}
        if every > 1:
            out.update(H=up * problem.hessian(some, at.curvature), every=np.float64(every))  # type: ignore[attr-defined]
        elif pull.whole or "hessian_at" not in pull.fields or needs_hessian(problem, data, at, pull.fields):
            out["H"] = problem.hessian(data, at.curvature)  # type: ignore[attr-defined]
            data.memo["hessian_at"] = (pull.z, at.curvature)
        return out

    def plan(self, state: NewtonState, slot: Fields | None, z: Array) -> Fields:
        """What the slot's model predicts at z, so that the worker can tell whether it still holds."""
        if slot is None:
            return {"every": state.every}
        move = z - slot["x"]
        q = 0.5 * float(move @ (slot["H"] @ move))
        if slot["every"] > 1:
            done = slot["visits"] >= VISITS or within_error(q, len(z), slot["every"], slot["rows"] / state.rows)
            return {} if done else {"every": state.every}
        return {"hessian_at": slot["hessian_at"], "predicted": slot["f"] + float(slot["g"] @ move) + q, "q": q}

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: NewtonState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        if old is None or old["every"] > 1:
            return self._replace(state, old, _model(new, old or {}))
        move = new["x"] - old["x"]
        rise = new["f"] - old["f"] - float(old["g"] @ move)
        if too_high(old, rise, 0.5 * float(move @ (old["H"] @ move))):
            return self.too_far(state, chunk, old)
        return self._replace(state, old, _model(new, old, max(1.0, old["sigma"] / 4.0)))

    def settled(self, state: NewtonState, slot: Fields) -> bool:
        return state.quadratic  # the model is the function

    def too_far(self, state: NewtonState, chunk: int, old: Fields | None) -> Absorbed:
        if old is None:
            return Absorbed(state, {}, False)
        stiffer = {**old, "sigma": min(4.0 * old["sigma"], SIGMA_MAX)}
        return self._replace(state, old, stiffer)._replace(accepted=False)

    def adopt(self, state: NewtonState, chunk: int, old: Fields | None, exact: Exact) -> Absorbed:
        new = {"x": exact.z, "f": exact.value, "g": exact.gradient, "rows": exact.rows}
        made = {**(old or {}), "H": exact.hessian, "hessian_at": exact.made_at}
        return self._replace(state, old, _model(new, made))

    @staticmethod
    def _replace(state: NewtonState, old: Fields | None, new: Fields) -> Absorbed:
        same = old is not None and old["H"] is new["H"] and old["sigma"] == new["sigma"]
        for slot, way in ((old, -1.0), (new, 1.0)):
            if slot is not None:
                weight = way * slot["sigma"]
                if not same:
                    state.B += weight * slot["H"]
                state.c += weight * (slot["H"] @ (slot["x"] - state.ref)) - way * slot["g"]
                state.rows_seen += way * slot["rows"]
        return Absorbed(state, new)

    def consensus(self, state: NewtonState, penalty: Bound, z: Array) -> tuple[Array, NewtonState]:
        if state.rows_seen <= 0:
            return z, state
        # Until every chunk has reported, what has is scaled up by rows.
        if state.rows_seen < state.rows:
            share = state.rows / state.rows_seen
            return minimise(state.B * share, state.c * share, penalty, state.ref, z), state
        return minimise(state.B, state.c, penalty, state.ref, z), state

    def rebuild(self, state: NewtonState, slots: Mapping[int, Fields], z: Array) -> NewtonState:
        fresh = replace(state, ref=z, B=np.zeros_like(state.B), c=np.zeros_like(state.c), rows_seen=0.0)
        for slot in slots.values():
            self._replace(fresh, None, slot)
        return fresh

    def recount(self, state: NewtonState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> NewtonState:
        """The models hold whatever chunks are beside them; the anchor's objective does not."""
        state = self.update(state, self, {}, z)
        return self.rebuild(replace(state, rows=float(setup.rows), cautious=False), slots, z)

    # -- how far ---------------------------------------------------------------------------------

    def residuals(self, state: NewtonState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½Σ‖z − x_i‖²_{H_i}: 8 to 180 times the gap on ordinary data, but no bound."""
        if state.rows_seen < state.rows or any(slot["every"] > 1 for slot in slots.values()):
            return Residuals(np.inf)
        if state.quadratic:
            return Residuals(0.0, primal=0.0)
        moves = ((slot["H"], z - slot["x"]) for slot in slots.values())
        estimate = 0.5 * sum(max(float(move @ (H @ move)), 0.0) for H, move in moves)
        return Residuals(estimate, primal=float(np.sqrt(2 * max(estimate, 0.0))))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' models at z, summed."""
        total = penalty.value(z)
        for slot in slots.values():
            move = z - slot["x"]
            total += slot["f"] + float(slot["g"] @ move) + 0.5 * float(move @ (slot["H"] @ move))
        return float(total)

    def kept(self, slot: Fields) -> Kept | None:
        return Kept(slot["H"], slot["hessian_at"]) if slot["every"] == 1 else None


def _model(new: Fields, old: Fields, sigma: float = 1.0) -> Fields:
    """The slot for a push: with its own Hessian, or the old one that it keeps."""
    H, at = (new["H"], new["x"]) if "H" in new else (old["H"], old["hessian_at"])
    return {"every": 1, **new, "H": H, "hessian_at": at, "sigma": sigma, "visits": old.get("visits", 0) + 1}
