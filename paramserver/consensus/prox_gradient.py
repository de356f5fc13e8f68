"""Proximal incremental aggregated gradient: PIAG.

Aytekin, Feyzmahdavian & Johansson (2016), algorithm 1; Vanli, Gürbüzbalaban & Ozdaglar (2018). The
server keeps every chunk's last gradient g_i = ∇f_i(x_i), x_i the z that its worker had pulled, and
steps along their sum, in the metric D = Σ_i diag H_i(null model):

    z⁺ = argmin_w R(w) + Σ_i [g_iᵀw + ½σ_i·n_i/n·‖w − x_i‖²_D].

Where every x_i is the same (min_fresh = all chunks) that is their step, prox_{αR}(z − αΣg_i). With
older ones they centre it at z, and divide α by the longest delay; centred at the x_i themselves
(Mishchenko, Iutzeler & Malick 2018) the step needs no bound of the delays. σ_i is the largest curvature
that was met between two gradients of the chunk:

    σ_i ≥ (g_i⁺ − g_i)ᵀ(x_i⁺ − x_i) / (n_i/n·‖x_i⁺ − x_i‖²_D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.anchors import SIGMA_MAX
from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem

TOO_LONG = 2.0  #: times σ: with so much curvature on the way F rises, and the step is taken back
ROUNDING = 1e-16  #: of f: a move this small says nothing of curvature


@dataclass
class GradientState:
    """Sums over the slots, with σ_i·n_i/n for weights: Σ (a number), and Σ(x_i − ref), about the null model."""

    ref: Array
    D: Array
    weight: float
    x: Array
    g: Array  #: Σ g_i
    rows: float  #: of all chunks
    rows_seen: float

    @property
    def up(self) -> float:
        """What has reported stands for the rest."""
        return max(self.rows / self.rows_seen, 1.0)


@dataclass(frozen=True, kw_only=True)
class ProxGradient(Consensus):
    """Proximal gradient steps with the chunks' last gradients (PIAG): exact, for every penalty, nothing to set.

    The plain first-order method, to compare with: messages of two vectors, and as many passes as the data's
    condition number, where Newton's rules need a few. Columns are scaled by their own curvature, so that only
    what they have in common counts.

    Parameters
    ----------
    min_fresh, max_staleness :
        See `Consensus`.

    Notes
    -----
    The server keeps 3·N·p·8 bytes. Where nothing can be certified (`Smooth`) its estimate ends the run: the
    last step, which is smaller than the gap by up to the condition number.
    """

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {"x": ("p",), "f": (), "g": ("p",), "d": ("p",)}
    optional: ClassVar[frozenset[str]] = frozenset({"d"})
    replays: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_diagonal")

    def init(self, setup: Setup) -> GradientState:
        zeros = np.zeros(setup.p)
        return GradientState(setup.start.z, zeros, 0.0, zeros.copy(), zeros.copy(), float(setup.rows), 0.0)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        at = problem.evaluate(data, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        out: Fields = {"x": pull.z, "f": float(at.value), "g": at.gradient}
        if "ref" in pull.fields:
            null = problem.curvature(data, pull.fields["ref"])  # type: ignore[attr-defined]
            out["d"] = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        return out

    def plan(self, state: GradientState, slot: Fields | None, z: Array) -> Fields:
        return {"ref": state.ref} if slot is None else {}

    def is_delta(self, payload: Fields) -> bool:
        return False

    def fits(self, state: GradientState, old: Fields | None, payload: Fields) -> bool:
        return old is not None or "d" in payload

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: GradientState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        if old is None:
            state.D = state.D + new["d"]
            state.rows_seen += new["rows"]
            return self._replace(state, None, {**new, "sigma": 1.0})
        size, bend = self._size(state, old, new["x"]), float((new["g"] - old["g"]) @ (new["x"] - old["x"]))
        sigma = old["sigma"]
        if size > ROUNDING * abs(old["f"]):
            if bend > TOO_LONG * sigma * size:
                return self.too_far(state, chunk, old)
            sigma = max(sigma, bend / size)
        return self._replace(state, old, {**new, "d": old["d"], "sigma": sigma})

    def too_far(self, state: GradientState, chunk: int, old: Fields | None) -> Absorbed:
        """Stay with the last gradient, and closer to where it was made."""
        if old is None:
            return Absorbed(state, {}, False)
        stiffer = {**old, "sigma": min(2.0 * TOO_LONG * old["sigma"], SIGMA_MAX)}
        return self._replace(state, old, stiffer)._replace(accepted=False)

    @staticmethod
    def _size(state: GradientState, slot: Fields, x: Array) -> float:
        """n_i/n·‖x − x_i‖²_D"""
        move = x - slot["x"]
        return float(slot["rows"] / state.rows * state.up * (move @ (state.D * move)))

    @staticmethod
    def _replace(state: GradientState, old: Fields | None, new: Fields) -> Absorbed:
        for slot, way in ((old, -1.0), (new, 1.0)):
            if slot is not None:
                weight = way * slot["sigma"] * slot["rows"] / state.rows
                state.weight += weight
                state.x += weight * (slot["x"] - state.ref)
                state.g += way * slot["g"]
        return Absorbed(state, new)

    def consensus(self, state: GradientState, penalty: Bound, z: Array) -> tuple[Array, GradientState]:
        if state.rows_seen <= 0:
            return z, state
        up, D = state.up, state.D * state.up
        return minimise(up * state.weight * D, up * (D * state.x - state.g), penalty, state.ref, z), state

    def rebuild(self, state: GradientState, slots: Mapping[int, Fields], z: Array) -> GradientState:
        zeros, rows = np.zeros_like(state.x), float(sum(slot["rows"] for slot in slots.values()))
        D = sum((slot["d"] for slot in slots.values()), zeros)
        fresh = replace(state, D=D, weight=0.0, x=zeros.copy(), g=zeros.copy(), rows_seen=rows)
        for slot in slots.values():
            self._replace(fresh, None, slot)
        return fresh

    def recount(self, state: GradientState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> GradientState:
        """A chunk's gradient and curvature hold whatever chunks are beside it."""
        return self.rebuild(replace(state, rows=float(setup.rows)), slots, z)

    # -- how far ---------------------------------------------------------------------------------

    def residuals(self, state: GradientState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½Σσ_i·n_i/n·‖z − x_i‖²_D: the last step, smaller than the gap by up to the condition number."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        estimate = 0.5 * sum(slot["sigma"] * self._size(state, slot, z) for slot in slots.values())
        return Residuals(estimate, primal=float(np.sqrt(2.0 * estimate)))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' values and slopes where they were made."""
        lines = (slot["f"] + slot["g"] @ (z - slot["x"]) for slot in slots.values())
        return penalty.value(z) + float(sum(lines))

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])
