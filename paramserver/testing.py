"""Contract checks for plug-ins: the laws that a penalty, a problem and a consensus rule must keep.

Call them from your own tests; each raises AssertionError with the law that failed and its numbers.
None needs Dask or a cluster.
"""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass, replace
from typing import Any

import cloudpickle
import numpy as np

from paramserver.consensus.base import Consensus, Pull, Setup, check
from paramserver.messages import Array, Fields, Version
from paramserver.penalties import Bound, L2, Penalty
from paramserver.simulate import Network, simulate
from paramserver.workers.problems import Logistic, Problem, require

__all__ = ["check_penalty", "check_problem", "check_rule"]


def check_penalty(penalty: Penalty, d: int = 8, seed: int = 0) -> None:
    """Value, prox and subgradient belong to one convex function.

    Parameters
    ----------
    penalty : Penalty
    d : int
        Number of coordinates to try it on.
    seed : int
    """
    rng = np.random.default_rng(seed)
    _same(_travelled(penalty).value(np.ones(d)), penalty.value(np.ones(d)), "the penalty survives pickling")
    drawn = []
    for _ in range(20):
        v, near = _frozen(rng.standard_normal(d) * 10.0 ** rng.uniform(-2, 2)), _frozen(rng.standard_normal(d))
        steps = _frozen(10.0 ** rng.uniform(-2, 2, d))
        w = penalty.prox(v, steps)
        _law(w.shape == (d,) and np.isfinite(w).all(), f"prox returns {d} finite numbers, got {w!r}")
        slope = (v - w) / steps
        off = np.abs(slope - penalty.subgradient(w, slope)) / (1 + np.abs(slope) + np.abs(v / steps))
        _law(off.max() <= 1e-7, f"(v - prox(v))/steps is a subgradient at prox(v): off by {off.max():.2e} relatively")
        drawn.append((v, w, penalty.subgradient(w, near), near, steps))
    for (v, w, g, near, steps), (v2, w2, *_) in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        value, value2 = penalty.value(w), penalty.value(w2)
        slack = 1e-9 * (1 + abs(value) + abs(value2))
        _law(value >= 0 and np.isfinite(value), f"value is finite and >= 0 where prox leads, got {value}")
        middle = penalty.value(0.3 * w + 0.7 * w2)
        _law(middle <= 0.3 * value + 0.7 * value2 + slack, f"value is convex: {middle} above {value}, {value2}")
        below = value + float(g @ (w2 - w))
        slack += 1e-9 * float(np.abs(g) @ np.abs(w2 - w))
        _law(value2 >= below - slack, f"R(w') >= R(w) + g'(w' - w): {value2} < {below}")
        _law(np.allclose(penalty.subgradient(w, g), g), f"the subgradient nearest to one of them, {g}, is itself")
        _same(penalty.distance(w, near), np.linalg.norm(near - g), "distance is that to the nearest subgradient")
        apart, moved = (v - v2) ** 2 @ (1 / steps), (w - penalty.prox(v2, steps)) ** 2 @ (1 / steps)
        _law(moved <= apart * (1 + 1e-9), f"prox is nonexpansive in the metric 1/steps: {moved} > {apart}")
        weights = penalty.weights()
        if weights is not None:
            l1, l2 = weights
            _same(value, l1 * np.abs(w).sum() + 0.5 * l2 * (w @ w), f"weights() = {weights} give value")


def check_problem(problem: Problem, *parts: Any, seed: int = 0) -> None:
    """What the problem offers over one chunk fits together; what it does not offer is passed over.

    Parameters
    ----------
    problem : Problem
    *parts :
        One chunk as `Problem.prepare` takes it. Arrays of equal length are also cut in two, to see
        that surveys add up.
    seed : int
    """
    rng, has = np.random.default_rng(seed), lambda name: callable(getattr(problem, name, None))
    f: Any = problem
    data = problem.prepare(*parts)
    _law(data.rows > 0 and isinstance(data.memo, dict), "data have rows (int > 0) and a memo (dict)")
    survey, start = problem.survey(data), problem.start(problem.survey(data))
    p = len(start.z)
    _law((int(survey[0]), int(survey[1])) == (data.rows, p), f"a survey begins with rows and p, got {survey[:2]}")
    mask = np.asarray(problem.penalised(p))
    _law(mask.shape == (p,) and mask.dtype == bool, f"penalised({p}) is a mask ({p},), got {mask!r}")
    problem.unpack(start.z)
    arrays = [None if part is None else np.asarray(part) for part in parts]
    if all(a is None or a.ndim >= 1 and len(a) == data.rows > 1 for a in arrays):
        cut = rng.permutation(data.rows)
        halves = [[None if a is None else a[rows] for a in arrays] for rows in np.array_split(cut, 2)]
        one, two = (problem.survey(problem.prepare(*half)) for half in halves)
        merged = problem.start(problem.merge(one, two))
        _same(merged.z, start.z, "surveys add up to the same null model", 1e-9)
        _same(merged.objective, start.objective, "surveys add up to the same null objective", 1e-9)
    if not has("evaluate"):
        return
    unit = 1.0 / np.maximum(f.reach(data), 1e-300) if has("reach") else np.ones(p)
    unit = np.where(unit < 1e200, unit, 1.0) / np.sqrt(p)
    at = f.evaluate(data, _frozen(start.z))
    _same(at.value, start.objective, "the null model's objective is that of evaluate", 1e-9)
    free = ~mask
    pull = np.abs(at.gradient * unit)[free].max(initial=0.0)
    _law(pull <= 1e-6 * (1e-9 + abs(at.value)), f"no gradient at the null model on free coordinates: {pull:.2e}")
    _same(_travelled(f).evaluate(data, start.z).gradient, at.gradient, "the problem survives pickling")
    z = _frozen(start.z + unit * rng.standard_normal(p))
    at = f.evaluate(data, z)
    for _ in range(5):
        e = _frozen(unit * rng.standard_normal(p))
        up, down = (f.evaluate(data, _frozen(z + h * e)) for h in (1e-4, -1e-4))
        slope, slack = float(at.gradient @ e), 1e-6 * (float(np.abs(at.gradient) @ np.abs(e)) + abs(at.value))
        _law(abs((up.value - down.value) / 2e-4 - slope) <= slack, f"the gradient is that of value: {slope} along {e}")
        if has("hessian"):
            H = f.hessian(data, at.curvature)
            bent, seen = H @ e, (up.gradient - down.gradient) / 2e-4
            slack = 1e-5 * np.abs((np.abs(H) @ np.abs(e)) * unit).max() + 1e-9 * np.abs(at.gradient * unit).max()
            off = np.abs((bent - seen) * unit).max()
            _law(off <= slack, f"the Hessian is that of the gradient: off by {off:.2e}, allowed {slack:.2e}")
            _law(np.allclose(H, H.T, rtol=1e-12) and float(e @ bent) >= -slack, "the Hessian is symmetric, PSD")
            if problem.quadratic:
                _same(f.hessian(data, up.curvature), H, "a quadratic problem's Hessian is the same everywhere")
            if has("hessian_diagonal"):
                _same(f.hessian_diagonal(data, at.curvature), np.diag(H), "hessian_diagonal is hessian's")
            for size in (1e-3, 0.3, 3.0) if has("fenchel") else ():
                _check_fenchel(f, data, z, at, H, _frozen(size * e), rng)
        if has("curvature"):
            _same(f.curvature(data, z), at.curvature, "curvature is evaluate's")
        if has("line"):
            ts = np.array([1.0, 0.5, 0.01, 0.0])
            values = [f.evaluate(data, z + t * e).value for t in ts]
            _same(f.line(data, z, e, ts), values, "line is evaluate along the step", 1e-9)


def _check_fenchel(f: Any, data: Any, z: Array, at: Any, H: Array, step: Array, rng: np.random.Generator) -> None:
    term, bend = float(f.fenchel(data, z, step)), float(step @ (H @ step))
    slack = 1e-9 * (1e-9 + abs(at.value))
    _law(term >= -slack, f"fenchel is >= 0, got {term}")
    for w in (z, z + step, z + rng.standard_normal(len(z)) * step):
        below = at.value - term + float((at.gradient + H @ step) @ (w - z))
        value = float(f.evaluate(data, w).value)
        _law(value >= below - slack, f"fenchel makes a lower bound of the losses: {value} < {below}")
    if not (callable(getattr(f, "reach", None)) and callable(getattr(f, "fenchel_bound", None))):
        return
    reach = float(f.reach(data) @ np.abs(step))
    widest = reach**2 * float(at.curvature.sum())
    _law(bend <= widest * (1 + 1e-9) + slack, f"reach bounds every row's |x'step|: {bend} > {widest}")
    bound = f.fenchel_bound(bend, reach)
    _law(bound is None or term <= bound * (1 + 1e-9) + slack, f"fenchel <= fenchel_bound: {term} > {bound}")


def check_rule(rule: Consensus, problem: Problem | None = None, X: Any = None, y: Any = None, seed: int = 0) -> None:
    """Both halves of the rule keep the protocol, and a small simulated run ends where it should.

    Parameters
    ----------
    rule : Consensus
    problem, X, y :
        What to fit; by default a small logistic regression.
    seed : int
    """
    rng = np.random.default_rng(seed)
    problem = problem or Logistic()
    if X is None:
        X = rng.standard_normal((160, 4))
        y = rng.random(160) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0]) - 0.5))
    require(rule.needs, problem, type(rule).__name__)
    cuts = np.array_split(np.arange(len(X)), 4)
    data = [problem.prepare(X[rows], None if y is None else y[rows]) for rows in cuts]
    surveys = [problem.survey(chunk) for chunk in data]
    total = surveys[0]
    for survey in surveys[1:]:
        total = problem.merge(total, survey)
    start = problem.start(total)
    p = len(start.z)
    setup = Setup(p, len(data), int(total[0]), start, problem.quadratic)
    penalty = Bound(L2(1.0), np.asarray(problem.penalised(p)))
    rule = _travelled(rule)

    def push(state: Any, chunk: int, slot: Fields | None, z: Array) -> Fields:
        pull = Pull(_frozen(z), Version(0, 0), _frozen(rule.plan(state, _frozen(slot), _frozen(z))), slot is None)
        payload = rule.step(problem, data[chunk], pull)
        assert payload is not None, "step found no finite value close to the null model"
        wrong = check(payload, rule.shapes, rule.optional, p)
        _law(wrong is None, f"a payload is {dict(rule.shapes)} with p = {p} in finite float64: wrong {wrong}, {payload}")
        _law(slot is not None or not rule.is_delta(payload), f"a push asked for whole has all fields, got {[*payload]}")
        return _frozen({**_travelled(payload), "rows": float(data[chunk].rows)})

    first = [push(rule.init(setup), i, None, start.z) for i in range(len(data))]
    ends = []
    for order in (range(len(data)), rng.permutation(len(data))):
        state, slots = rule.init(setup), {}
        for i in order:
            state, slots[int(i)], taken = rule.absorb(state, int(i), None, first[i])
            _law(taken, "a first push is accepted")
        _law(is_dataclass(state) and not isinstance(state, type), f"the state is a dataclass, got {type(state)}")
        state = _travelled(type(state)(**{f.name: getattr(state, f.name) for f in fields(state)}))
        z, state = rule.consensus(state, penalty, _frozen(start.z))
        _law(z.shape == (p,) and np.isfinite(z).all(), f"consensus makes {p} finite numbers, got {z!r}")
        rebuilt, _ = rule.consensus(rule.rebuild(copy.deepcopy(state), _frozen(slots), _frozen(z)), penalty, start.z)
        ends.append(z)
    _same(ends[0], ends[1], "any order of first pushes gives the same z", 1e-7)
    _same(rebuilt, z, "rebuilding the sums from the slots gives the same z", 1e-7)
    for i in range(len(data)):
        new = push(state, i, slots[i], z)
        state, slots[i], _ = rule.absorb(state, i, _frozen(slots[i]), new)
    z, state = rule.consensus(state, penalty, _frozen(z))
    _law(len(rule.residuals(state, _frozen(slots), penalty, _frozen(z))) == 3, "residuals are three numbers")
    _law(rule.local(slots[0]).shape == rule.dual(slots[0]).shape == (p,), "a slot has a local variable and a dual")

    for settings in (rule, replace(rule, min_fresh=len(data))):
        runs = [
            simulate(problem, X, y, chunks=cuts, penalty=L2(1.0), consensus=settings, tol=1e-6, seed=seed, limit=3e3,
                     network=Network(speeds=(1.0, 3.0), lost=0.05, doubled=0.1))
            for _ in range(2)
        ]  # fmt: skip
        _law(np.array_equal(runs[0].result.z, runs[1].result.z), "a simulated run is the same for the same seed")
        ended = f"{runs[0].result.reason}, gap {runs[0].result.gap:.1e}"
        _law(runs[0].result.converged or not rule.exact, f"an exact rule converges to a gap of 1e-6: {ended}")


def _law(holds: bool | np.bool_, text: str) -> None:
    if not holds:
        raise AssertionError(f"broken: {text}")


def _same(a: Any, b: Any, text: str, rtol: float = 1e-10) -> None:
    a, b = np.asarray(a, float), np.asarray(b, float)
    holds = a.shape == b.shape and np.abs(a - b).max(initial=0.0) <= rtol * (1e-12 + np.abs(b).max(initial=0.0))
    _law(holds, f"{text}: {a} is not {b}")


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
