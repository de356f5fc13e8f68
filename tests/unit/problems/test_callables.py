"""Problems given by functions: `Smooth` and `Proximal`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import Lasso

import paramserver as ps
from paramserver.consensus import ADMM, APH, AggregatedNewton, ProgressiveHedging
from paramserver.errors import BadData, InvalidInput, MissingMethod
from paramserver.penalties import L1, L2, NoPenalty
from paramserver.simulator import Network, simulate
from paramserver.testing import check_consensus, check_problem
from paramserver.workers.problems import Proximal, Smooth

RNG = np.random.default_rng(7)
X = RNG.standard_normal((160, 3))
Y = X @ np.array([1.0, -2.0, 0.0]) + 0.3 * RNG.standard_normal(160)


def value(z, X, y):
    """Σ log cosh(Xz − y)."""
    t = np.abs(X @ z - y)
    return float((t + np.log1p(np.exp(-2 * t)) - np.log(2)).sum())


def slope(z, X, y):
    return X.T @ np.tanh(X @ z - y)


def bend(z, X, y):
    return X.T @ (X / np.cosh(X @ z - y)[:, None] ** 2)


def least_squares_prox(v, rho, X, y):
    return np.linalg.solve(X.T @ X + rho * np.eye(X.shape[1]), X.T @ y + rho * v)


def least_squares(z, X, y):
    return 0.5 * float(((X @ z - y) ** 2).sum())


# -- Smooth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hess", [bend, None], ids=["hess", "differences"])
def test_smooth_keeps_its_contract(hess):
    check_problem(Smooth(value, slope, hess, size=3), X, Y)
    check_problem(Smooth(value, slope, hess, z0=[1.0, 2.0, 3.0]), X, Y)


@pytest.mark.parametrize("rule", [AggregatedNewton(), ADMM(), ADMM(metric="diagonal")], ids=repr)
@pytest.mark.parametrize("hess", [bend, None], ids=["hess", "differences"])
def test_smooth_finds_the_optimum(rule, hess):
    out = simulate(
        Smooth(value, slope, hess, size=3), X, Y, chunks=5, consensus=rule, penalty=L2(2.0), tol=1e-10
    ).result
    best = minimize(lambda z: value(z, X, Y) + z @ z, np.zeros(3), jac=lambda z: slope(z, X, Y) + 2 * z, tol=1e-12)
    assert out.converged
    assert out.certificate == "estimate"
    np.testing.assert_allclose(out.z, best.x, atol=1e-4)
    assert value(out.z, X, Y) + out.z @ out.z == pytest.approx(best.fun, rel=1e-8)


@pytest.mark.parametrize("shift", [-1e4, "zero"])
def test_smooth_of_any_sign_ends(shift):
    """F(z0) need not be positive: what it is relative to is its size, or 1."""
    at_start = value(np.zeros(3), X, Y)
    less = at_start / 160 if shift == "zero" else -shift / 160
    problem = Smooth(lambda z, X, y: value(z, X, y) - less * len(y), slope, bend, size=3)
    out = simulate(problem, X, Y, chunks=4, tol=1e-8).result
    assert out.converged
    assert abs(slope(out.z, X, Y)).max() < 1e-2


def test_smooth_of_one_object_a_chunk():
    problem = Smooth(lambda z, a: float((z - a["at"]) @ (z - a["at"])), lambda z, a: 2 * (z - a["at"]), size=2)
    data = problem.prepare({"at": np.array([1.0, 3.0])})
    assert data.rows == 1
    np.testing.assert_allclose(problem.hessian(data, np.zeros(2)), 2 * np.eye(2), rtol=1e-8)
    assert problem.survey(data).tolist() == [1, 2, 10]
    assert problem.prepare(X, None, Y).parts[1] is Y
    with pytest.raises(BadData, match="without data"):
        problem.prepare(None, None)


def test_check_finds_a_gradient_that_disagrees():
    Smooth(value, slope, bend, size=3).check(X, Y)
    Smooth(value, slope, size=3).check(X, Y, z=[1.0, -2.0, 0.0])
    with pytest.raises(InvalidInput, match=r"jac disagrees with fun: .* says -?\d.*, differences of fun say"):
        Smooth(value, lambda z, X, y: slope(z, X, y) * [1, 1.01, 1], bend, size=3).check(X, Y)
    with pytest.raises(InvalidInput, match="hess disagrees with jac"):
        Smooth(value, slope, lambda z, X, y: 1.01 * bend(z, X, y), size=3).check(X, Y)
    with pytest.raises(InvalidInput, match="in the domain"):
        Smooth(lambda z, a: np.inf, lambda z, a: z, size=1).check(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fun": lambda z, X, y: (X @ z - y) ** 2}, r"fun must return shape \(\), got \(160,\)"),
        ({"jac": lambda z, X, y: slope(z, X, y)[:, None]}, r"jac must return shape \(3,\), got \(3, 1\)"),
        ({"jac": lambda z, X, y: None}, "jac must return"),
        ({"hess": lambda z, X, y: bend(z, X, y).ravel()}, r"hess must return shape \(3, 3\), got \(9,\)"),
    ],
)
def test_wrong_shapes_are_named(change, words):
    problem = Smooth(**{"fun": value, "jac": slope, "hess": bend, **change}, size=3)
    data = problem.prepare(X, Y)
    with pytest.raises(BadData, match=words):
        problem.hessian(data, problem.evaluate(data, np.zeros(3)).curvature)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "pass size="),
        ({"size": 0}, "vector of finite numbers"),
        ({"z0": [[1.0]]}, "vector"),
        ({"z0": [np.nan]}, "finite"),
        ({"size": 2, "z0": [1.0]}, "size 2"),
    ],
)
def test_settings_of_smooth(settings, words):
    with pytest.raises(InvalidInput, match=words):
        Smooth(value, slope, **settings)
    with pytest.raises(InvalidInput, match="jac must be a function"):
        Smooth(value, None, size=2)


# -- Proximal --------------------------------------------------------------------------------------


def test_proximal_keeps_its_contract():
    check_problem(Proximal(least_squares_prox, 3), X, Y)
    check_problem(Proximal(least_squares_prox, 3, value=least_squares, z0=[1.0, 0.0, 2.0]), X, Y)
    check_consensus(ADMM(metric="identity", rho=30.0), Proximal(least_squares_prox, 3), X, Y)
    check_consensus(ProgressiveHedging(rho=30.0), Proximal(least_squares_prox, 3), X, Y)
    check_consensus(APH(rho=30.0), Proximal(least_squares_prox, 3), X, Y, penalty=NoPenalty())


@pytest.mark.parametrize(
    ("prox", "law"),
    [
        (lambda v, rho, X, y: 1.01 * least_squares_prox(v, rho, X, y), "one convex function"),
        (lambda v, rho, X, y: least_squares_prox(v, 2 * rho, X, y) + (rho == 7.0), "one convex function"),
        (lambda v, rho, X, y: -v, "firmly nonexpansive"),
        (lambda v, rho, X, y: v * np.nan, "finite"),
    ],
    ids=["scaled", "other rho", "reflected", "nan"],
)
def test_broken_prox_is_found(prox, law):
    with pytest.raises(AssertionError, match=law):
        check_problem(Proximal(prox, 3), X, Y)


BAD = Network(speeds=(1, 1, 10), lost=0.05, late=0.05, doubled=0.1)


def direct(alpha):
    lasso = Lasso(alpha=alpha / len(Y), fit_intercept=False, tol=1e-14, max_iter=100_000)
    return lasso.fit(X, Y).coef_


@pytest.mark.parametrize("network", [None, BAD], ids=["", "bad network"])
@pytest.mark.parametrize("rho", [10.0, 100.0])
@pytest.mark.parametrize("alpha", [5.0, 60.0])
def test_consensus_lasso_is_the_direct_solution(alpha, rho, network):
    """Chunks' least squares known by their prox alone, the ℓ1 norm on the server (Boyd et al. 2011, 8.2)."""
    rule = ADMM(metric="identity", rho=rho)
    problem = Proximal(least_squares_prox, 3, value=least_squares)
    kw = {"penalty": L1(alpha), "consensus": rule, "network": network, "tol": 1e-8}
    out = simulate(problem, X, Y, chunks=8, **kw).result
    assert out.converged
    assert out.certificate == "residual"
    assert out.gap <= 1e-8
    assert np.isnan(out.gap_absolute)
    np.testing.assert_allclose(out.z, direct(alpha), atol=1e-6)
    assert out.objective == pytest.approx(least_squares(out.z, X, Y) + alpha * np.abs(out.z).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "y"),
    [(L1(1e4), Y), (NoPenalty(), X @ [1.0, 2.0, 3.0]), (NoPenalty(), 0 * Y)],
    ids=["all zero", "one minimiser", "at once"],
)
@pytest.mark.parametrize("chunks", [1, 6])
def test_it_ends_where_its_scales_vanish(chunks, penalty, y):
    """z* = 0, or chunks that agree and leave no duals: 0/0 but for the first step's size."""
    problem = Proximal(least_squares_prox, 3)
    out = simulate(problem, X, y, chunks=chunks, penalty=penalty, consensus=ADMM(metric="identity", rho=30.0), tol=1e-9)
    assert out.result.converged
    want = np.zeros(3) if isinstance(penalty, L1) and penalty.alpha else np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(out.result.z, want, atol=1e-7)
    assert np.isnan(out.result.objective)


def test_a_limit_ends_it_with_its_residual():
    rule = ADMM(metric="identity", rho=1e-3)
    out = simulate(Proximal(least_squares_prox, 3), X, Y, chunks=4, consensus=rule, penalty=L1(5.0), limit=20.0).result
    assert not out.converged
    assert 1e-8 < out.gap < np.inf
    assert out.certificate == "residual"


@pytest.mark.parametrize("rule", [AggregatedNewton(), ADMM(), ADMM(metric="diagonal")], ids=repr)
def test_other_rules_say_what_would_do(rule):
    with pytest.raises(MissingMethod, match=r'def hessian[\s\S]*ADMM\(metric="identity"\): its prox is enough'):
        simulate(Proximal(least_squares_prox, 3), X, Y, consensus=rule)


def test_admm_says_that_a_prox_would_do():
    class Bare(ps.Problem):
        def prepare(self, *parts):
            raise AssertionError

        def survey(self, data):
            raise AssertionError

        def start(self, survey):
            raise AssertionError

    with pytest.raises(MissingMethod, match=r"def evaluate[\s\S]*in place of all this,\s+def prox\(data, centre"):
        ADMM(metric="identity").check(Bare())
    ADMM(metric="identity").check(ps.Logistic())


def test_a_value_that_disagrees_with_the_prox_is_named():
    problem = Proximal(least_squares_prox, 3, value=lambda x, X, y: np.inf)
    with pytest.raises(BadData, match="where prox led"):
        problem.prox(problem.prepare(X, Y), np.zeros(3), 1.0)
    with pytest.raises(BadData, match=r"prox must return shape \(2,\)"):
        Proximal(lambda v, rho, X, y: v[:1], 2).prox(problem.prepare(X, Y), np.zeros(2), 1.0)
