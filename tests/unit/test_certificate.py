"""The certificate is never below the true gap, and close to it near the end."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from paramserver import certificate
from paramserver.certificate import model_at
from paramserver.penalties import L1, L2, Bound, Box, ElasticNet, GroupL1, NoPenalty, Norms, Penalty, Terms
from paramserver.workers.problems import LeastSquares, Logistic

PROBLEMS = {
    "logistic": Logistic(),
    "logistic, no intercept": Logistic(fit_intercept=False),
    "least squares": LeastSquares(),
}
PENALTIES = {
    "l1": L1(3.0), "l2": L2(1.0), "elastic net": ElasticNet(4.0, 0.5), "none": NoPenalty(),
    "factors": L1(3.0, [0.0, 1.0, 2.0, 0.5, 0.0, 1.0]), "box": Box(-0.3, 0.4),
    "nonnegative": Box(0.0, np.inf, 4.0, 0.5),
    "box without 0": Box([0.1, -1, -np.inf, 0.2, 0.0, -0.5], [0.5, -0.2, 0.1, np.inf, 0.0, 0.5], 2.0, 1.0),
    "groups": GroupL1([[0, 1], [3, 2, 4]], 3.0), "pairs": GroupL1(2, 1.0),
}  # fmt: skip
SMOOTH_OR_L1 = ("l1", "l2", "elastic net", "none")
LAYOUTS = ("plain", "scaled", "sorted")
FAR_TO_NEAR = (1.0, 0.3, 0.1, *(10.0**-k for k in np.arange(1.5, 8, 0.5)))


def regulariser(terms: Terms | Norms, z) -> np.longdouble:
    """R from its definition, in long double."""
    if isinstance(terms, Norms):
        groups = [z[terms.ids == g] for g in range(len(terms.weights))]
        return np.longdouble(sum(w * np.sqrt(on @ on) for w, on in zip(terms.weights, groups, strict=True)))
    if (z < terms.lower).any() or (z > terms.upper).any():
        return np.longdouble(np.inf)
    return terms.l1 @ np.abs(z) + terms.l2 / 2 @ (z * z)


class Case:
    """One problem with its optimum, known in long double to about 1e-18 of F."""

    def __init__(self, problem, penalty: Penalty, layout: str, n: int = 300, d: int = 6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((n, d)) * rng.uniform(0.5, 2, d)
        m = X @ (rng.standard_normal(d) * (np.arange(d) % 3 > 0)) - 0.5
        logistic = isinstance(problem, Logistic)
        y = (rng.random(n) < 1 / (1 + np.exp(-m))).astype(float) if logistic else m + rng.standard_normal(n)
        if layout == "scaled":
            s = 10.0 ** np.resize([6, 0, -6], d)
            X = X * s
            if isinstance(penalty, Box):  # bounds in a column's units travel with it
                penalty = replace(penalty, lower=np.asarray(penalty.lower) / s, upper=np.asarray(penalty.upper) / s)
        if layout == "sorted":  # chunks of one label each: the sums are the same, the order is not
            order = np.argsort(y, kind="stable")
            X, y = X[order], y[order]
        self.problem, self.X, self.y, self.logistic = problem, X, y, logistic
        chunks = np.array_split(np.arange(n), 4)
        self.data = [problem.prepare(X[rows], y[rows]) for rows in chunks]
        self.start = problem.start(functools.reduce(problem.merge, map(problem.survey, self.data)))
        self.R = Bound(penalty, problem.penalised(len(self.start.z)))
        self.best = self.solve()
        self.least = self.F(self.best)

    def F(self, z) -> np.longdouble:
        """The objective, from its definition."""
        z = z.astype(np.longdouble)
        w, b = (z[:-1], z[-1]) if self.problem.fit_intercept else (z, np.longdouble(0))
        m, y = self.X.astype(np.longdouble) @ w + b, self.y.astype(np.longdouble)
        losses = np.logaddexp(np.longdouble(0), m) - y * m if self.logistic else (y - m) ** 2 / 2
        return losses.sum() + regulariser(self.R.terms(), z)

    def exact(self, z):
        """What a verification gathers: Σ value, gradient, Hessian."""
        ats = [self.problem.evaluate(data, z) for data in self.data]
        hessians = [self.problem.hessian(data, at.curvature) for data, at in zip(self.data, ats, strict=True)]
        return sum(at.value for at in ats), sum(at.gradient for at in ats), sum(hessians)

    def solve(self):
        """Damped Newton to the last digit, judged in long double."""
        z = self.R.project(self.start.z)
        for _ in range(60):
            step = model_at(z, *self.exact(z), self.R).z_plus - z
            values = [self.F(self.R.project(z + t * step)) for t in 0.5 ** np.arange(12)]
            k = int(np.argmin(values))
            if values[k] >= self.F(z):
                break
            z = self.R.project(z + 0.5**k * step)
        return z

    def certify(self, z) -> float:
        model = model_at(z, *self.exact(z), self.R)
        reach = float(np.max([self.problem.reach(data) for data in self.data], axis=0) @ np.abs(model.step))
        fenchel = self.problem.fenchel_bound(model.bend, reach)
        if fenchel is None:
            fenchel = sum(self.problem.fenchel(data, z, model.step)[0] for data in self.data)
        return model.gap(fenchel)

    def certify_ahead(self, z):
        """(z⁺, its bound): the dual found at z, for the Newton step from there."""
        model = model_at(z, *self.exact(z), self.R)
        terms = [self.problem.fenchel(data, z, model.step, model.z_plus - z)[0] for data in self.data]
        return model.z_plus, sum(terms) + model.charge

    def iterates(self, seed=1):
        """From the null model towards the optimum; in two more directions, too."""
        rng = np.random.default_rng(seed)
        scale = 1 / np.sqrt(np.diag(self.exact(self.best)[2]))
        for way in (self.start.z - self.best, scale * rng.standard_normal(len(scale)) * 5):
            for t in FAR_TO_NEAR:
                yield self.R.project(self.best + t * way)


@functools.cache
def case(problem: str, penalty: str, layout: str) -> Case:
    return Case(PROBLEMS[problem], PENALTIES[penalty], layout)


def worth(penalty: str, layout: str) -> bool:
    """The order of rows says nothing about R; a group's norm says nothing over columns of two units."""
    return penalty in SMOOTH_OR_L1 or layout == "plain" or (layout == "scaled" and penalty != "pairs")


every = pytest.mark.parametrize(
    ("problem", "penalty", "layout"),
    [(p, r, x) for p in PROBLEMS for r in PENALTIES for x in LAYOUTS if worth(r, x)],
)


@every
def test_certificate_bounds_the_true_gap(problem, penalty, layout):
    it = case(problem, penalty, layout)
    near = 0
    for z in it.iterates():
        true, gap = float(it.F(z) - it.least), it.certify(z)
        scale = it.start.objective
        assert gap >= true * (1 - 1e-7) - 1e-17 * scale, (gap, true)
        if 1e-12 <= true / scale <= 1e-6:
            near += 1
            assert gap <= 10 * true, (gap, true)
    assert near >= 6


@every
def test_certificate_of_the_newton_step_ahead(problem, penalty, layout):
    it = case(problem, penalty, layout)
    near = 0
    for z in it.iterates():
        ahead, gap = it.certify_ahead(z)
        true, scale = float(it.F(ahead) - it.least), it.start.objective
        assert gap >= true * (1 - 1e-7) - 1e-16 * scale, (gap, true)
        if 1e-12 <= true / scale <= 1e-6:
            near += 1
            assert gap <= 10 * true, (gap, true)
    assert near >= 1 or problem == "least squares"  # whose Newton step is the optimum


@every
def test_optimum_is_certified(problem, penalty, layout):
    it = case(problem, penalty, layout)
    assert it.certify(it.best) <= 1e-14 * it.start.objective


@every
@pytest.mark.parametrize("size", [1e-6, 1e-2])
def test_inexact_consensus_step_is_charged(problem, penalty, layout, size, monkeypatch):
    """z⁺ is a point that the quadratic solver got wrong: the certificate grows, it does not lie."""
    it, rng, exact = case(problem, penalty, layout), np.random.default_rng(7), certificate.minimise

    def sloppy(B, c, bound, ref, start):
        w = exact(B, c, bound, ref, start)
        off = size * (w - start) * rng.standard_normal(len(w))
        return w + np.where(rng.random(len(w)) < 0.5, off, size / np.sqrt(np.diag(B)) * rng.standard_normal(len(w)))

    monkeypatch.setattr(certificate, "minimise", sloppy)
    for z in it.iterates():
        true, gap = float(it.F(z) - it.least), it.certify(z)
        assert gap >= true * (1 - 1e-7) - 1e-17 * it.start.objective, (gap, true)


@pytest.mark.parametrize("size", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize(
    "penalty",
    [
        L2(0.5),
        ElasticNet(1.0, 0.5),
        Box(-0.3, 0.4),
        Box(-0.3, 0.4, 1.0, 1.0),
        Box(0.0, np.inf, 1.0, 0.5),
        GroupL1(3, 2.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("problem", [Logistic(), LeastSquares()], ids=repr)
def test_more_columns_than_rows(problem, penalty, size, monkeypatch):
    """The Hessian is singular: an error of z⁺ in its null space cannot be shifted away, and is charged all the same."""
    it, rng, exact = Case(problem, penalty, "plain", n=40, d=60), np.random.default_rng(3), certificate.minimise

    def stays(B, c, bound, ref, start):
        w = exact(B, c, bound, ref, start)
        return w + size * (start - w) * rng.random(len(w))

    monkeypatch.setattr(certificate, "minimise", stays)
    for z in it.iterates():
        for point, gap in ((z, it.certify(z)), it.certify_ahead(z)):
            true = float(it.F(point) - it.least)
            assert gap >= true * (1 - 1e-7) - 1e-16 * it.start.objective, (gap, true)


@pytest.mark.parametrize("penalty", [Box(0.5, 1.0), Box(-2.0, -1.0, 1.0, 0.5)], ids=repr)
def test_outside_the_bounds_the_certificate_is_infinite(penalty):
    """The null model lies outside: numbers that say so, and a z⁺ that lies inside."""
    it = Case(Logistic(), penalty, "plain")
    model = model_at(it.start.z, *it.exact(it.start.z), it.R)
    assert model.objective == model.bregman == model.decrease == model.gap(0.0) == np.inf
    assert np.isfinite([model.bend, model.charge, it.R.value(model.z_plus)]).all()
    inside = it.R.project(it.start.z)
    model = model_at(inside, *it.exact(inside), it.R)
    assert np.isfinite([model.objective, model.bregman, model.decrease]).all()


def test_an_unpenalised_column_without_rows_costs_nothing():
    """A zero column leaves z where it is, and the certificate finite."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(50), np.zeros(50)])
    y = (rng.random(50) < 0.5).astype(float)
    problem = Logistic()
    data = problem.prepare(X, y)
    z = problem.start(problem.survey(data)).z
    for _ in range(8):
        at = problem.evaluate(data, z)
        model = model_at(
            z, at.value, at.gradient, problem.hessian(data, at.curvature), Bound(NoPenalty(), problem.penalised(3))
        )
        z = model.z_plus
    assert z[1] == 0.0
    assert model.gap(problem.fenchel_bound(model.bend, 0.0)) < 1e-14


def test_the_model_promises_its_decrease():
    """F(z) − model(z⁺), the number a line search goes by, against its definition."""
    it = case("logistic", "l1", "plain")
    z = it.start.z
    loss, gradient, hessian = it.exact(z)
    model = model_at(z, loss, gradient, hessian, it.R)
    move = model.z_plus - z
    promised = float(gradient @ move + 0.5 * move @ hessian @ move) + it.R.value(model.z_plus) - it.R.value(z)
    assert model.decrease == pytest.approx(-promised, rel=1e-9)
    assert model.objective == pytest.approx(float(it.F(z)), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize("penalty", [L2(1.0), L1(3.0), ElasticNet(2.0, 0.5), NoPenalty()], ids=repr)
def test_collinear_columns_are_certified_at_the_optimum(penalty, scale):
    """Dummies of every level beside an intercept: what rounding leaves in the null space is no infeasible dual."""
    rng = np.random.default_rng(0)
    X = scale * np.hstack([np.eye(k)[rng.integers(0, k, 20_000)] for k in (3, 12, 24)])
    y = (rng.random(20_000) < 1 / (1 + np.exp(1.0 - X @ rng.standard_normal(X.shape[1]) / scale))).astype(float)
    problem = Logistic()
    data = problem.prepare(X, y)
    start = problem.start(problem.survey(data))
    z, R = start.z, Bound(penalty, problem.penalised(len(start.z)))
    gaps = []
    for _ in range(12):
        at = problem.evaluate(data, z)
        model = model_at(z, at.value, at.gradient, problem.hessian(data, at.curvature), R)
        reach = float(problem.reach(data) @ np.abs(model.step))
        fenchel = problem.fenchel_bound(model.bend, reach)
        gaps.append(np.inf if fenchel is None else model.gap(fenchel) / start.objective)
        z = model.z_plus
    assert max(gaps[8:]) < 1e-12, gaps
