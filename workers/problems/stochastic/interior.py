"""An interior point method, for programs that an active set method takes too long for.

min cᵀx + ½xᵀHx subject to row_lower ≤ Ax ≤ row_upper and lower ≤ x ≤ upper, by Mehrotra's predictor and corrector
(Nocedal & Wright, Numerical Optimization, section 16.6). With s = Ax and v = (x, s), y the rows' multipliers and
z the bounds', each step factors one sparse quasi-definite matrix: the work grows with the program's size and not with
how many columns are off their bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from paramserver.messages import Array
from paramserver.workers.problems.stochastic.program import Form

STEPS = 80
ENOUGH = 1e-10  #: residuals and complementarity, relative to the numbers they are made of
USABLE = 1e-6  #: where rounding stops it before
IDLE = 8  #: steps in a row that came no nearer are the last
ROUNDING = 1e-15  #: room to a bound, at least
NEAR = 0.995  #: of the way to the boundary
RIDGE = 1e-8  #: of the matrix that is factored: steps are shorter by so much, and lead to the same point


class Point(NamedTuple):
    """v = (x, s); y; multipliers of lower and upper bounds, 0 where there are none."""

    v: Array
    y: Array
    low: Array
    high: Array


def minimise(form: Form, c: Array, H: Any) -> Array | None:
    """x, (n,); None where it does not get there. The program is known to have a solution."""
    free = form.lower < form.upper
    rows = np.isfinite(form.row_lower) | np.isfinite(form.row_upper)
    fixed, A = np.where(free, 0.0, form.lower), form.A.tocsr()[rows]
    shift = A @ fixed
    bounds = (form.row_lower[rows] - shift, form.row_upper[rows] - shift)
    unit = float(np.abs(c).max(initial=0.0)) or float(np.abs(H.data).max(initial=0.0)) or 1.0
    inner = _Interior(
        ((c + H @ fixed) / unit)[free], A.tocsc()[:, free], (H / unit).tocsc()[free][:, free],
        np.concatenate([form.lower[free], bounds[0]]), np.concatenate([form.upper[free], bounds[1]]),
    )  # fmt: skip
    found = inner.solve()
    if found is None:
        return None
    x = fixed
    x[free] = np.clip(found, form.lower[free], form.upper[free])
    return x


class _Interior:
    """The program in v; equations are rows whose s stays where it is."""

    def __init__(self, c: Array, A: Any, H: Any, lower: Array, upper: Array) -> None:
        self.c, self.A, self.H, self.lower, self.upper = c, A, H, lower, upper
        self.n, self.m = len(c), A.shape[0]
        self.moves = lower < upper
        self.has_low, self.has_high = np.isfinite(lower) & self.moves, np.isfinite(upper) & self.moves
        self.count = int(self.has_low.sum() + self.has_high.sum())

    def solve(self) -> Array | None:
        """x, or None: the best there was, if that is good enough to go on with."""
        at, best, least, idle = self._start(), None, np.inf, 0
        for _ in range(STEPS):
            dual, primal = self._left(at)
            gap = self._gap(at)
            value, size = abs(float(self.c @ at.v[: self.n])), float(np.abs(at.v).max(initial=0.0))
            off = max(_largest(primal) / (1.0 + size), _largest(dual), gap / (1.0 + value))
            if off < least:
                best, least, idle = at.v[: self.n], off, 0
            idle += 1
            if off <= ENOUGH or idle > IDLE or not off < np.inf:
                break
            try:
                at = self._step(at, dual, primal, gap)
            except RuntimeError:  # the matrix is singular to rounding: no further
                break
        return best if least <= USABLE else None

    def _start(self) -> Point:
        """Within the bounds by 1 at least, or half of the way between them."""
        low, high = np.where(self.has_low, self.lower, -np.inf), np.where(self.has_high, self.upper, np.inf)
        middle = np.minimum(1.0, (high - low) / 2)
        v = np.clip(np.zeros(self.n + self.m), low + middle, high - middle)
        v[self.n :] = np.clip(self.A @ v[: self.n], (low + middle)[self.n :], (high - middle)[self.n :])
        v = np.where(self.moves, v, self.lower)
        return Point(v, np.zeros(self.m), self.has_low.astype(float), self.has_high.astype(float))

    def _left(self, at: Point) -> tuple[Array, Array]:
        """What is left of the dual and of the primal conditions."""
        x, s = at.v[: self.n], at.v[self.n :]
        slope = np.concatenate([self.H @ x + self.c - self.A.T @ at.y, at.y]) - at.low + at.high
        return np.where(self.moves, -slope, 0.0), s - self.A @ x

    def _room(self, v: Array) -> tuple[Array, Array]:
        tiny = ROUNDING * (1.0 + np.abs(v))
        below, above = np.maximum(v - self.lower, tiny), np.maximum(self.upper - v, tiny)
        return np.where(self.has_low, below, 1.0), np.where(self.has_high, above, 1.0)

    def _gap(self, at: Point) -> float:
        below, above = self._room(at.v)
        return float(at.low @ below + at.high @ above)

    def _step(self, at: Point, dual: Array, primal: Array, gap: float) -> Point:
        """Predictor, then corrector, with one matrix."""
        below, above = self._room(at.v)
        bend = at.low / below + at.high / above
        solve = self._factor(bend)
        low, high = -at.low * below, -at.high * above
        guess = self._direction(at, solve, bend, dual, primal, low, high)
        most = self._longest(at, guess)
        after = self._gap(_moved(at, guess, *most))
        target = gap / max(self.count, 1) * min(max(after / gap, 0.0), 1.0) ** 3 if gap > 0 else 0.0
        low = np.where(self.has_low, target + low - guess.v * guess.low, 0.0)
        high = np.where(self.has_high, target + high + guess.v * guess.high, 0.0)
        step = self._direction(at, solve, bend, dual, primal, low, high)
        return _moved(at, step, *(NEAR * t for t in self._longest(at, step)))

    def _factor(self, bend: Array) -> Any:
        """(dx, −dy) of [H + D, Aᵀ; A, −1/D_s]; not pivoted, and refined for that."""
        D, give = bend[: self.n], np.where(self.moves[self.n :], 1.0 / np.maximum(bend[self.n :], 1e-14), 0.0)
        corner, other = self.H + sparse.diags_array(D + RIDGE), sparse.diags_array(-give - RIDGE)
        whole = sparse.block_array([[corner, self.A.T], [self.A, other]], format="csc")
        factor = splu(whole, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

        def solve(right: Array) -> Array:
            out = factor.solve(right)
            for _ in range(2):
                out = out + factor.solve(right - whole @ out)
            return out  # type: ignore[no-any-return]

        return solve

    def _direction(
        self, at: Point, solve: Any, bend: Array, dual: Array, primal: Array, low: Array, high: Array
    ) -> Point:
        below, above = self._room(at.v)
        right = np.where(self.moves, dual + low / below - high / above, 0.0)
        give = np.where(self.moves[self.n :], 1.0 / np.maximum(bend[self.n :], 1e-14), 0.0)
        both = solve(np.concatenate([right[: self.n], primal + give * right[self.n :]]))
        y = -both[self.n :]
        v = np.concatenate([both[: self.n], give * (right[self.n :] - y)])
        return Point(v, y, (low - at.low * v) / below * self.has_low, (high + at.high * v) / above * self.has_high)

    def _longest(self, at: Point, step: Point) -> tuple[float, float]:
        """How far v, and the multipliers, may go: at most 1."""
        below, above = self._room(at.v)
        primal = min(_until(below, step.v, self.has_low), _until(above, -step.v, self.has_high))
        dual = min(_until(at.low, step.low, self.has_low), _until(at.high, step.high, self.has_high))
        return (min(primal, dual),) * 2 if self.H.nnz else (primal, dual)


def _largest(v: Array) -> float:
    return float(np.abs(v).max(initial=0.0))


def _until(room: Array, step: Array, where: np.ndarray) -> float:
    """The t ≤ 1 at which room + t·step is 0 somewhere."""
    falls = where & (step < 0)
    return min(1.0, float((room[falls] / -step[falls]).min(initial=1.0)))


def _moved(at: Point, step: Point, primal: float, dual: float) -> Point:
    return Point(at.v + primal * step.v, at.y + dual * step.y, at.low + dual * step.low, at.high + dual * step.high)
