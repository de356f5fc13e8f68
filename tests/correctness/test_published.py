"""Published coefficients, of data that packages ship or that are printed beside them, to the printed digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_squared_error

import paramserver as ps
from paramserver.simulator import simulate


def fit(problem: Any, X: Any, y: Any, penalty: Any = None, chunks: int = 3, tol: float = 1e-14, **more: Any) -> Any:
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    out = simulate(problem, X, y, penalty=penalty, chunks=min(chunks, len(y)), tol=tol, **more).result
    assert out.converged, out
    return out


def shipped(name: str) -> Any:
    """A data set of statsmodels."""
    pytest.importorskip("statsmodels")
    import statsmodels.api as sm

    return getattr(sm.datasets, name).load_pandas()


def agree(result: Any, printed: Any, digits: int) -> None:
    """``printed`` has the coefficients, then the intercept, in so many significant digits."""
    got = np.append(result.coef_, result.intercept_)[: len(printed)]
    np.testing.assert_allclose(got, printed, rtol=0.51 * 10.0 ** (1 - digits), atol=1e-300)


# -- NIST and R, as in statsmodels' own tests -----------------------------------------------------------


def test_longley_as_certified_by_nist() -> None:
    """NIST StRD, itl.nist.gov/div898/strd/lls/data/Longley.shtml: collinear to a condition number of 5e9.

    Of the certified 15 digits float64 normal equations keep eight.
    """
    data = shipped("longley")
    certified = (
        15.0618722713733, -0.358191792925910e-01, -2.02022980381683, -1.03322686717359, -0.511041056535807e-01,
        1829.15146461355, -3482258.63459582,
    )  # fmt: skip
    result = fit(ps.LeastSquares(), data.exog, data.endog)
    agree(result, certified, 8)
    assert 2 * result.objective == pytest.approx(836424.055505915, rel=1e-12)


def test_star98_binomial() -> None:
    """R's glm(cbind(NABOVE, NBELOW) ~ ., binomial): statsmodels/genmod/tests/results/results_glm.py, class Star98."""
    data = shipped("star98")
    printed = (
        -0.0168150366, 0.0099254766, -0.0187242148, -0.0142385609, 0.2544871730, 0.2406936644, 0.0804086739,
        -1.9521605027, -0.3340864748, -0.1690221685, 0.0049167021, -0.0035799644, -0.0140765648, -0.0040049918,
        -0.0039063958, 0.0917143006, 0.0489898381, 0.0080407389, 0.0002220095, -0.0022492486, 2.9588779262,
    )  # fmt: skip
    n, counts = len(data.exog), np.asarray(data.endog, dtype=float).T
    X, y = np.tile(data.exog, (2, 1)), np.repeat([1.0, 0.0], n)
    result = fit(ps.Logistic(), X, y, sample_weight=counts.ravel(), tol=1e-21)  # digits of F are not those of z
    got = np.append(result.coef_, result.intercept_)
    np.testing.assert_allclose(got, printed, atol=0.51e-10, rtol=2e-9)  # interactions: correlated to nine digits
    share = counts / counts.sum(axis=0)
    saturated = -float((counts * np.log(share)).sum())
    assert 2 * (result.objective - saturated) == pytest.approx(4078.76541772, abs=1e-8)


CPUNISH = (2.611017e-04, 7.781801e-02, -9.493111e-02, 2.969349e-01, 2.301183e00, -1.872207e01, -6.801480e00)


def test_cpunish_poisson() -> None:
    """R's glm(EXECUTIONS ~ ., poisson) with log(VC100k96): the same file, classes Cpunish and Cpunish_offset."""
    data = shipped("cpunish")
    X = np.array(data.exog, dtype=float)
    X[:, 3] = np.log(X[:, 3])
    result = fit(ps.Poisson(), X, data.endog)
    agree(result, CPUNISH, 7)
    assert 2 * result.objective == pytest.approx(18.591641759528944, abs=1e-11)
    nothing = fit(ps.Poisson(), 0 * X, data.endog)
    assert 2 * nothing.objective == pytest.approx(136.57281747225, abs=1e-10)
    exposed = fit(ps.Poisson(), X, data.endog, exposure=np.full(len(X), 100.0))
    agree(exposed, CPUNISH[:6], 7)
    assert exposed.intercept_ == pytest.approx(-1.140665e01, abs=0.51e-5)


def test_cpunish_and_fair_tweedie() -> None:
    """R's glm(family = tweedie(var.power, link.power = 0)) without intercept: CpunishTweedieLog1, FairTweedieLog15."""
    data = shipped("cpunish")
    result = fit(ps.Tweedie(1.0, fit_intercept=False), data.exog[["INCOME", "SOUTH"]], data.endog)
    agree(result, (1.65700638623525e-05, 1.54257997850499), 8)  # R stops at a deviance that falls by less than 1e-8
    data = shipped("fair")
    X = data.exog[["rate_marriage", "age", "yrs_married"]]
    result = fit(ps.Tweedie(1.5, fit_intercept=False), X, data.endog)
    agree(
        result, (-0.389168171340452, 0.0670222370664611, -0.0970852004566712), 5
    )  # as above, over 6366 heavy-tailed rows
    assert 2 * result.objective == pytest.approx(20741.82, abs=0.005)


# -- scikit-learn ---------------------------------------------------------------------------------------


def test_diabetes_by_its_body_mass() -> None:
    """scikit-learn's example "Linear Regression Example" (plot_ols): coefficient, mean squared error of the last 20."""
    X, y = load_diabetes(return_X_y=True)
    X = X[:, 2:3]
    result = fit(ps.LeastSquares(), X[:-20], y[:-20])
    assert result.coef_[0] == pytest.approx(938.23786125, abs=0.51e-8)
    predicted = X[-20:] @ result.coef_ + result.intercept_
    assert mean_squared_error(y[-20:], predicted) == pytest.approx(2548.07, abs=0.005)


def test_iris_probabilities() -> None:
    """The docstring of sklearn.linear_model.LogisticRegression (C = 1): probabilities of the first two rows."""
    X, y = load_iris(return_X_y=True)
    result = fit(ps.Multinomial(), X, y, ps.L2(1.0))
    margins = X @ result.coef_.T + result.intercept_
    p = np.exp(margins - margins.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    printed = [[9.82e-01, 1.82e-02, 1.44e-08], [9.72e-01, 2.82e-02, 3.02e-08]]
    np.testing.assert_allclose(p[:2], printed, rtol=2e-2)  # where its default tolerance, 1e-4, stops
    peer = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(X, y)
    np.testing.assert_allclose(p, peer.predict_proba(X), rtol=1e-6)
    assert (margins.argmax(axis=1) == y).mean() == pytest.approx(0.97, abs=0.005)


# R's glmnet, as scikit-learn's tests print it: sklearn/linear_model/tests/test_logistic.py, test_logistic_glmnet,
# and sklearn/linear_model/_glm/tests/test_glm.py, test_poisson_glmnet. Its lambda is against the mean of losses.
A = np.array([[-4, -3, -2, -1, 0, 1, 2, 3, 4], [0, 0, 1, 0, 1, 1, 1, 0, 0]], dtype=float).T
B = np.array([[-2, -1, 1, 2], [0, 0, 1, 1]], dtype=float).T


def test_glmnet_logistic() -> None:
    result = fit(ps.Logistic(), A, np.array([0, 0, 0, 1, 1, 1, 1, 1, 1]), ps.L2(9.0))
    agree(result, (0.44464569182, 0.01457563448, 0.89230405539), 6)


def test_glmnet_multinomial() -> None:
    result = fit(ps.Multinomial(), A, np.repeat([0, 1, 2], 3), ps.L2(9.0))
    coef = [[-0.38023389305, -0.01226499932], [-8.164030176e-05, 4.734548012e-02], [0.3803155334, -0.0350804808]]
    np.testing.assert_allclose(result.coef_, coef, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(result.intercept_, [-0.12004759652, 2.251747383e-01, -0.1051271418], rtol=1e-5)


def test_glmnet_poisson() -> None:
    result = fit(ps.Poisson(), B, np.array([0, 1, 1, 2]), ps.L2(4.0))
    agree(result, (0.29019207995, 0.03741173122, -0.12889386979), 6)


# -- glum -----------------------------------------------------------------------------------------------


def test_glum_poisson_elastic_net() -> None:
    """glum's tests/glm/test_glm.py, test_poisson_enet: glmnet with alpha = 0.5, lambda = 1."""
    result = fit(ps.Poisson(), B, np.array([0, 1, 1, 2]), ps.ElasticNet(4.0, 0.5))
    assert result.coef_[0] == pytest.approx(0.16936423283, rel=2e-7)
    assert result.coef_[1] == 0
    assert result.intercept_ == pytest.approx(-0.03550978409, rel=2e-6)
