"""Every family fitted in chunks, against other people's solvers; and what its certificate is worth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import (
    GammaRegressor,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    TweedieRegressor,
)

import paramserver as ps
from paramserver.simulator import simulate

N, D = 1500, 4
RNG = np.random.default_rng(2)
X = RNG.standard_normal((N, D))
ETA = X @ np.array([0.5, -0.3, 0.0, 0.8]) + 0.3
WEIGHT = RNG.random(N) * (RNG.random(N) < 0.9)
COUNTS, RARE, MANY = (RNG.poisson(mean * np.exp(ETA)).astype(float) for mean in (1.0, 0.05, 1000.0))
POSITIVE = RNG.gamma(2.0, np.exp(ETA) / 2)
NOISY = ETA + RNG.standard_t(2, N)
CLASSES = np.argmax(X[:, :3] + RNG.gumbel(size=(N, 3)), axis=1)
ALPHA = 3.0
SCALED = ALPHA / WEIGHT.sum()  # scikit-learn's is relative to the mean


def of_sklearn(model, y):
    fitted = model.fit(X, y, sample_weight=WEIGHT)
    return np.append(fitted.coef_, fitted.intercept_)


def of_scipy(slope):
    """The root of an independently written gradient Σ w·slope(m) x + alpha·w."""
    ones = np.column_stack([X, np.ones(N)])

    def gradient(z):
        return ones.T @ (WEIGHT * slope(ones @ z)) + ALPHA * np.append(z[:-1], 0.0)

    best = minimize(lambda z: gradient(z) @ gradient(z), np.full(D + 1, 0.1), method="Nelder-Mead", options=TIGHT)
    return best.x


FAR = 1000.0 * np.eye(D + 1)[-1]
TIGHT = {"maxiter": 100_000, "maxfev": 100_000, "xatol": 1e-10, "fatol": 1e-18, "adaptive": True}
GLMS = {"tol": 1e-10, "max_iter": 10_000, "alpha": SCALED, "solver": "newton-cholesky"}
FITS = {
    "poisson": (ps.Poisson(), COUNTS, lambda: of_sklearn(PoissonRegressor(**GLMS), COUNTS)),
    "poisson, rare": (ps.Poisson(), RARE, lambda: of_sklearn(PoissonRegressor(**GLMS), RARE)),
    "poisson, many": (ps.Poisson(), MANY, lambda: of_sklearn(PoissonRegressor(**GLMS), MANY)),
    "gamma": (ps.Gamma(), POSITIVE, lambda: of_sklearn(GammaRegressor(**GLMS), POSITIVE)),
    "tweedie": (
        ps.Tweedie(1.5), COUNTS, lambda: of_sklearn(TweedieRegressor(power=1.5, link="log", **GLMS), COUNTS),
    ),
    "huber": (ps.Huber(1.0), NOISY, lambda: of_scipy(lambda m: np.clip(m - NOISY, -1, 1))),
    "huber, far": (ps.Huber(1.0), NOISY + 1000.0, lambda: of_scipy(lambda m: np.clip(m - NOISY, -1, 1)) + FAR),
    "squared hinge": (
        ps.SquaredHinge(), (NOISY > 0) * 1.0,
        lambda: of_scipy(lambda m: np.where(NOISY > 0, -np.maximum(1 - m, 0), np.maximum(1 + m, 0))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FITS)
def test_it_is_the_optimum_of_another_solver(family):
    problem, y, other = FITS[family]
    out = simulate(problem, X, y, sample_weight=WEIGHT, chunks=8, penalty=ps.L2(ALPHA), tol=1e-10).result
    data = problem.prepare(X, y, WEIGHT)

    def objective(z):
        return problem.evaluate(data, z).value + 0.5 * ALPHA * z[:-1] @ z[:-1]

    theirs = other()
    assert out.converged
    assert out.certificate == "duality gap"
    assert out.objective == pytest.approx(objective(out.z), rel=1e-12)
    scale = problem.start(problem.survey(data)).objective
    assert out.objective - objective(theirs) <= out.gap_absolute + 1e-12 * scale  # the certificate holds
    assert objective(theirs) - out.objective <= 1e-8 * scale  # and they agree
    np.testing.assert_allclose(out.z, theirs, atol=2e-4 * (1 + np.abs(theirs).max()))


@pytest.mark.parametrize("penalty", [ps.L2(ALPHA), ps.NoPenalty()], ids=repr)
def test_multinomial_is_that_of_scikit_learn(penalty):
    out = simulate(ps.Multinomial(), X, CLASSES, sample_weight=WEIGHT, chunks=8, penalty=penalty, tol=1e-12).result
    C = 1 / ALPHA if isinstance(penalty, ps.L2) else np.inf
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, CLASSES, sample_weight=WEIGHT)
    assert out.converged
    assert out.notes == ()  # that classes may all be shifted alike is no finding
    assert out.n_features == D
    np.testing.assert_allclose(out.coef_ - out.coef_.mean(axis=0), theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(out.intercept_, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)
    np.testing.assert_allclose(out.coef_.sum(axis=0), 0, atol=1e-9)
    assert [*out.named()][:5] == ["x0[0]", "x1[0]", "x2[0]", "x3[0]", "x0[1]"]
    assert out.named()["x1[2]"] == out.coef_[2, 1]


def test_multinomial_reports_dependent_columns():
    twice = np.column_stack([X[:, :2], X[:, 0] - X[:, 1]])
    out = simulate(ps.Multinomial(), twice, CLASSES, chunks=4, tol=1e-8).result
    assert out.converged
    assert any("linearly dependent" in note and "x2[0]" in note for note in out.notes)


@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_quantile_is_near_the_unsmoothed_one(quantile):
    smoothing = 0.2
    problem = ps.Quantile(quantile, smoothing=smoothing)
    out = simulate(problem, X, NOISY, chunks=8, tol=1e-8).result
    theirs = QuantileRegressor(quantile=quantile, alpha=0.0).fit(X, NOISY)

    def pinball(coef, intercept):
        t = NOISY - X @ coef - intercept
        return float(np.maximum(quantile * t, (quantile - 1) * t).sum())

    bias = N * smoothing * max(quantile, 1 - quantile) ** 2 / 2
    assert out.converged
    assert 0 <= pinball(out.coef_, out.intercept_) - pinball(theirs.coef_, theirs.intercept_) <= bias
    assert pinball(theirs.coef_, theirs.intercept_) - bias <= out.objective <= pinball(theirs.coef_, theirs.intercept_)


def test_a_flat_loss_says_nothing_of_its_columns():
    """Separated classes: every hinge is straight at the end, its Hessian 0, and coefficients still matter."""
    y = (X[:, 0] > 0).astype(float)
    apart = X + 0.5 * np.sign(X[:, :1]) * np.eye(D)[0]
    out = simulate(ps.SquaredHinge(), apart, y, chunks=4, tol=1e-8).result
    margins = (2 * y - 1) * (apart @ out.coef_ + out.intercept_)
    assert out.converged
    assert out.notes == ()
    assert 0.5 * (np.maximum(1 - margins, 0) ** 2).sum() == pytest.approx(out.objective, abs=1e-9)
    assert out.objective <= out.gap_absolute + 1e-12


TARGETS = {ps.Poisson: COUNTS, ps.Gamma: POSITIVE, ps.Huber: NOISY, ps.SquaredHinge: NOISY > 0, ps.Multinomial: CLASSES}


@pytest.mark.parametrize("make", TARGETS)
def test_standardize_penalises_coefficients_of_like_units(make):
    units = np.array([1.0, 100.0, 0.01, 1.0])
    here, there = (
        simulate(make(standardize=True), part, TARGETS[make], chunks=4, penalty=ps.L1(20.0), tol=1e-10).result
        for part in (X, X * units)
    )
    assert here.objective == pytest.approx(there.objective, rel=1e-8)
    np.testing.assert_allclose(here.coef_, there.coef_ * units, atol=1e-4)
