"""A few steps of one chunk's own on the whole objective, as far as the chunk can tell it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from paramserver.messages import Array, Fields
from paramserver.penalties import Terms
from paramserver.workers.problems.base import Evaluation, Problem

ROUNDING = 1e-16  #: of f: a move this small says nothing of curvature
STIFFEST = 1e12  #: beyond, no step is short enough: the value is infinite all around


class Local(NamedTuple):
    """What all chunks step by, so that their steps are alike: f_i/share + R in the metric stiff·D/rate."""

    share: float  #: of the rows
    terms: Terms  #: R
    D: Array  #: Σ diagonals of the Hessians at the null model, (p,)
    stiff: float  #: the largest curvature met, in units of D
    rate: float
    steps: int
    mu: float = 0.0  #: of ½μ‖x − anchor‖²_D, the anchor being where they begin


class Moved(NamedTuple):
    """Where the steps led, f_i there and where they began (unscaled), and the largest curvature met."""

    x: Array
    at: Evaluation
    before: Evaluation
    stiff: float


def descend(problem: Problem, data: Any, anchor: Array, local: Local) -> Moved | None:
    """So many proximal gradient steps from there; None where there is no finite value, or near it.

    A step with more curvature on its way than ``stiff`` is taken again, shorter.
    """
    x, before = anchor, _evaluate(problem, data, anchor)
    at = before
    if not _finite(at):
        return None
    stiff = local.stiff
    for _ in range(local.steps):
        slope = at.gradient / local.share + local.mu * local.D * (x - anchor)
        while True:
            length = local.rate / ((stiff + local.mu) * np.where(local.D > 0, local.D, 1.0))
            new = local.terms.prox(x - length * slope, length)
            there = _evaluate(problem, data, new)
            met = _curvature(x, at, new, there, local)
            if met <= stiff:
                break
            stiff = min(met, 4.0 * stiff)
            if stiff > STIFFEST:
                return None
        x, at = new, there
    return Moved(x, at, before, stiff)


def _curvature(x: Array, at: Evaluation, new: Array, there: Evaluation, local: Local) -> float:
    """(∇f(new) − ∇f(x))ᵀ(new − x)/‖new − x‖²_D of the scaled losses; inf where the value is."""
    if not _finite(there):
        return np.inf
    move = new - x
    size = float(move @ (local.D * move))
    if size <= ROUNDING * abs(at.value) / local.share:
        return 0.0
    return float((there.gradient - at.gradient) @ move) / (local.share * size)


def _evaluate(problem: Any, data: Any, x: Array) -> Evaluation:
    with np.errstate(over="ignore", invalid="ignore"):
        out: Evaluation = problem.evaluate(data, x)
    return out


def _finite(at: Evaluation) -> bool:
    return bool(np.isfinite(at.value) and np.isfinite(at.gradient).all())


def parts(terms: Terms) -> Fields:
    """The parts of R that are any, to travel."""
    idle = Terms(*(_idle(len(terms.l1))))
    return {name: part for name, part, no in zip(Terms._fields, terms, idle, strict=True) if (part != no).any()}


def terms_of(fields: Fields, p: int) -> Terms:
    """R again, from its `parts` among the fields."""
    idle = zip(Terms._fields, _idle(p), strict=True)
    return Terms(*(fields.get(name, no) for name, no in idle))


def _idle(p: int) -> tuple[Array, ...]:
    return tuple(np.full(p, free) for free in (0.0, 0.0, -np.inf, np.inf))
