"""Asynchronous stochastic proximal gradient on minibatches.

A worker answers with the gradient of b rows of its chunk, drawn anew at every step and scaled to the
chunk, g_i = (n_i/b)Σℓ'x; the server steps with the mean of the m that came in since the last z,

    z⁺ = argmin_w R(w) + ĝᵀw + 1/(2γ)‖w − z‖²_D,    ĝ = (N/m)Σg_i,    D = Σ_i diag H_i(null model),
    γ  = rate / ((1 + sweeps)^decay · (1 + delay)),

(Duchi & Singer 2009, asynchronously Agarwal & Duchi 2011). The delay is the mean number of steps since
the gradients' z: Zhang, Gupta, Lian & Liu (2016) divide each gradient by its own, which would make
those of fast workers' chunks count for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.workers.problems.base import Problem

MEMORY = 0.9  #: of the mean delay, a push


@dataclass
class SGDState:
    """What came in since the last z, and the clocks that the step's length goes by."""

    null: Array
    D: Array  #: over the chunks seen, (p,)
    g: Array  #: Σ g_i of the pushes since the last z, (p,)
    waiting: int  #: how many they are
    pushes: int
    steps: int  #: of z
    delay: float  #: mean steps between a pull and its push
    n_chunks: int
    rows: float  #: of all chunks
    rows_seen: float


@dataclass(frozen=True, kw_only=True)
class AsyncSGD(Consensus):
    """Asynchronous minibatch SGD, proximal: many cheap, noisy steps. Not exact.

    For a rough answer from less than a pass over data whose rows are alike, and to compare with.

    Parameters
    ----------
    batch : int
        Rows of a minibatch, ≥ 1; chunks of fewer rows are taken whole.
    rate : float
        > 0, the step against the columns' own curvatures: it must stay below 2 over the largest
        eigenvalue of the columns' correlations, which is 1 to p. The reason "diverged" says that it
        does not.
    decay : float
        In [0, 1]; 0: steps stay as long as they are.
    seed : int
        ≥ 0, of the minibatches.
    min_fresh, max_staleness :
        See `Consensus`.

    Notes
    -----
    With ``decay=0`` z keeps moving about the optimum, at a gap of about rate·p/(2·batch·min_fresh) of
    F(null model): rate/4·tr(D⁻¹C) for the gradients' covariance C, which is that of the losses,
    n/(batch·min_fresh)·φH, where rows are alike (Mandt, Hoffman & Blei 2017, equation 13; φ, the
    dispersion, is at most 2·F(null model)/n). With ``decay`` > 1/2 it converges, ever more slowly
    (Robbins & Monro 1951).
    """

    batch: int = 256
    rate: float = 0.1
    decay: float = 0.0
    seed: int = 0

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {"x": ("p",), "f": (), "g": ("p",), "at": (), "d": ("p",)}
    optional: ClassVar[frozenset[str]] = frozenset({"d"})
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_diagonal", "batch")
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1:
            raise InvalidInput(f"batch must be ≥ 1 row, got {self.batch!r}")
        if self.seed < 0:
            raise InvalidInput(f"seed must be ≥ 0, got {self.seed!r}")
        if not (np.isfinite(self.rate) and self.rate > 0):
            raise InvalidInput(f"rate must be a finite number > 0, got {self.rate!r}")
        if not 0 <= self.decay <= 1:
            raise InvalidInput(f"decay must lie in [0, 1], got {self.decay!r}")

    def init(self, setup: Setup) -> SGDState:
        zeros = np.zeros(setup.p)
        return SGDState(setup.start.z, zeros, zeros, 0, 0, 0, 0.0, setup.n_chunks, float(setup.rows), 0.0)

    def floor(self, setup: Setup) -> float:
        together = self.min_fresh or 1
        whole = self.batch * setup.n_chunks >= setup.rows and together >= setup.n_chunks
        return 0.0 if self.decay > 0 or whole else self.rate * setup.p / (2.0 * self.batch * together)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        some, rows = data, pull.fields["batch"]
        if rows < data.rows:
            some = problem.batch(data, rows, (pull.fields["seed"], *pull.version))  # type: ignore[attr-defined]
        at = problem.evaluate(some, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        up = data.rows / max(some.rows, 1)
        out: Fields = {"x": pull.z, "f": up * float(at.value), "g": up * at.gradient, "at": pull.fields["at"]}
        if "null" in pull.fields:
            null = problem.curvature(data, pull.fields["null"])  # type: ignore[attr-defined]
            out["d"] = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        return out

    def plan(self, state: SGDState, slot: Fields | None, z: Array) -> Fields:
        out: Fields = {"at": np.float64(state.steps), "batch": self.batch, "seed": self.seed}
        return {**out, "null": state.null} if slot is None else out

    def is_delta(self, payload: Fields) -> bool:
        return False

    def fits(self, state: SGDState, old: Fields | None, payload: Fields) -> bool:
        return old is not None or "d" in payload

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: SGDState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        if old is None:
            state = replace(state, D=state.D + new["d"], rows_seen=state.rows_seen + new["rows"])
        late = max(state.steps - float(new["at"]), 0.0)
        state = replace(
            state, g=state.g + new["g"], waiting=state.waiting + 1, pushes=state.pushes + 1,
            delay=MEMORY * state.delay + (1.0 - MEMORY) * late,
        )  # fmt: skip
        return Absorbed(state, {**(old or {}), **new})

    def consensus(self, state: SGDState, penalty: Bound, z: Array) -> tuple[Array, SGDState]:
        if not state.waiting:
            return z, state
        step = self.rate / (1.0 + state.pushes / state.n_chunks) ** self.decay / (1.0 + state.delay)
        curvature = state.D * max(state.rows / state.rows_seen, 1.0)
        g = state.g * (state.n_chunks / state.waiting)
        new = minimise(curvature / step, -g, penalty, z, z)
        return new, replace(state, g=np.zeros_like(g), waiting=0, steps=state.steps + 1)

    def rebuild(self, state: SGDState, slots: Mapping[int, Fields], z: Array) -> SGDState:
        D = np.sum([slot["d"] for slot in slots.values()], axis=0) if slots else np.zeros_like(state.D)
        return replace(state, D=D, rows_seen=float(sum(slot["rows"] for slot in slots.values())))

    def recount(self, state: SGDState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> SGDState:
        """What waits is partly of chunks that may be gone."""
        fresh = replace(state, rows=float(setup.rows), n_chunks=setup.n_chunks, g=np.zeros_like(state.g), waiting=0)
        return self.rebuild(fresh, slots, z)

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])
