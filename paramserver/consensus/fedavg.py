"""Federated averaging, with FedProx's term.

McMahan, Moore, Ramage, Hampson & Agüera y Arcas (2017), algorithm 1; Li, Sahu, Zaheer, Sanjabi, Talwalkar
& Smith (2020), equation 2. A worker that pulls ẑ takes k proximal gradient steps from there on what its
chunk knows of F,

    x_i ≈ argmin_x f_i(x)·n/n_i + R(x) + ½μ‖x − ẑ‖²_D,

and the server averages, z⁺ = Σ n_i/n·x_i, over the last x_i of every chunk. D is the sum of the diagonals
of the chunks' Hessians at the null model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Absorbed, Pull, Setup
from paramserver.consensus.local import STIFF, LocalState, LocalSteps, one_shot
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.views import Residuals
from paramserver.workers.descent import descend
from paramserver.workers.problems.base import Problem


@dataclass(kw_only=True)
class FedAvgState(LocalState):
    """Sums over the slots."""

    x: Array  #: Σ n_i·x_i, (p,)
    g: Array  #: Σ ∇f_i at the z that each pulled, (p,)


@dataclass(frozen=True, kw_only=True)
class FedAvg(LocalSteps):
    """Averages of what each chunk found in a few steps alone (FedAvg; FedProx with ``mu`` > 0). Not exact.

    For few exchanges with chunks whose rows are alike, and to compare with.

    Parameters
    ----------
    local_steps : int
        k ≥ 1, each a pass over the chunk.
    mu : float
        ≥ 0, FedProx's pull towards ẑ, against the columns' own curvatures.
    rate : float
        In (0, 1], of the longest step that no chunk's curvature forbids.
    min_fresh, max_staleness :
        See `Consensus`; the papers' rounds are ``min_fresh=N``.

    Notes
    -----
    One step is the proximal gradient method, and exact where R is smooth. Several lead each chunk towards
    its own optimum, and the mean of those is not F's: where rows are alike it comes to a gap of about
    (p/n_i)²/4 of F(null model) with many steps, and a tenth of that with two (`floor`); where chunks
    differ it may be no better than the null model.
    """

    mu: float = 0.0

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("p",), "f": (), "g": ("p",), "stiff": (), "d": ("p",),
    }  # fmt: skip
    replays: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.mu) and self.mu >= 0):
            raise InvalidInput(f"mu must be a finite number ≥ 0, got {self.mu!r}")

    def init(self, setup: Setup) -> FedAvgState:
        zeros = np.zeros(setup.p)
        return FedAvgState(**self.begun(setup), x=zeros, g=zeros)

    def floor(self, setup: Setup) -> float:
        """That of the chunks' own optima, by how far towards them so many steps go.

        With the curvature λ of a direction and a step h, k steps on ½λx² go A(λ) = (1 − (1 − hλ)^k)/λ times the
        gradient, one goes h, and all the way is 1/λ: −dlnA/dlnλ says where between 0 and 1 that is.
        """
        k, h = self.local_steps, self.rate * (1.0 + self.mu) / (STIFF + self.mu)
        left = (1.0 - h) ** k
        way = 1.0 - k * h * left / ((1.0 - h) * (1.0 - left))
        return one_shot(setup) * (way / (1.0 + self.mu)) ** 2

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        if "null" in pull.fields:
            return self.first(problem, data, pull)
        moved = descend(problem, data, pull.z, self.stepping(pull.fields))
        if moved is None:
            return None
        g = moved.before.gradient
        return {"x": moved.x, "f": float(moved.before.value), "g": g, "stiff": np.float64(moved.stiff)}

    def plan(self, state: LocalState, slot: Fields | None, z: Array) -> Fields:
        return {**super().plan(state, slot, z), "mu": self.mu}

    def is_delta(self, payload: Fields) -> bool:
        return False

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: FedAvgState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        state = self.met(state, old, new)
        x, g = state.x + new["rows"] * new["x"], state.g + new["g"]
        if old is not None:
            x, g = x - old["rows"] * old["x"], g - old["g"]
        return Absorbed(replace(state, x=x, g=g), {**(old or {}), **new})

    def consensus(self, state: FedAvgState, penalty: Bound, z: Array) -> tuple[Array, FedAvgState]:
        state = self.under(state, penalty)
        return (penalty.project(state.x / state.rows_seen) if state.rows_seen > 0 else z), state

    def rebuild(self, state: FedAvgState, slots: Mapping[int, Fields], z: Array) -> FedAvgState:
        zeros = np.zeros_like(state.x)
        x = sum((slot["rows"] * slot["x"] for slot in slots.values()), zeros)
        g = sum((slot["g"] for slot in slots.values()), zeros)
        fresh: FedAvgState = super().rebuild(state, slots, z)
        return replace(fresh, x=x, g=g)

    def residuals(self, state: FedAvgState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½dist(−Σ∇f_i, ∂R(z))² in the metric D⁻¹, the gradients where each was pulled."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        off = state.g + penalty.subgradient(z, -state.g)
        estimate = 0.5 * float(off @ (off / np.where(state.D > 0, state.D, 1.0)))
        return Residuals(estimate, dual=float(np.linalg.norm(off)))
