"""Proximal incremental aggregated gradient: PIAG.

Aytekin, Feyzmahdavian & Johansson (2016), algorithm 1; Vanli, Gürbüzbalaban & Ozdaglar (2018). The
server keeps every chunk's last gradient g_i = ∇f_i(x_i), x_i the z that its worker had pulled, and
steps along their sum:

    z⁺ = argmin_w R(w) + Σ_i [g_iᵀw + ½σ_i‖w − x_i‖²_{M_i}],    M_i = diag H_i(null model).

Where every x_i is the same (min_fresh = all chunks) that is their step, prox_{αR}(z − αΣg_i). With
older ones they centre it at z, and divide α by the longest delay; centred at the x_i themselves
(Mishchenko, Iutzeler & Malick 2018) the step needs no bound of the delays. σ_i is the largest curvature
that was met between two gradients of the chunk, in units of M_i:

    σ_i ≥ (g_i⁺ − g_i)ᵀ(x_i⁺ − x_i) / ‖x_i⁺ − x_i‖²_{M_i}.
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
    """Sums over the slots, about the null model ``ref``: B = ΣσM (p,), c = Σ(σM(x − ref) − g) (p,)."""

    ref: Array
    B: Array
    c: Array
    rows: float  #: of all chunks
    rows_seen: float


@dataclass(frozen=True, kw_only=True)
class ProxGradient(Consensus):
    """Proximal gradient steps with the chunks' last gradients (PIAG): exact, and without settings.

    For many columns under a penalty that neither `LBFGS` (smooth ones) nor `ActiveNewton` (sums over
    coordinates) can take, and to compare with: what it sends is two vectors a step, but it needs as
    many passes as the data's condition number, where Newton's rules need a few.

    Parameters
    ----------
    min_fresh, max_staleness :
        See `Consensus`.

    Notes
    -----
    The server keeps 3·N·p·8 bytes. Columns are scaled by their own curvature, so that only what they
    have in common counts towards the condition number.
    """

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {"x": ("p",), "f": (), "g": ("p",), "M": ("p",)}
    optional: ClassVar[frozenset[str]] = frozenset({"M"})
    replays: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_diagonal")

    def init(self, setup: Setup) -> GradientState:
        zeros = np.zeros(setup.p)
        return GradientState(setup.start.z, zeros, zeros.copy(), float(setup.rows), 0.0)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        at = problem.evaluate(data, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        out: Fields = {"x": pull.z, "f": float(at.value), "g": at.gradient}
        if "ref" in pull.fields:
            null = problem.curvature(data, pull.fields["ref"])  # type: ignore[attr-defined]
            out["M"] = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        return out

    def plan(self, state: GradientState, slot: Fields | None, z: Array) -> Fields:
        return {"ref": state.ref} if slot is None else {}

    def is_delta(self, payload: Fields) -> bool:
        return False

    def fits(self, state: GradientState, old: Fields | None, payload: Fields) -> bool:
        return old is not None or "M" in payload

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: GradientState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        if old is None:
            return self._replace(state, None, {**new, "sigma": 1.0})
        move = new["x"] - old["x"]
        size, bend = float(move @ (old["M"] * move)), float((new["g"] - old["g"]) @ move)
        sigma = old["sigma"]
        if size > ROUNDING * abs(old["f"]):
            if bend > TOO_LONG * sigma * size:
                return self.too_far(state, chunk, old)
            sigma = max(sigma, bend / size)
        return self._replace(state, old, {**new, "M": old["M"], "sigma": sigma})

    def too_far(self, state: GradientState, chunk: int, old: Fields | None) -> Absorbed:
        """Stay with the last gradient, and closer to where it was made."""
        if old is None:
            return Absorbed(state, {}, False)
        stiffer = {**old, "sigma": min(2.0 * TOO_LONG * old["sigma"], SIGMA_MAX)}
        return self._replace(state, old, stiffer)._replace(accepted=False)

    @staticmethod
    def _replace(state: GradientState, old: Fields | None, new: Fields) -> Absorbed:
        for slot, way in ((old, -1.0), (new, 1.0)):
            if slot is not None:
                metric = slot["sigma"] * slot["M"]
                state.B += way * metric
                state.c += way * (metric * (slot["x"] - state.ref) - slot["g"])
                state.rows_seen += way * slot["rows"]
        return Absorbed(state, new)

    def consensus(self, state: GradientState, penalty: Bound, z: Array) -> tuple[Array, GradientState]:
        if state.rows_seen <= 0:
            return z, state
        share = max(state.rows / state.rows_seen, 1.0)  # what has reported stands for the rest
        return minimise(share * state.B, share * state.c, penalty, state.ref, z), state

    def rebuild(self, state: GradientState, slots: Mapping[int, Fields], z: Array) -> GradientState:
        fresh = replace(state, B=np.zeros_like(state.B), c=np.zeros_like(state.c), rows_seen=0.0)
        for slot in slots.values():
            self._replace(fresh, None, slot)
        return fresh

    def recount(self, state: GradientState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> GradientState:
        """A chunk's gradient and metric hold whatever chunks are beside it."""
        return self.rebuild(replace(state, rows=float(setup.rows)), slots, z)

    # -- how far ---------------------------------------------------------------------------------

    def residuals(self, state: GradientState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½Σσ_i‖z − x_i‖²_{M_i}: the last step, which is smaller than the gap by up to the condition number."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        estimate = sum(_model(slot, z)[1] for slot in slots.values())
        return Residuals(estimate, primal=float(np.sqrt(2.0 * estimate)))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' models at z, summed."""
        return penalty.value(z) + sum(sum(_model(slot, z)) for slot in slots.values())

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])


def _model(slot: Fields, z: Array) -> tuple[float, float]:
    """A chunk's model at z: (what is linear, what is quadratic)."""
    move = z - slot["x"]
    return slot["f"] + float(slot["g"] @ move), 0.5 * slot["sigma"] * float(move @ (slot["M"] * move))
