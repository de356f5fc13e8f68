"""argmin_w ½(w − ref)ᵀB(w − ref) − cᵀ(w − ref) + R(w): the consensus step of matrix-metric rules.

Not the elementwise prox of B⁻¹c. Everything is Jacobi-scaled first, so that a column times 1e±6
costs no digits, and carries a ridge of 1e-11·diag(B) recentred at ``start``, never a trace ridge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotrs

from paramserver.messages import Array
from paramserver.penalties import Bound

Mask = NDArray[np.bool_]
RIDGE = 1e-11


def scale_of(B: Array) -> Array:
    """1/√diag(B), and 1 where the diagonal is not positive."""
    diag = np.diag(B)
    return 1.0 / np.sqrt(np.where(diag > 0, diag, 1.0))


class Factor:
    """A scaled, slightly ridged Cholesky factor of a positive semi-definite matrix."""

    def __init__(self, B: Array) -> None:
        self.B = B
        self.scale = scale_of(B)
        scaled = B * self.scale
        scaled *= self.scale[:, None]
        self._factor = _cholesky(scaled)

    def solve(self, rhs: Array, refinements: int = 2) -> Array:
        """B⁻¹ rhs; refinement takes the ridge's bias out of the directions that B determines."""
        out = self._once(rhs)
        for _ in range(refinements):
            out = out + self._once(rhs - self.B @ out)
        return out

    def _once(self, rhs: Array) -> Array:
        return self.scale * _solve(self._factor, self.scale * rhs)


def _cholesky(A: Array) -> Array:
    """The factor of A + ridge, for a symmetric A of unit diagonal. (LAPACK itself: wrappers cost as much.)"""
    ridge = RIDGE
    while True:
        ridged = A.copy()
        ridged.flat[:: len(A) + 1] += ridge
        factor, info = dpotrf(ridged.T, lower=1, clean=0, overwrite_a=1)  # symmetric: .T is Fortran's order for free
        if info == 0:
            return np.asarray(factor)
        ridge *= 100.0  # rounding made it indefinite: a larger ridge only slows the refinement
        if ridge > 1.0:
            raise LinAlgError("the quadratic model is not positive semi-definite, or not finite")


def _solve(factor: Array, rhs: Array) -> Array:
    out, _ = dpotrs(factor, rhs, lower=1)
    return np.asarray(out)


def minimise(B: Array, c: Array, bound: Bound, ref: Array, start: Array) -> Array:
    """The minimiser, (p,). ``B`` is (p, p) or, for a diagonal metric, (p,).

    ``start`` picks the representative where B and R leave a direction free.
    """
    if B.ndim == 1:
        return _diagonal(B, c, bound, ref, start)
    weights = bound.elastic_net()
    slope = B @ (start - ref) - c
    if weights is None:
        return _accelerated(B, slope, bound, start)
    l1, l2 = weights
    A = B.copy()
    A.flat[:: len(A) + 1] += l2
    slope = slope + l2 * start
    if not l1.any():
        return start - Factor(A).solve(slope, refinements=1)  # slope is of start: the next step refines this one
    scale = scale_of(A)
    v = feature_sign(A * scale[:, None] * scale, slope * scale, l1 * scale, start / scale)
    return v * scale


def _diagonal(B: Array, c: Array, bound: Bound, ref: Array, start: Array) -> Array:
    """A diagonal metric makes the step the elementwise prox, and only then."""
    known = B > 0
    safe = np.where(known, B, 1.0)
    return np.where(known, bound.prox(ref + c / safe, 1.0 / safe), start)


def feature_sign(A: Array, slope: Array, l1: Array, start: Array) -> Array:
    """argmin_w ½(w−start)ᵀA(w−start) + slopeᵀ(w−start) + Σ l1_j|w_j| (Lee et al. 2006, alg. 1).

    An active set of signs; every move goes to the best point on the segment towards the active
    set's optimum, so the objective falls at each one and the set cannot repeat. ``A`` is scaled
    to a unit diagonal. Several coordinates may enter at once: those that would leave zero on the
    wrong side are put back before the move.
    """
    t = np.zeros_like(start)  # w − start: a gradient from w itself would carry w's rounding
    abs_A = np.abs(A)
    active = (start != 0) | (l1 == 0)
    sign = np.sign(start)
    same_set = 0
    for _ in range(20 * len(t) + 100):
        gradient = slope + A @ t
        floor = 1e-13 * (abs_A @ np.abs(t) + np.abs(slope) + l1)
        off = np.where(active, np.abs(gradient + l1 * sign) - floor, 0.0)
        if off.max(initial=0.0) <= 0 or same_set > 2:
            excess = np.where(active, 0.0, np.abs(gradient) - l1 - floor)
            worst = excess.max(initial=0.0)
            if worst <= 0:
                break
            enter = excess >= 0.5 * worst
            sign = np.where(enter, -np.sign(gradient), sign)
            active, same_set = active | enter, 0
        w = start + t
        step, active = _active_step(A, gradient + l1 * sign, active, sign, w, l1)
        length = _best_on_segment(A, gradient, l1, w, step)
        crossed = (l1 > 0) & active & (np.abs(w + length * step) <= 1e-14 * (np.abs(w) + np.abs(step)))
        t = np.where(crossed, -start, t + length * step)
        same_set = 0 if crossed.any() else same_set + 1
        active = ((start + t != 0) & active) | (l1 == 0)
        sign = np.sign(start + t)
    return start + t


def _active_step(A: Array, slope: Array, active: Mask, sign: Array, w: Array, l1: Array) -> tuple[Array, Mask]:
    """The Newton step on the active set, without entrants that it would push the wrong way."""
    while True:
        on = np.flatnonzero(active)
        step = np.zeros_like(w)
        step[on] = -_solve(_cholesky(A[np.ix_(on, on)]), slope[on])
        wrong = active & (w == 0) & (l1 > 0) & (step * sign < 0)
        if not wrong.any():
            return step, active
        active = active & ~wrong


def _best_on_segment(A: Array, gradient: Array, l1: Array, w: Array, step: Array) -> float:
    """The best t among 1 and the sign crossings in (0, 1) of w + t·step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.where((l1 > 0) & (step != 0), -w / step, np.inf)
    ts = np.append(np.sort(crossing[(crossing > 0) & (crossing < 1)]), 1.0)
    if len(ts) == 1:
        return 1.0
    bend, slope = float(step @ (A @ step)), float(gradient @ step)
    kinks = np.abs(w + ts[:, None] * step) @ l1
    return float(ts[np.argmin(slope * ts + 0.5 * bend * ts**2 + kinks)])


def _accelerated(B: Array, slope: Array, bound: Bound, start: Array, limit: int = 20_000) -> Array:
    """Accelerated proximal gradient with restarts (Beck & Teboulle 2009; O'Donoghue & Candès 2015).

    For a penalty that is known by its prox alone. The metric is λmax of the scaled B times diag(B).
    """
    scale = scale_of(B)
    steps = scale**2 / (np.linalg.norm(B * scale[:, None] * scale, 2) * (1 + 1e-9) + RIDGE)
    w = y = start
    momentum = 1.0
    for _ in range(limit):
        new = bound.prox(y - steps * (slope + B @ (y - start)), steps)
        move = new - w
        if float((move / scale) @ (move / scale)) <= 1e-28 * (1e-300 + float((new / scale) @ (new / scale))):
            return new
        if float(((y - new) / steps) @ move) > 0:
            momentum, y = 1.0, new
        else:
            following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
            y = new + (momentum - 1) / following * move
            momentum = following
        w = new
    return w
