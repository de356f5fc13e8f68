"""Asynchronous projective hedging (Eckstein, Watson & Woodruff, "Projective hedging algorithms for multistage
stochastic programming, supporting distributed and asynchronous implementation").

z, and a dual W_i for each scenario with Σ m·W_i = 0 at every node, are right where −W_i ∈ ∂f_i(z)/m. A worker that
pulls z and W_i, however old, answers

    x_i = argmin_x f_i(x) + m(W_iᵀx + ½ρ‖x − z‖²),    y_i = W_i + ρ(x_i − z)

and −m·y_i ∈ ∂f_i(x_i). As ∂f_i is monotone, all that is right lies where φ(z, W) = Σ m(z − x_i)ᵀ(W_i − y_i) ≤ 0,
and the server projects onto this half-space: with x̄ the mean of x_i at each node, u_i = x_i − x̄, v the mean of y_i,

    θ = ν·max(0, φ)/(Σ m‖u_i‖² + Σ M‖v‖²/γ),    z ← z + θv/γ,    W_i ← W_i + θu_i,

M = Σ m at each node. Answers need not be of the same z, nor new: φ says what they are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paramserver.consensus.base import Absorbed, Pull, Setup
from paramserver.consensus.hedging import Hedging, part, share_of, told
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.workers.problems.base import Problem


@dataclass
class APHState:
    """What the half-space is made of: all chunks' fields, one after the other; the server owns ``w``."""

    ref: Array  #: (p,), where the run started
    rows: float
    rows_seen: float
    begins: np.ndarray  #: of each chunk, where its fields begin; −1 where it has not answered
    index: np.ndarray
    weight: Array
    x: Array
    y: Array
    w: Array

    def place(self, chunk: int, k: int) -> slice:
        """Where this chunk's k fields are."""
        begin = int(self.begins[chunk])
        return slice(begin, begin + k)

    def mean(self, v: Array) -> Array:
        """(p,): at every coordinate of z the mean of the chunks that know it."""
        p, M = len(self.ref), self.mass()
        return np.bincount(self.index, self.weight * v, p) / np.where(M > 0, M, 1.0)

    def mass(self) -> Array:
        """Σ m, (p,)."""
        return np.bincount(self.index, self.weight, len(self.ref)).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class APH(Hedging):
    """Asynchronous projective hedging: exact, whatever the delays, without a bound on them.

    For `StochasticProgram`, as `ProgressiveHedging` is, where some scenarios take far longer than others. With
    gamma = nu = 1 and all chunks answering at every z it takes the same steps.

    Parameters
    ----------
    rho : float
        > 0, as that of `ProgressiveHedging`.
    nu : float
        In (0, 2): how far to project; 1 is onto the half-space.
    gamma : float
        > 0, the paper's γ over rho²: how much z counts beside the duals.
    min_fresh : int or None
        As for `Consensus`; None: half of the chunks. A projection by few new answers does not lead far.
    max_staleness :
        See `Consensus`.
    """

    min_fresh: int | None = None
    nu: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.nu < 2:
            raise InvalidInput(f"nu must lie in (0, 2), got {self.nu!r}")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise InvalidInput(f"gamma must be a finite number > 0, got {self.gamma!r}")

    def suits(self, penalty: Bound) -> None:
        """None: the half-space knows no R."""
        terms = penalty.separable()
        free = terms is not None and not (terms.l1.any() or terms.l2.any())
        if not (free and np.isneginf(terms.lower).all() and np.isposinf(terms.upper).all()):  # type: ignore[union-attr]
            raise InvalidInput(
                f"APH fits no penalty, got {penalty.penalty!r}: put it into the scenarios' costs and bounds, or use "
                "ProgressiveHedging"
            )

    def init(self, setup: Setup) -> APHState:
        none, known = np.zeros(0), np.zeros(0, np.int64)
        return APHState(setup.start.z, float(setup.rows), 0.0, known, known, none, none, none, none)

    def enough(self, state: APHState, setup: Setup) -> int:
        return self.min_fresh or max(setup.n_chunks // 2, 1)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields:
        share, fields = share_of(problem, data), pull.fields
        z, rho = part(share, pull.z), fields["rho"]
        w = fields.get("w", np.zeros_like(z))
        return {**self.near(problem, data, pull.z, share, z - w / rho, rho), **told(share, pull)}

    def plan(self, state: APHState, slot: Fields | None, z: Array) -> Fields:
        if slot is None:
            return {"rho": self.rho}
        return {"rho": self.rho, "w": state.w[state.place(int(slot["chunk"]), len(slot["x"]))]}

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: APHState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        slot = {**self.slot(state, old, new), "chunk": float(chunk)}
        if old is None:
            state = self._joined(state, chunk, slot)
        here = state.place(chunk, len(slot["x"]))
        state.x[here], state.y[here] = new["x"], new["y"]
        return Absorbed(state, slot)

    def _joined(self, state: APHState, chunk: int, slot: Fields) -> APHState:
        """With this chunk's fields at the end. Its dual begins with what its answer says; `consensus` centres it."""
        begins = np.full(max(chunk + 1, len(state.begins)), -1, np.int64)
        begins[: len(state.begins)] = state.begins
        begins[chunk] = len(state.w)
        more = {"index": slot["index"].astype(np.int64), "weight": slot["weight"]}
        more |= {"x": slot["x"], "y": slot["y"], "w": slot["y"]}
        longer: Any = {name: np.append(getattr(state, name), value) for name, value in more.items()}
        return replace(state, rows_seen=state.rows_seen + slot["rows"], begins=begins, **longer)

    def consensus(self, state: APHState, penalty: Bound, z: Array) -> tuple[Array, APHState]:
        at, m, M = state.index, state.weight, state.mass()
        w = state.w - state.mean(state.w)[at]
        u, v = state.x - state.mean(state.x)[at], state.mean(state.y)
        gamma = self.gamma * self.rho**2
        phi = float(m @ ((z[at] - state.x) * (w - state.y)))
        length = float(m @ u**2 + M @ v**2 / gamma)
        theta = self.nu * max(phi, 0.0) / length if length > 0 else 0.0
        return z + theta * v / gamma, replace(state, w=w + theta * u)

    def recount(self, state: APHState, setup: Setup, slots: dict[int, Fields], z: Array) -> APHState:
        """Chunks keep their duals, where they have some."""
        fresh = self.init(setup)
        for chunk, slot in slots.items():
            fresh, slots[chunk] = self.absorb(fresh, chunk, None, slot)[:2]
            k = len(slot["x"])
            known = chunk < len(state.begins) and state.begins[chunk] >= 0 and int(slot["chunk"]) == chunk
            if known and (state.index[state.place(chunk, k)] == slot["index"]).all():
                fresh.w[fresh.place(chunk, k)] = state.w[state.place(chunk, k)]
        return fresh
