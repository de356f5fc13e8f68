"""Contract checks for plug-ins: the laws that a penalty, a problem and a consensus rule must keep.

Call them from your own tests, without Dask or a cluster; each raises AssertionError with the law
that failed and its numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from typing import Any

import cloudpickle
import numpy as np
from scipy.sparse import issparse

from paramserver.consensus.base import Consensus, Pull, Setup, check
from paramserver.messages import Array, Fields, Version
from paramserver.penalties import L2, Bound, Penalty
from paramserver.server.null import NullModel
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import Logistic, Problem, Start
from paramserver.workers.problems.passes import ratios

__all__ = ["check_penalty", "check_problem", "check_rule", "null_model"]


def null_model(problem: Any, start: Start, data: Sequence[Any]) -> Start:
    """The null model of these chunks, as the server finds it from ``problem.start``."""
    null = NullModel.of(problem, start)
    while not null.done:
        answers = [problem.null(chunk, null.z) for chunk in data]
        null.take(dict(zip("fgH", (sum(part) for part in zip(*answers, strict=True)), strict=True)))
    return null.start


def check_penalty(penalty: Penalty, d: int = 8, seed: int = 0) -> None:
    """Value, prox and subgradient belong to one convex function of ``d`` coordinates."""
    rng = np.random.default_rng(seed)
    ones = penalty.project(np.ones(d))
    _same(_travelled(penalty).value(ones), penalty.value(ones), "a penalty survives pickling")
    drawn, terms, blocks = [], penalty.terms(d), penalty.blocks(d)
    for _ in range(20):
        v, near = _frozen(rng.standard_normal(d) * 10.0 ** rng.uniform(-2, 2)), _frozen(rng.standard_normal(d))
        steps = 10.0 ** rng.uniform(-2, 2, d)
        steps = _frozen(steps if blocks is None else steps[blocks])  # one a block
        w = penalty.prox(v, steps)
        _law(w.shape == (d,) and np.isfinite(w).all(), f"prox returns {d} finite numbers, got {w!r}")
        slope = (v - w) / steps
        off = np.abs(slope - penalty.subgradient(w, slope)) / (1 + np.abs(slope) + np.abs(v / steps))
        _law(off.max() <= 1e-7, f"(v - prox(v))/steps is a subgradient at prox(v): off by {off.max():.2e} relatively")
        inside = penalty.project(v)
        _law(np.isfinite(penalty.value(inside)), f"project leads to where value is finite, not to {inside!r}")
        _law(np.array_equal(penalty.project(w), w), f"project leaves {w!r} alone: value is finite there")
        drawn.append((v, w, penalty.subgradient(w, near), near, steps))
    for (v, w, g, near, steps), (v2, w2, *_) in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        value, value2, middle = (penalty.value(x) for x in (w, w2, penalty.project(0.3 * w + 0.7 * w2)))
        slack = 1e-9 * (1 + abs(value) + abs(value2) + float(np.abs(g) @ np.abs(w2 - w)))
        _law(value >= 0 and np.isfinite(value), f"value is finite and >= 0 where prox leads, got {value}")
        _law(middle <= 0.3 * value + 0.7 * value2 + slack, f"value is convex: {middle} between {value} and {value2}")
        below = value + float(g @ (w2 - w))
        _law(value2 >= below - slack, f"R(w') >= R(w) + g'(w' - w): {value2} < {below}")
        _law(np.allclose(penalty.subgradient(w, g), g), f"the subgradient nearest to one of them, {g}, is itself")
        _same(penalty.distance(w, near), np.linalg.norm(near - g), "distance is that to the nearest subgradient")
        apart, moved = (v - v2) ** 2 @ (1 / steps), (w - penalty.prox(v2, steps)) ** 2 @ (1 / steps)
        _law(moved <= apart * (1 + 1e-9), f"prox is nonexpansive in the metric 1/steps: {moved} > {apart}")
        if terms is not None:
            _same(value, terms.value(w), "value is what terms say")
            _same(w, terms.prox(v, steps), "prox is what terms say")


def check_problem(problem: Problem, *parts: Any, seed: int = 0) -> None:
    """What the problem offers over one chunk fits together; what it lacks is passed over.

    ``parts`` are one chunk as `Problem.prepare` takes it. Where they are arrays of one length they
    are also cut in two, to see that surveys add up.
    """
    f: Any = problem
    rng, has, data = np.random.default_rng(seed), {k for k in dir(f) if callable(getattr(f, k))}, f.prepare(*parts)
    _law(data.rows > 0 and isinstance(data.memo, dict), "data have rows (int > 0) and a memo (dict)")
    survey = f.survey(data)
    f = f.at(survey)
    start = null_model(f, f.start(survey), [data])
    p, reach = len(start.z), f.reach(data) if "reach" in has else None
    _law(survey[0] == data.rows, f"a survey begins with the rows, got {survey[:1]}")
    free = ~np.asarray(f.penalised(p))
    _law(free.shape == (p,) and free.dtype == bool, f"penalised({p}) is a mask ({p},) of bool")
    arrays = [part if part is None or issparse(part) else np.asarray(part) for part in parts]
    if data.rows > 1 and all(a is None or (a.ndim >= 1 and a.shape[0] == data.rows) for a in arrays):
        cuts = np.array_split(rng.permutation(data.rows), 2)
        halves = [f.prepare(*(None if a is None else a[rows] for a in arrays)) for rows in cuts]
        merged = null_model(f, f.start(f.merge(*map(f.survey, halves))), halves)
        _same(merged.z, start.z, "surveys of two halves add up to the whole's null model", 1e-9)
        _same(merged.objective, start.objective, "surveys of two halves add up to the whole's null objective", 1e-9)
    if "prox" in has:
        _check_prox(f, data, start.z, rng)
    if "evaluate" not in has:
        return
    unit = np.ones(p) if reach is None else 1.0 / np.where(reach > 0, reach, 1.0) / np.sqrt(p)
    at = f.evaluate(data, _frozen(start.z))
    _same(at.value, start.objective, "the null model's objective is what evaluate finds there", 1e-9)
    pull = np.abs(at.gradient * unit)[free].max(initial=0.0)
    _law(pull <= 1e-6 * abs(at.value), f"the null model is optimal in the free coordinates: gradient {pull:.2e}")
    _same(_travelled(f).evaluate(data, start.z).gradient, at.gradient, "a problem survives pickling")
    z, ts = _frozen(start.z + unit * rng.standard_normal(p)), np.array([1.0, 0.5, 0.01, 0.0])
    at = f.evaluate(data, z)
    for _ in range(5):
        e = _frozen(unit * rng.standard_normal(p))
        up, down = (f.evaluate(data, _frozen(z + h * e)) for h in (1e-4, -1e-4))
        slope, seen = float(at.gradient @ e), (up.value - down.value) / 2e-4
        slack = 1e-6 * (float(np.abs(at.gradient) @ np.abs(e)) + abs(at.value))
        _law(abs(seen - slope) <= slack, f"the gradient is that of value: {slope} along a step, differences {seen}")
        if "hessian" in has:
            H, bent = f.hessian(data, at.curvature), (up.gradient - down.gradient) / 2e-4
            slack = np.abs(unit * (1e-5 * (np.abs(H) @ np.abs(e)) + 1e-9 * np.abs(at.gradient))).max()
            off = np.abs((H @ e - bent) * unit).max()
            _law(off <= slack, f"the Hessian is that of the gradient: off by {off:.2e}, allowed {slack:.2e}")
            again = f.hessian(data, up.curvature if f.quadratic else at.curvature)
            _same(again, H.T, "the Hessian is symmetric, and constant where the problem is quadratic")
        if {"hessian", "hessian_diagonal"} <= has:
            _same(f.hessian_diagonal(data, at.curvature), np.diag(H), "hessian_diagonal is the Hessian's")
        for size in (1e-3, 0.3, 3.0) if {"hessian", "fenchel"} <= has else ():
            _check_fenchel(f, data, z, at, H, _frozen(size * e), reach if "fenchel_bound" in has else None)
            if f.bending:
                kept = f.evaluate(data, _frozen(z + 0.3 * unit * rng.standard_normal(p))).curvature
                _check_kept(f, data, z, at, kept, _frozen(size * e), reach if "fenchel_bound" in has else None)
        if "curvature" in has:
            _same(f.curvature(data, z), at.curvature, "curvature is evaluate's")
        if "line" in has:
            values = [f.evaluate(data, z + t * e).value for t in ts]
            _same(f.line(data, z, e, ts), values, "line is evaluate along the step", 1e-9)


def _check_prox(f: Any, data: Any, z: Array, rng: np.random.Generator) -> None:
    (v, x), (v2, x2) = ((v, f.prox(data, v, 2.0)[0]) for v in (_frozen(z + rng.standard_normal(len(z))) for _ in "ab"))
    _law(x.shape == z.shape and np.isfinite(x).all(), f"prox returns {len(z)} finite numbers, got {x!r}")
    _law(np.isfinite(f.prox(data, v, 2.0)[1]), "the value that prox returns is finite")
    near, apart = float((x - x2) @ (x - x2)), float((x - x2) @ (v - v2))
    _law(near <= apart + 1e-9 * (1e-12 + float((v - v2) @ (v - v2))), f"prox is firmly nonexpansive: {near} > {apart}")
    for rho in (0.3, 7.0):
        slope = 2.0 * (v - x)  # an element of ∂f(x): from x + slope/rho, every rho leads back to x
        _same(f.prox(data, x + slope / rho, rho)[0], x, f"prox of rho 2 and of {rho} are of one convex function", 1e-6)


def _check_fenchel(f: Any, data: Any, z: Array, at: Any, H: Array, step: Array, reach: Array | None) -> None:
    (term, _), bend, slack = f.fenchel(data, z, step), float(step @ (H @ step)), 1e-9 * abs(at.value)
    _law(term >= -slack, f"fenchel is >= 0, got {term}")
    for move in (0.0 * step, 0.5 * step, step):
        value, below = f.evaluate(data, z + move).value, at.value - term + float((at.gradient + H @ step) @ move)
        _law(value >= below - slack, f"fenchel bounds the losses from below: {value} < {below}")
        there, loss = f.fenchel(data, z, step, move)
        right = abs(loss - value) <= slack and (there == term == np.inf or abs(there - value + below) <= slack)
        _law(right, f"fenchel at z + move is {value - below}, the losses at it are {value}: got {there}, {loss}")
    if reach is not None:
        furthest = float(reach @ np.abs(step))
        widest = furthest**2 * float(at.curvature.sum()) * (1 + 1e-9) + slack
        _law(bend <= widest, f"reach bounds every row's |x'step|: step'H step {bend} > {widest}")
        bound = f.fenchel_bound(bend, furthest)
        _law(bound is None or term <= bound * (1 + 1e-9) + slack, f"fenchel <= fenchel_bound: {term} > {bound}")


def _check_kept(f: Any, data: Any, z: Array, at: Any, kept: Array, step: Array, reach: Array | None) -> None:
    """The Hessian of curvatures from elsewhere leads to a dual too."""
    H, slack = f.hessian(data, kept), 1e-9 * abs(at.value)
    (term, loss), (there, _) = (f.fenchel(data, z, step, move, kept) for move in (None, step))
    value, below = f.evaluate(data, z + step).value, at.value - term + float((at.gradient + H @ step) @ step)
    _law(term >= -slack and abs(loss - at.value) <= slack, f"fenchel of kept curvatures is >= 0, got {term}, {loss}")
    right = there == term == np.inf or abs(there - value + below) <= slack
    _law(right, f"fenchel of kept curvatures at z + move is {value - below}: got {there}")
    if reach is not None:
        stiff = float(ratios(kept, at.curvature).max(initial=1.0))
        bound = f.fenchel_bound(stiff * float(step @ (H @ step)), stiff * float(reach @ np.abs(step)))
        _law(bound is None or term <= bound * (1 + 1e-9) + slack, f"of kept ones, <= fenchel_bound: {term} > {bound}")


def check_rule(
    rule: Consensus, problem: Problem | None = None, X: Any = None, y: Any = None, seed: int = 0,
    penalty: Penalty | None = None,
) -> None:  # fmt: skip
    """Both halves of a rule keep the protocol, and a small simulated run ends where it should.

    ``problem``, ``X``, ``y`` and ``penalty`` say what to fit; by default a small logistic regression with L2.
    """
    rng, problem, penalty = np.random.default_rng(seed), problem or Logistic(), penalty or L2(1.0)
    if X is None:
        X = rng.standard_normal((160, 4))
        y = rng.random(160) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0]) - 0.5))
    rule.check(problem)
    cuts = np.array_split(np.arange(len(X)), 4)
    data = [problem.prepare(X[rows], None if y is None else y[rows]) for rows in cuts]
    total = reduce(problem.merge, map(problem.survey, data))
    problem = problem.at(total)
    start = null_model(problem, problem.start(total), data)
    p = len(start.z)
    bound = Bound(penalty, problem.penalised(p))
    setup = Setup(p, 4, int(total[0]), start, problem.quadratic, bound, start.z)

    def push(state: Any, i: int, slot: Fields | None, z: Array) -> Any:
        plan = rule.plan(state, _frozen(slot), _frozen(z))
        payload = _travelled(rule).step(problem, data[i], Pull(_frozen(z), Version(0, 0), _frozen(plan), slot is None))
        wrong = check(payload, rule.shapes, rule.optional, p)
        _law(wrong is None, f"a payload is float64 of shapes {dict(rule.shapes)}, finite: wrong {wrong} in {payload}")
        _law(slot is not None or not rule.is_delta(payload), f"a push asked for whole is whole, got {[*payload]}")
        return _frozen({**_travelled(payload), "rows": float(data[i].rows)})

    first, ends = [push(rule.init(setup), i, None, start.z) for i in range(4)], []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        state, slots = rule.init(setup), {}
        for i in order:
            state, slots[i], taken = rule.absorb(state, i, None, first[i])
            _law(taken, "a first push is accepted")
        _law(is_dataclass(state), f"the state is a dataclass, got {type(state)}")
        state = _travelled(type(state)(**{field.name: getattr(state, field.name) for field in fields(state)}))
        before = copy.deepcopy(state)
        z, state = rule.consensus(state, bound, _frozen(start.z))
        _law(z.shape == (p,) and np.isfinite(z).all(), f"consensus makes {p} finite numbers, got {z!r}")
        ends.append(z)
    _same(ends[0], ends[1], "any order of the first pushes gives the same z", 1e-7)
    rebuilt = rule.rebuild(before, _frozen(slots), _frozen(start.z))
    _same(rule.consensus(rebuilt, bound, start.z)[0], z, "sums rebuilt from the slots give the same z", 1e-7)
    for i in range(4):
        state, slots[i], _ = rule.absorb(state, i, _frozen(slots[i]), push(state, i, slots[i], z))
    rule.residuals(state, _frozen(slots), bound, _frozen(rule.consensus(state, bound, _frozen(z))[0]))
    _law(rule.local(slots[0]).shape == rule.dual(slots[0]).shape == (p,), f"local and dual of a slot are ({p},)")
    for network in (Network(speeds=(1.0, 3.0)), Network(speeds=(1.0, 3.0), lost=0.05, late=0.05, doubled=0.1)):
        for settings in (rule, replace(rule, min_fresh=4)):
            kw: Any = {"chunks": cuts, "penalty": penalty, "consensus": settings, "network": network, "seed": seed}
            one, two = (simulate(problem, X, y, tol=1e-6, limit=3e3, **kw).result for _ in range(2))
            _law(np.array_equal(one.z, two.z), "a simulated run is the same for the same seed")
            _law(one.converged or not rule.exact, f"an exact rule converges to a gap of 1e-6, not {one!r}")


def _law(holds: Any, text: str) -> None:
    if not holds:
        raise AssertionError(f"broken: {text}")


def _same(a: Any, b: Any, text: str, rtol: float = 1e-10) -> None:
    a, b = np.asarray(a, float), np.asarray(b, float)
    close = a.shape == b.shape and np.abs(a - b).max(initial=0.0) <= rtol * (1e-12 + np.abs(b).max(initial=0.0))
    _law(close or np.array_equal(a, b, equal_nan=True), f"{text}: {a} is not {b}")


def _travelled(thing: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(thing))


def _frozen(thing: Any) -> Any:
    """A copy whose arrays are read-only: whoever writes into what it was given is found out."""
    if isinstance(thing, dict):
        return {key: _frozen(value) for key, value in thing.items()}
    if isinstance(thing, np.ndarray):
        thing = thing.copy()
        thing.setflags(write=False)
    return thing
