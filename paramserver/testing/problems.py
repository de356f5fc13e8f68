"""The laws of a local problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse

from paramserver.messages import Array
from paramserver.server.null import NullModel
from paramserver.testing.laws import frozen, hands_off, law, same, travelled
from paramserver.workers.problems import Problem, Start
from paramserver.workers.problems.passes import ratios


def null_model(problem: Any, start: Start, data: Sequence[Any]) -> Start:
    """The null model of these chunks, as the server finds it from ``problem.start``."""
    null = NullModel.of(problem, start)
    while not null.done:
        answers = [problem.null(chunk, null.z) for chunk in data]
        null.take(dict(zip("fgH", (sum(part) for part in zip(*answers, strict=True)), strict=True)))
    return null.start


@hands_off
def check_problem(problem: Problem, *parts: Any, seed: int = 0) -> None:
    """What the problem offers over one chunk fits together; what it lacks is passed over.

    ``parts`` are one chunk as `Problem.prepare` takes it. Where they are arrays of one length they
    are also cut in two, to see that surveys add up.
    """
    f: Any = problem
    rng, has, data = np.random.default_rng(seed), {k for k in dir(f) if callable(getattr(f, k))}, f.prepare(*parts)
    law(data.rows > 0 and isinstance(data.memo, dict), "data have rows (int > 0) and a memo (dict)")
    survey = f.survey(data)
    f = f.at(survey)
    start = null_model(f, f.start(survey), [data])
    p, reach = len(start.z), f.reach(data) if "reach" in has else None
    law(survey[0] == data.rows, f"a survey begins with the rows, got {survey[:1]}")
    free = ~np.asarray(f.penalised(p))
    law(free.shape == (p,) and free.dtype == bool, f"penalised({p}) is a mask ({p},) of bool")
    arrays = [part if part is None or issparse(part) else np.asarray(part) for part in parts]
    if data.rows > 1 and all(a is None or (a.ndim >= 1 and a.shape[0] == data.rows) for a in arrays):
        cuts = np.array_split(rng.permutation(data.rows), 2)
        halves = [f.prepare(*(None if a is None else a[rows] for a in arrays)) for rows in cuts]
        merged = null_model(f, f.start(f.merge(*map(f.survey, halves))), halves)
        same(merged.z, start.z, "surveys of two halves add up to the whole's null model", 1e-9)
        same(merged.objective, start.objective, "surveys of two halves add up to the whole's null objective", 1e-9)
    if "prox" in has:
        _check_prox(f, data, start.z, rng)
    if "evaluate" not in has:
        return
    unit = np.ones(p) if reach is None else 1.0 / np.where(reach > 0, reach, 1.0) / np.sqrt(p)
    at = f.evaluate(data, frozen(start.z))
    same(at.value, start.objective, "the null model's objective is what evaluate finds there", 1e-9)
    pull = np.abs(at.gradient * unit)[free].max(initial=0.0)
    law(pull <= 1e-6 * abs(at.value), f"the null model is optimal in the free coordinates: gradient {pull:.2e}")
    same(travelled(f).evaluate(data, start.z).gradient, at.gradient, "a problem survives pickling")
    z, ts = frozen(start.z + unit * rng.standard_normal(p)), np.array([1.0, 0.5, 0.01, 0.0])
    at = f.evaluate(data, z)
    for _ in range(5):
        e = frozen(unit * rng.standard_normal(p))
        up, down = (f.evaluate(data, frozen(z + h * e)) for h in (1e-4, -1e-4))
        slope, seen = float(at.gradient @ e), (up.value - down.value) / 2e-4
        slack = 1e-6 * (float(np.abs(at.gradient) @ np.abs(e)) + abs(at.value))
        law(abs(seen - slope) <= slack, f"the gradient is that of value: {slope} along a step, differences {seen}")
        if "hessian" in has:
            H, bent = f.hessian(data, at.curvature), (up.gradient - down.gradient) / 2e-4
            slack = np.abs(unit * (1e-5 * (np.abs(H) @ np.abs(e)) + 1e-9 * np.abs(at.gradient))).max()
            off = np.abs((H @ e - bent) * unit).max()
            law(off <= slack, f"the Hessian is that of the gradient: off by {off:.2e}, allowed {slack:.2e}")
            again = f.hessian(data, up.curvature if f.quadratic else at.curvature)
            same(again, H.T, "the Hessian is symmetric, and constant where the problem is quadratic")
        if {"hessian", "hessian_diagonal"} <= has:
            same(f.hessian_diagonal(data, at.curvature), np.diag(H), "hessian_diagonal is the Hessian's")
        for size in (1e-3, 0.3, 3.0) if {"hessian", "fenchel"} <= has else ():
            _check_fenchel(f, data, z, at, H, frozen(size * e), reach if "fenchel_bound" in has else None)
            if f.bending:
                kept = f.evaluate(data, frozen(z + 0.3 * unit * rng.standard_normal(p))).curvature
                _check_kept(f, data, z, at, kept, frozen(size * e), reach if "fenchel_bound" in has else None)
        if "curvature" in has:
            same(f.curvature(data, z), at.curvature, "curvature is evaluate's")
        if "line" in has:
            values = [f.evaluate(data, z + t * e).value for t in ts]
            same(f.line(data, z, e, ts), values, "line is evaluate along the step", 1e-9)


def _check_prox(f: Any, data: Any, z: Array, rng: np.random.Generator) -> None:
    (v, x), (v2, x2) = ((v, f.prox(data, v, 2.0)[0]) for v in (frozen(z + rng.standard_normal(len(z))) for _ in "ab"))
    law(x.shape == z.shape and np.isfinite(x).all(), f"prox returns {len(z)} finite numbers, got {x!r}")
    law(np.isfinite(f.prox(data, v, 2.0)[1]), "the value that prox returns is finite")
    near, apart = float((x - x2) @ (x - x2)), float((x - x2) @ (v - v2))
    law(near <= apart + 1e-9 * (1e-12 + float((v - v2) @ (v - v2))), f"prox is firmly nonexpansive: {near} > {apart}")
    for rho in (0.3, 7.0):
        slope = 2.0 * (v - x)  # an element of ∂f(x): from x + slope/rho, every rho leads back to x
        same(f.prox(data, x + slope / rho, rho)[0], x, f"prox of rho 2 and of {rho} are of one convex function", 1e-6)


def _check_fenchel(f: Any, data: Any, z: Array, at: Any, H: Array, step: Array, reach: Array | None) -> None:
    (term, _), bend, slack = f.fenchel(data, z, step), float(step @ (H @ step)), 1e-9 * abs(at.value)
    law(term >= -slack, f"fenchel is >= 0, got {term}")
    for move in (0.0 * step, 0.5 * step, step):
        value, below = f.evaluate(data, z + move).value, at.value - term + float((at.gradient + H @ step) @ move)
        law(value >= below - slack, f"fenchel bounds the losses from below: {value} < {below}")
        there, loss = f.fenchel(data, z, step, move)
        right = abs(loss - value) <= slack and (there == term == np.inf or abs(there - value + below) <= slack)
        law(right, f"fenchel at z + move is {value - below}, the losses at it are {value}: got {there}, {loss}")
    if reach is not None:
        furthest = float(reach @ np.abs(step))
        widest = furthest**2 * float(at.curvature.sum()) * (1 + 1e-9) + slack
        law(bend <= widest, f"reach bounds every row's |x'step|: step'H step {bend} > {widest}")
        bound = f.fenchel_bound(bend, furthest)
        law(bound is None or term <= bound * (1 + 1e-9) + slack, f"fenchel <= fenchel_bound: {term} > {bound}")


def _check_kept(f: Any, data: Any, z: Array, at: Any, kept: Array, step: Array, reach: Array | None) -> None:
    """The Hessian of curvatures from elsewhere leads to a dual too."""
    H, slack = f.hessian(data, kept), 1e-9 * abs(at.value)
    (term, loss), (there, _) = (f.fenchel(data, z, step, move, kept) for move in (None, step))
    value, below = f.evaluate(data, z + step).value, at.value - term + float((at.gradient + H @ step) @ step)
    law(term >= -slack and abs(loss - at.value) <= slack, f"fenchel of kept curvatures is >= 0, got {term}, {loss}")
    right = there == term == np.inf or abs(there - value + below) <= slack
    law(right, f"fenchel of kept curvatures at z + move is {value - below}: got {there}")
    if reach is not None:
        stiff = float(ratios(kept, at.curvature).max(initial=1.0))
        bound = f.fenchel_bound(stiff * float(step @ (H @ step)), stiff * float(reach @ np.abs(step)))
        law(bound is None or term <= bound * (1 + 1e-9) + slack, f"of kept ones, <= fenchel_bound: {term} > {bound}")
