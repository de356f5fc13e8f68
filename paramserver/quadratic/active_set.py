"""Elastic nets with bounds: an active set over the kinks lower, 0 and upper of each coordinate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paramserver.messages import Array
from paramserver.penalties import Terms
from paramserver.quadratic.factor import cholesky, substitute

Mask = NDArray[np.bool_]
NEXT = 0.1  #: of the best one's gain: each round is a factor, and those that enter too soon only leave again


class _Step(NamedTuple):
    """A move of the active coordinates, each along the linear piece of R that it is on or enters."""

    move: Array
    active: Mask
    sign: Array  #: of the piece: +1, −1, and 0 where only the bounds bend R


def active_set(A: Array, slope: Array, terms: Terms, start: Array) -> Array:
    """argmin_w ½(w−start)ᵀA(w−start) + slopeᵀ(w−start) + R(w), ``terms`` without l2: that is part of A.

    Feature-sign search (Lee et al. 2006, alg. 1) with bounds. Every move goes to the best point on
    the segment towards the active set's optimum, or to that optimum brought back to its pieces if
    that is better still, so the objective falls at each one and the set cannot repeat. ``A`` is
    scaled to a unit diagonal. Several coordinates may enter at once: those that would leave their
    kink on the wrong side are put back before the move.
    """
    w = terms.project(start)
    t = w - start  # a gradient from w itself would carry w's rounding
    abs_A = np.abs(A)
    held = _at_kink(w, terms)
    same_set = 0
    for _ in range(20 * len(t) + 100):
        gradient = slope + A @ t
        floor = 1e-13 * (abs_A @ np.abs(t) + np.abs(slope) + terms.l1)
        way = np.zeros_like(t)
        off = np.where(held, 0.0, np.abs(gradient + terms.l1 * np.sign(w)) - floor)
        if off.max(initial=0.0) <= 0 or same_set > 2:
            way = _entrants(gradient, floor, w, held, terms)
            if not way.any():
                break
            same_set = 0
        step = _newton(A, gradient, w, held, way, terms)
        move = _best_move(A, gradient, w, step, terms)
        w, t = _land(start, w, t, move, step, terms)
        before, held = ~step.active, _at_kink(w, terms)
        same_set = same_set + 1 if np.array_equal(before, held) else 0
    return w


def _at_kink(w: Array, terms: Terms) -> Mask:
    return np.asarray((w == terms.lower) | (w == terms.upper) | ((w == 0) & (terms.l1 > 0)))


def _entrants(gradient: Array, floor: Array, w: Array, held: Mask, terms: Terms) -> Array:
    """±1: the way in which it pays most to leave a kink, for those that gain `NEXT` as much as the best; else 0."""
    least, greatest = terms.interval(w)
    up, down = -gradient - greatest, least + gradient
    excess = np.where(held, np.maximum(up, down) - floor, 0.0)
    worst = excess.max(initial=0.0)
    return np.where((excess >= NEXT * worst) & (worst > 0), np.where(up > down, 1.0, -1.0), 0.0)


def _newton(A: Array, gradient: Array, w: Array, held: Mask, way: Array, terms: Terms) -> _Step:
    """The step to the active set's optimum, without entrants that it would push the wrong way."""
    sign = np.where(terms.l1 > 0, np.sign(np.where(w == 0, way, w)), 0.0)
    active = ~held | (way != 0)
    slope = gradient + terms.l1 * sign
    while True:
        on = np.flatnonzero(active)
        move = np.zeros_like(w)
        move[on] = -substitute(cholesky(A[np.ix_(on, on)]), slope[on])
        wrong = active & (move * way < 0)
        if not wrong.any():
            return _Step(move, active, sign)
        active = active & ~wrong


def _best_move(A: Array, gradient: Array, w: Array, step: _Step, terms: Terms) -> Array:
    """The best of the whole move, its points on a kink, and its end brought back to the pieces."""
    move = step.move
    ts = _crossings(w, move, terms)
    if len(ts) == 1 and ts[0] == 1.0:
        return move
    bend, slope = float(move @ (A @ move)), float(gradient @ move)
    kinks = np.abs(w + ts[:, None] * move) @ terms.l1 - np.abs(w) @ terms.l1
    values = slope * ts + 0.5 * bend * ts**2 + kinks
    best = int(np.argmin(values))
    lower = np.where(step.sign > 0, np.maximum(terms.lower, 0.0), terms.lower)
    upper = np.where(step.sign < 0, np.minimum(terms.upper, 0.0), terms.upper)
    back = np.clip(w + move, lower, upper) - w
    value = float((gradient + terms.l1 * step.sign) @ back + 0.5 * (back @ (A @ back)))
    return back if value < values[best] else ts[best] * move


def _crossings(w: Array, move: Array, terms: Terms) -> Array:
    """Where on (0, 1] w + t·move meets a kink, up to the first bound; the last is the furthest t there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where((terms.l1 > 0) & (move != 0), -w / move, np.inf)
        wall = np.where(move != 0, (np.where(move > 0, terms.upper, terms.lower) - w) / move, np.inf)
    furthest = min(float(wall.min(initial=np.inf)), 1.0)
    return np.append(np.sort(zero[(zero > 0) & (zero < furthest)]), furthest)


def _land(start: Array, w: Array, t: Array, move: Array, step: _Step, terms: Terms) -> tuple[Array, Array]:
    """(w, w − start) after the move, exactly on a kink where rounding alone keeps it off."""
    to = start + (t + move)
    near = 1e-14 * (np.abs(w) + np.abs(step.move))
    landed = terms.project(np.where((terms.l1 > 0) & (np.abs(w + move) <= near), 0.0, to))
    for wall in (terms.lower, terms.upper):
        landed = np.where(np.abs(w + move - wall) <= near, wall, landed)
    landed = np.where(step.active, landed, w)
    on_kink = _at_kink(landed, terms)
    return landed, np.where(on_kink, landed - start, np.where(step.active, t + move, t))
