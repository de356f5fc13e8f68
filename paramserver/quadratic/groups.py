"""Sums of group norms: block descent finds the groups that are in, Newton's method solves on those."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paramserver.messages import Array
from paramserver.penalties import Norms
from paramserver.quadratic.factor import Factor, scale_of

Mask = NDArray[np.bool_]


def group_descent(A: Array, slope: Array, norms: Norms, start: Array) -> Array:
    """argmin_w ½(w−start)ᵀA(w−start) + slopeᵀ(w−start) + Σ weight_g‖w_g‖.

    In turn: each group that is off its optimality condition is set to zero where that is its
    minimiser, the others fixed, and takes a proximal step in a diagonal metric above its block
    where not (Qin, Scheinberg & Goldfarb 2013; a metric a column, for columns of any scale); then
    one Newton step on all groups that are in, with an exact search along it. The objective falls
    at every move.
    """
    t = np.zeros_like(start)  # w − start: a gradient from w itself would carry w's rounding
    abs_A, blocks = np.abs(A), _Blocks(A, norms)
    last, waited, damping = np.inf, 0, 0.0
    for _ in range(200 + 2 * len(norms.weights)):
        gradient = slope + A @ t
        floor = 1e-13 * (abs_A @ np.abs(t) + np.abs(slope))
        off = _left(start + t, gradient, floor, norms)
        worst = off.max(initial=0.0)
        waited = waited + 1 if worst > 0.5 * last else 0  # where rounding stops it above the floor
        last = min(worst, last)
        if worst <= 0 or (waited > 20 and worst <= 100.0):
            break
        t = blocks.sweep(gradient, norms, start, t, off)
        move = _newton(A, slope + A @ t, norms, start + t, damping)
        length = _search(A, slope + A @ t, norms, start + t, move)
        # A move along what A leaves free may be cut short by one group's norm: the next is bent from that.
        damping = max(100.0 * damping, 1e-10) if length < 0.1 else damping / 100.0 if damping > 1e-14 else 0.0
        t = _land(norms, start, t, t + length * move)
    return start + t


def _left(w: Array, gradient: Array, floor: Array, norms: Norms) -> Array:
    """By how many floors each coordinate is off its optimality condition, less one; ≤ 0 where it holds."""
    residual = gradient + norms.subgradient(w, -gradient)
    bar = floor + 1e-13 * norms.spread(norms.weights, 0.0) + 1e-300
    return np.asarray(np.abs(residual) / bar - 1.0)


class _Blocks:
    """A's diagonal blocks and the diagonal metrics above them."""

    def __init__(self, A: Array, norms: Norms) -> None:
        self.A = A
        order = np.argsort(norms.ids, kind="stable")
        cuts = np.cumsum(np.bincount(norms.ids + 1, minlength=len(norms.weights) + 1))[:-1]
        self.columns = np.split(order, cuts)[1:]
        self._known: dict[int, tuple[Array, Array]] = {}

    def block(self, g: int) -> tuple[Array, Array]:
        """(Q, m) of one group with Q ≼ diag(m): λmax of the scaled Q times its diagonal."""
        if g not in self._known:
            on = self.columns[g]
            Q = self.A[np.ix_(on, on)]
            scale = scale_of(Q)
            self._known[g] = Q, np.diag(Q) * np.linalg.norm(Q * scale[:, None] * scale, 2) * (1 + 1e-9)
        return self._known[g]

    def sweep(self, gradient: Array, norms: Norms, start: Array, t: Array, off: Array) -> Array:
        """t after each group that is off took a step of its own, to zero where that is its minimiser."""
        gradient, t = gradient.copy(), t.copy()
        for g in np.unique(norms.ids[(off > 0) & (norms.ids >= 0)]):
            on, weight = self.columns[g], norms.weights[g : g + 1]
            (Q, metric), w = self.block(int(g)), start[on] + t[on]
            pull = Q @ w - gradient[on]
            one = Norms(np.zeros(len(on), np.intp), weight)
            if one.lengths(pull)[0] > weight[0]:
                new = one.shrink(metric * w - gradient[on], metric)
            else:
                new = np.zeros_like(w)
            if np.isfinite(new).all():
                move = np.where(new == 0, -start[on], t[on] + (new - w)) - t[on]
                t[on] += move
                gradient += self.A[:, on] @ move
        return t


def _newton(A: Array, gradient: Array, norms: Norms, w: Array, damping: float) -> Array:
    """The Newton step on the groups that are not zero and the free coordinates, ``damping`` times diag(A) on top."""
    move = np.zeros_like(w)
    lengths = norms.lengths(w)
    on = np.flatnonzero(norms.spread(lengths > 0, True))
    if not len(on):
        return move
    stiff = norms.spread(norms.weights / np.where(lengths > 0, lengths, 1.0), 0.0)[on]
    unit, ids = norms.units(w)[on], norms.ids[on]
    together = (ids[:, None] == ids) & (ids >= 0)
    H = np.where(together, -np.outer(stiff * unit, unit), 0.0)
    H.flat[:: len(on) + 1] += stiff  # before A, which a group all but zero would swallow
    H += A[np.ix_(on, on)]
    H.flat[:: len(on) + 1] += damping * np.diag(A)[on]
    residual = gradient[on] + norms.spread(norms.weights, 0.0)[on] * unit
    move[on] = -Factor(H).solve(residual)
    return move


def _land(norms: Norms, start: Array, t: Array, to: Array) -> Array:
    """``to``, with the groups exactly at zero that the move brought there but for rounding."""
    gone = norms.lengths(start + to) <= 1e-13 * norms.lengths(start + t)
    return np.where(norms.spread(gone, False), -start, to)


def _search(A: Array, gradient: Array, norms: Norms, w: Array, move: Array) -> float:
    """The minimiser on [0, 1] along the move, by its slope: values would cancel."""
    slope, bend = float(gradient @ move), float(move @ (A @ move))

    def rises(t: float) -> float:
        at = w + t * move
        return slope + t * bend + float(norms.spread(norms.weights, 0.0) @ (norms.units(at) * move))

    end = rises(1.0)
    if end <= 1e-10 * abs(rises(0.0)):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return low
