"""Local solves of one chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.messages import Array
from paramserver.quadratic import Factor
from paramserver.workers.problems.base import Evaluation, Problem

DRIFT = 0.1  #: a Hessian is kept while its rows' curvatures moved less than this, relatively


def drift(curvature: Array, old: Array) -> float:
    """Σ|D − D_old| / ΣD_old."""
    moved, size = float(np.abs(curvature - old).sum()), float(np.abs(old).sum())
    return moved / size if size > 0 else np.inf if moved > 0 else 0.0


def drifted(curvature: Array, old: Array) -> bool:
    """Whether a Hessian made of the old curvatures is to be made again."""
    return drift(curvature, old) > DRIFT


def curvature_at(problem: Any, data: Any, where: Array) -> Array:
    """The rows' curvatures at a Hessian's z, made again where another worker made it."""
    z, curvature = data.memo.get("hessian_at", (None, None))
    if z is None or not np.array_equal(z, where):
        curvature = problem.curvature(data, where)
        data.memo["hessian_at"] = (where, curvature)
    return np.asarray(curvature)


def times(M: Array, v: Array) -> Array:
    """M·v for a matrix or a diagonal metric."""
    return M @ v if M.ndim == 2 else M * v


def prox(
    problem: Problem, data: Any, centre: Array, M: Array, start: Array, scale: Array, limit: int = 50
) -> tuple[Array, Evaluation]:
    """argmin_x f(x) + ½‖x − centre‖²_M by damped Newton with a lazily refreshed Hessian.

    Parameters
    ----------
    centre, start, scale : (p,)
        The solve is as exact as the step x − ``scale`` deserves: its decrement falls to 1e-8 of
        ‖x − scale‖²_M, the error in x to 1e-4 of it.
    M : (p, p) or (p,)
        Positive semi-definite metric.

    Returns
    -------
    x : (p,)
    at : Evaluation of f at x
    """
    x, at = start, _evaluate(problem, data, start)
    factor, made_at, before = None, at.curvature, np.inf
    for _ in range(limit):
        off = at.gradient + times(M, x - centre)
        if factor is None or drifted(at.curvature, made_at):
            made_at, H = _hessian(problem, data, at.curvature)
            factor = Factor(H + (M if M.ndim == 2 else np.diag(M)))
        step = -factor.solve(off)
        decrement = -float(off @ step)
        apart = x - scale
        if decrement <= 1e-8 * float(apart @ times(M, apart)) + 1e-16 * abs(at.value):
            break
        if decrement > 0.1 * before and made_at is not at.curvature:  # slow: the kept Hessian has had its time
            data.memo.pop("prox", None)
            factor, before = None, np.inf
            continue
        before = decrement
        x, at = _search(problem, data, centre, M, x, at, step, decrement)
    return x, at


def _search(
    problem: Problem, data: Any, centre: Array, M: Array, x: Array, at: Evaluation, step: Array, decrement: float
) -> tuple[Array, Evaluation]:
    """Armijo back-tracking; a step that rounding alone decides is taken as it is."""

    def total(point: Array, value: float) -> float:
        apart = point - centre
        return value + 0.5 * float(apart @ times(M, apart))

    before = total(x, at.value)
    slack = 1e-13 * abs(before)
    t = 1.0
    while True:
        new = x + t * step
        at_new = _evaluate(problem, data, new)
        if total(new, at_new.value) <= before - 1e-4 * t * decrement + slack or t < 1e-10:
            return new, at_new
        t *= 0.5


def _evaluate(problem: Problem, data: Any, x: Array) -> Evaluation:
    out: Evaluation = problem.evaluate(data, x)  # type: ignore[attr-defined]
    return out


def _hessian(problem: Problem, data: Any, curvature: Array) -> tuple[Array, Array]:
    """(the curvatures it was made at, H): the last solve's on this chunk, while it is near enough."""
    made_at, H = data.memo.get("prox", (None, None))
    if made_at is None or drifted(curvature, made_at):
        made_at, H = curvature, problem.hessian(data, curvature)  # type: ignore[attr-defined]
        data.memo["prox"] = (made_at, H)
    return made_at, H
