"""L-BFGS on the server, for many columns and a smooth penalty: nothing of size (p, p) anywhere.

Nocedal & Wright (2006), algorithm 7.4, with the diagonal of the Hessian at the null model as the
metric. Workers answer with value and gradient; each trial point of the line search is a version
of z, and F is exact there once every chunk has answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Absorbed, Consensus, Exact, Pull, Setup
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem

ARMIJO = 1e-4
ROUNDING = 1e-13  #: of F, relatively: a rise this small is none
FREE = 1000  #: coordinates without penalty up to which a gap can be proved: it takes their Hessian


@dataclass
class LBFGSState:
    """Sums over the chunks that have answered at the trial point, and the last point that was good."""

    trial: Array  #: (p,)
    number: int  #: of trial points so far
    f: float
    g: Array
    D: Array  #: Σ diagonals of the Hessians at the null model, (p,)
    null: Array
    rows: float
    rows_seen: float
    S: Array  #: steps, (m, p), the newest last
    Y: Array  #: differences of gradients, (m, p)
    point: Array | None = None  #: the last good point; then its F, ∇F, the direction from it and its length
    objective: float = np.inf
    gradient: Array | None = None
    direction: Array | None = None
    length: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LBFGS(Consensus):
    """Limited-memory BFGS, synchronous in effect: z moves when every chunk has answered.

    Parameters
    ----------
    memory : int
        Pairs of vectors kept, ≥ 1.
    min_fresh, max_staleness :
        See `Consensus`; min_fresh is always all chunks.

    Notes
    -----
    The server keeps (N + 2·memory)·p·8 bytes. Its certificates are "first-order": proofs, but
    looser than a Newton rule's by up to the ratio of the losses' curvature to the penalty's.
    Coordinates without penalty beyond 1000 leave only the estimate.
    """

    memory: int = 10
    min_fresh: int | None = None

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {"x": ("p",), "f": (), "g": ("p",), "d": ("p",)}
    optional: ClassVar[frozenset[str]] = frozenset({"d"})
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_of", "hessian_diagonal", "dual")
    certificate: ClassVar[str] = "first-order"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise InvalidInput(f"memory must be ≥ 1 pair, got {self.memory!r}")

    def suits(self, penalty: Bound) -> None:
        terms = penalty.separable()
        if terms is None or not terms.smooth:
            raise InvalidInput(
                f"LBFGS works on smooth penalties, L2 or none, not on {penalty.penalty!r}: "
                'pass consensus="active" (ActiveNewton) where there is an L1 term, else "newton"'
            )

    def init(self, setup: Setup) -> LBFGSState:
        p = setup.p
        zeros, none = np.zeros(p), np.empty((0, p))
        return LBFGSState(setup.z, 0, 0.0, zeros, np.zeros(p), setup.start.z, float(setup.rows), 0.0, none, none)

    def enough(self, state: LBFGSState, setup: Setup) -> int:
        return setup.n_chunks

    def support(self, state: LBFGSState, penalty: Bound) -> np.ndarray:
        return np.flatnonzero(_l2(penalty) == 0)

    def certifies(self, penalty: Bound) -> bool:
        return int((_l2(penalty) == 0).sum()) <= FREE

    def slot_bytes(self, p: int) -> int:
        return 8 * p

    def is_delta(self, payload: Fields) -> bool:
        return False

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        at = problem.evaluate(data, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        out: Fields = {"x": pull.z, "f": float(at.value), "g": at.gradient}
        if "null" in pull.fields:
            null = problem.curvature(data, pull.fields["null"])  # type: ignore[attr-defined]
            out["d"] = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        return out

    def plan(self, state: LBFGSState, slot: Fields | None, z: Array) -> Fields:
        return {"null": state.null} if slot is None else {}

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: LBFGSState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        slot = dict(new)
        d = slot.pop("d", None)
        if old is None and d is not None:
            state.D = state.D + d
        here = np.array_equal(new["x"], state.trial)
        slot.update(x=state.trial if here else new["x"], trial=state.number if here else -1)
        if here:
            if old is not None and old["trial"] == state.number:
                return Absorbed(state, old)
            state.f += slot["f"]
            state.g = state.g + slot["g"]
            state.rows_seen += slot["rows"]
        return Absorbed(state, slot)

    def too_far(self, state: LBFGSState, chunk: int, old: Fields | None) -> Absorbed:
        """F is infinite at the trial point: the next is nearer."""
        state.f = np.inf
        return Absorbed(state, old or {}, False)

    def adopt(self, state: LBFGSState, chunk: int, old: Fields | None, exact: Exact) -> Absorbed | None:
        if old is None:
            return None
        return self.absorb(state, chunk, old, {"x": exact.z, "f": exact.value, "g": exact.gradient, "rows": exact.rows})

    def settled(self, state: LBFGSState, slot: Fields) -> bool:
        return bool(slot["trial"] == state.number)

    def consensus(self, state: LBFGSState, penalty: Bound, z: Array) -> tuple[Array, LBFGSState]:
        if not np.array_equal(z, state.trial):  # someone else moved z: begin there
            return z, self._at(replace(state, S=state.S[:0], Y=state.Y[:0], point=None), z)
        if state.rows_seen < state.rows and np.isfinite(state.f):
            return z, state
        objective = state.f + penalty.value(z)
        if state.point is not None:
            assert state.gradient is not None
            assert state.direction is not None
            slope = float(state.gradient @ state.direction)
            rise = objective - state.objective
            if not rise <= ARMIJO * state.length * slope + ROUNDING * abs(state.objective):
                return self._nearer(state, rise, slope)
        elif not np.isfinite(objective):
            return z, state
        return self._onwards(self._moved(state, penalty, z, objective), penalty)

    def _nearer(self, state: LBFGSState, rise: float, slope: float) -> tuple[Array, LBFGSState]:
        """The trial point was too far: to the minimum of the parabola through what is known, or half way."""
        assert state.point is not None
        assert state.direction is not None
        t = state.length
        bend = rise - slope * t
        share = -0.5 * slope * t / bend if np.isfinite(bend) and bend > 0 else 0.1
        length = t * float(np.clip(share, 0.1, 0.5))
        trial = state.point + length * state.direction
        return trial, self._at(replace(state, length=length), trial)

    def _moved(self, state: LBFGSState, penalty: Bound, z: Array, objective: float) -> LBFGSState:
        """The trial point is good: remember the pair that led to it."""
        gradient = state.g + penalty.subgradient(z, np.zeros_like(z))
        S, Y = state.S, state.Y
        if state.point is not None:
            assert state.gradient is not None
            s, y = z - state.point, gradient - state.gradient
            if float(s @ y) > 1e-12 * float(np.linalg.norm(s) * np.linalg.norm(y)):
                S, Y = (np.concatenate([old[-(self.memory - 1) :] if self.memory > 1 else old[:0], [new]])
                        for old, new in ((S, s), (Y, y)))  # fmt: skip
        return replace(state, S=S, Y=Y, point=z, objective=objective, gradient=gradient)

    def _onwards(self, state: LBFGSState, penalty: Bound) -> tuple[Array, LBFGSState]:
        assert state.point is not None
        assert state.gradient is not None
        direction = -two_loop(state.gradient, state.S, state.Y, metric(state, penalty))
        if not float(direction @ state.gradient) < 0:  # rounding: nothing more to gain
            return state.point, state
        trial = state.point + direction
        if np.array_equal(trial, state.point):
            return state.point, state
        return trial, self._at(replace(state, direction=direction, length=1.0), trial)

    @staticmethod
    def _at(state: LBFGSState, trial: Array) -> LBFGSState:
        zeros = np.zeros_like(state.g)
        return replace(state, trial=trial, number=state.number + 1, f=0.0, g=zeros, rows_seen=0.0)

    def rebuild(self, state: LBFGSState, slots: Mapping[int, Fields], z: Array) -> LBFGSState:
        here = [slot for slot in slots.values() if slot["trial"] == state.number]
        g = np.sum([slot["g"] for slot in here], axis=0) if here else np.zeros_like(state.g)
        f, rows = sum(slot["f"] for slot in here), sum(slot["rows"] for slot in here)
        return replace(state, f=float(f) if np.isfinite(state.f) else state.f, g=g, rows_seen=float(rows))

    def recount(self, state: LBFGSState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> LBFGSState:
        """Other chunks than before: another F. The metric may be off by theirs."""
        fresh = replace(state, rows=float(setup.rows), S=state.S[:0], Y=state.Y[:0], point=None)
        return self.rebuild(fresh, slots, z)

    def update(self, state: LBFGSState, old: Consensus, slots: dict[int, Fields], z: Array) -> LBFGSState:
        """Another penalty is another F: begin at today's z, with what the chunks said of it."""
        return replace(state, S=state.S[:0], Y=state.Y[:0], point=None)

    # -- how far ---------------------------------------------------------------------------------

    def residuals(self, state: LBFGSState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½Σ(∇F_j)²/l2_j at the last good point, what a verification would prove there."""
        if state.gradient is None or state.point is None:
            return Residuals(np.inf)
        curvature, l2 = metric(state, penalty), _l2(penalty)
        if self.certifies(penalty):
            curvature = np.where(l2 > 0, l2, curvature)
        return Residuals(
            0.5 * float(state.gradient @ (state.gradient / curvature)), float(np.linalg.norm(state.gradient))
        )

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' values and slopes at the last point where they answered."""
        total = penalty.value(z)
        return float(total + sum(slot["f"] + float(slot["g"] @ (z - slot["x"])) for slot in slots.values()))

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])


def metric(state: LBFGSState, penalty: Bound) -> Array:
    """The diagonal of F's Hessian at the null model, 1 where that is zero, (p,)."""
    diagonal = state.D + _l2(penalty)
    return np.asarray(np.where(diagonal > 0, diagonal, 1.0))


def _l2(penalty: Bound) -> Array:
    terms = penalty.separable()
    assert terms is not None  # `LBFGS.suits`
    return terms.l2


def two_loop(gradient: Array, S: Array, Y: Array, diagonal: Array) -> Array:
    """H·gradient for the inverse Hessian H of the pairs (rows of S and Y, the newest last) (N&W 2006, alg. 7.4)."""
    q: Array = gradient.copy()
    scale, alphas = 1.0, []
    for s, y in zip(S[::-1], Y[::-1], strict=True):
        alphas.append(float(s @ q) / float(s @ y))
        q -= alphas[-1] * y
    if len(S):
        scale = float(S[-1] @ Y[-1]) / float(Y[-1] @ (Y[-1] / diagonal))
    q *= scale / diagonal
    for s, y, alpha in zip(S, Y, alphas[::-1], strict=True):
        q += (alpha - float(y @ q) / float(s @ y)) * s
    return q
