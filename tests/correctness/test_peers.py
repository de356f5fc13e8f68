"""What scikit-learn, glum, statsmodels and skglm make of the same models: our objective is as low, the answer theirs.

Objectives are taken by definition, in extended precision. The peers' tolerances are as tight as they go; those that
are not installed (`pip install "paramserver[peers]"`) are skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import linear_model as sk
from sklearn.svm import LinearSVC

import paramserver as ps
from correctness.cases import FACTORS, FAMILIES, LOWER, UPPER, WEIGHTS, data
from correctness.reference import Model, Net
from paramserver.simulator import simulate


@dataclass(frozen=True)
class Given:
    """What a peer is given; ``alpha`` is against the sum of losses, ``share`` against their weighted mean."""

    X: Any
    y: np.ndarray
    alpha: float
    weight: np.ndarray | None
    offset: np.ndarray | None

    @property
    def total(self) -> float:
        return float(len(self.y) if self.weight is None else self.weight.sum())

    @property
    def share(self) -> float:
        return self.alpha / self.total

    def repeated(self) -> Given:
        """Rows as often as their weights say, for a peer that takes none."""
        assert self.weight is not None
        rows = np.repeat(np.arange(len(self.y)), self.weight.astype(int))
        return replace(self, X=self.X[rows], y=self.y[rows], weight=None)


Answer = tuple[Any, Any]  #: coefficients, intercept


# -- scikit-learn ----------------------------------------------------------------------------------


def sklearn(estimator: Any, given: Given) -> Answer:
    with warnings.catch_warnings():  # its last iterations find no lower objective in float64, and it says so
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        made = estimator.fit(given.X, given.y, **({} if given.weight is None else {"sample_weight": given.weight}))
    return made.coef_, made.intercept_


def sk_logistic(given: Given, solver: str = "newton-cholesky") -> Answer:
    C = 1 / given.alpha if given.alpha else np.inf
    return sklearn(sk.LogisticRegression(C=C, tol=1e-13, max_iter=10_000, solver=solver), given)


def sk_glm(kind: Any, given: Given, **settings: Any) -> Answer:
    return sklearn(kind(alpha=given.share, tol=1e-13, max_iter=10_000, solver="newton-cholesky", **settings), given)


def sk_lasso(given: Given, l1_ratio: float = 1.0, positive: bool = False) -> Answer:
    made = sk.ElasticNet(given.share, l1_ratio=l1_ratio, tol=1e-14, max_iter=1_000_000, positive=positive)
    return sklearn(made, given)


def sk_svc(given: Given) -> Answer:
    made = LinearSVC(C=1 / (2 * given.alpha), dual=False, fit_intercept=False, tol=1e-12, max_iter=100_000)
    return sklearn(made, given)


# -- glum ------------------------------------------------------------------------------------------


def glum(family: str, given: Given, l1_ratio: float = 0.0, **settings: Any) -> Answer:
    peer = pytest.importorskip("glum")
    family = peer.TweedieDistribution(1.5) if family == "tweedie" else family
    link = "identity" if family == "normal" else "logit" if family == "binomial" else "log"
    made = peer.GeneralizedLinearRegressor(
        family=family, link=link, alpha=given.share, l1_ratio=l1_ratio, gradient_tol=1e-12, max_iter=2000, **settings
    )
    with warnings.catch_warnings():  # its tolerance is below what float64 reaches; first steps of its search overflow
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        made.fit(given.X, given.y, sample_weight=given.weight, offset=given.offset)
    return made.coef_, made.intercept_


# -- statsmodels -----------------------------------------------------------------------------------


def statsmodels(family: str, given: Given) -> Answer:
    peer = pytest.importorskip("statsmodels.api")
    families, log = peer.families, peer.families.links.Log()
    family = {
        "binomial": families.Binomial(),
        "normal": families.Gaussian(),
        "poisson": families.Poisson(),
        "gamma": families.Gamma(log),
        "tweedie": families.Tweedie(log, var_power=1.5),
    }[family]
    A = np.column_stack([given.X, np.ones(len(given.y))])
    made = peer.GLM(given.y, A, family, offset=given.offset, freq_weights=given.weight).fit(tol=1e-14, maxiter=200)
    return made.params[:-1], made.params[-1]


# -- skglm -----------------------------------------------------------------------------------------


def skglm_huber(given: Given) -> Answer:
    from skglm import GeneralizedLinearEstimator
    from skglm.datafits import Huber
    from skglm.penalties import L1
    from skglm.solvers import AndersonCD

    solver = AndersonCD(tol=1e-12, max_iter=1000, max_epochs=100_000, fit_intercept=True)
    made = GeneralizedLinearEstimator(Huber(0.7), L1(given.share), solver).fit(given.X, given.y)
    return made.coef_, made.intercept_


def skglm_groups(given: Given) -> Answer:
    from skglm import GroupLasso

    groups = [list(g) for g in HALVES]
    made = GroupLasso(groups, given.share, np.array(WEIGHTS), tol=1e-13, max_iter=1000, max_epochs=100_000)
    made.fit(given.X, given.y)
    return made.coef_, made.intercept_


# -- the table -------------------------------------------------------------------------------------

HALF = 0.5 * np.array(FACTORS)
HALVES = ((0, 1, 2), (3, 4, 5))


@dataclass(frozen=True)
class Row:
    """A family with a penalty and an extra, and the peer that can do it."""

    family: str
    fit: Callable[[Given], Answer]
    alpha: float = 0.0
    penalty: Any = None  #: of the library
    net: Net = field(default_factory=Net)
    extra: str = "plain"
    intercept: bool = True
    sparse: bool = False
    repeat: bool = False
    atol: float = 1e-6  #: of the coefficients: what the peer's tolerance leaves

    def __str__(self) -> str:
        fit: Any = self.fit
        inner = getattr(fit, "func", fit).__name__
        return f"{self.family}, {inner}, {self.penalty}, {self.extra}{', csr' * self.sparse}"


def l2(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    return Row(family, fit, alpha, ps.L2(alpha), Net(l2=alpha), **more)


def l1(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    return Row(family, fit, alpha, ps.L1(alpha), Net(l1=alpha), **more)


def net(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    return Row(family, fit, alpha, ps.ElasticNet(alpha, 0.5), Net(l1=alpha / 2, l2=alpha / 2), **more)


def factors(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    penalty = ps.ElasticNet(alpha, 0.5, factors=FACTORS)
    return Row(family, fit, alpha, penalty, Net(l1=alpha * HALF, l2=alpha * HALF), **more)


def box(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    penalty, form = ps.Box(LOWER, UPPER, alpha, 0.5), Net(alpha / 2, alpha / 2, LOWER, UPPER)
    return Row(family, fit, alpha, penalty, form, **more)


def groups(family: str, fit: Any, alpha: float, **more: Any) -> Row:
    form = tuple((g, alpha * w) for g, w in zip(HALVES, WEIGHTS, strict=True))
    return Row(family, fit, alpha, ps.GroupL1(HALVES, alpha, factors=WEIGHTS), Net(groups=form), **more)


def each(make: Callable[..., Row], peer: Any, alpha: float, extra: str = "plain", **more: Any) -> list[Row]:
    """A row for each family that both glum and statsmodels know."""
    names = {"logistic": "binomial", "least squares": "normal"}
    known = ("logistic", "least squares", "poisson", "gamma", "tweedie")
    return [make(name, partial(peer, names.get(name, name)), alpha, extra=extra, **more) for name in known]


ROWS = [
    l2("logistic", sk_logistic, 3.0, extra="weight"),
    l2("logistic", partial(sk_logistic, solver="lbfgs"), 3.0, sparse=True, atol=1e-5),
    Row("logistic", sk_logistic),
    l2("multinomial", sk_logistic, 3.0, extra="weight"),
    l2("multinomial", partial(sk_logistic, solver="lbfgs"), 3.0, sparse=True, atol=1e-5),
    Row("multinomial", partial(sk_logistic, solver="lbfgs"), atol=1e-5),
    l2("poisson", partial(sk_glm, sk.PoissonRegressor), 3.0, extra="weight"),
    l2("gamma", partial(sk_glm, sk.GammaRegressor), 3.0, extra="weight"),
    l2("tweedie", partial(sk_glm, sk.TweedieRegressor, power=1.5, link="log"), 3.0, extra="weight"),
    l1("least squares", sk_lasso, 15.0, extra="weight"),
    net("least squares", partial(sk_lasso, l1_ratio=0.5), 15.0, sparse=True),
    Row(
        "least squares", partial(sk_lasso, positive=True), 15.0, ps.NonNegative(15.0, 1.0), Net(l1=15.0, lower=0.0)
    ),
    l2("squared hinge", sk_svc, 3.0, intercept=False, extra="weight", atol=1e-5),
    l2("squared hinge", sk_svc, 3.0, intercept=False, sparse=True, atol=1e-5),
    *each(l2, glum, 3.0, "offset"),
    *each(l1, partial(glum, l1_ratio=1.0), 8.0, "weight"),
    *each(factors, partial(glum, l1_ratio=0.5, P1=FACTORS, P2=FACTORS), 8.0, "offset"),
    *each(
        box, partial(glum, l1_ratio=0.5, lower_bounds=np.array(LOWER), upper_bounds=np.array(UPPER)), 3.0, "weight"
    ),
    *each(net, partial(glum, l1_ratio=0.5), 8.0, sparse=True),
    *each(Row, statsmodels, 0.0, "offset"),
    *each(Row, statsmodels, 0.0, "counts"),
    l1("huber", skglm_huber, 8.0),
    l1("huber", skglm_huber, 8.0, extra="counts", repeat=True),
    groups("least squares", skglm_groups, 10.0, extra="counts", repeat=True),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_as_low_and_the_same(row: Row) -> None:
    if "skglm" in str(row):
        pytest.importorskip("skglm")
    X, y, extras = data(row.family, row.extra)
    family = FAMILIES[row.family]
    model = Model(
        family.loss, X, y, row.net, extras.get("sample_weight"), extras.get("offset"), row.intercept, family.classes
    )
    problem = replace(family.problem, fit_intercept=row.intercept)
    stored = sp.csr_array(X) if row.sparse else X
    result = simulate(problem, stored, y, **extras, penalty=row.penalty, chunks=4, tol=1e-13).result
    assert result.converged
    given = Given(stored, y, row.alpha, extras.get("sample_weight"), extras.get("offset"))
    coef, intercept = row.fit(given.repeated() if row.repeat else given)
    coef = np.reshape(coef, (-1, X.shape[1]))
    coef, ours = _centred(coef, row.alpha), _centred(np.atleast_2d(result.coef_), row.alpha)
    theirs = np.append(coef, intercept if row.intercept else [])
    assert float(model.value(result.z) - model.value(theirs)) <= 1e-8 * float(model.null())
    np.testing.assert_allclose(ours, coef, atol=row.atol)
    if row.intercept:
        shift = np.mean(intercept) if family.classes > 1 else 0.0
        np.testing.assert_allclose(np.ravel(result.intercept_), np.ravel(intercept) - shift, atol=row.atol)


def _centred(coef: np.ndarray, alpha: float) -> np.ndarray:
    """Of several classes without a penalty only the differences are determined."""
    return coef - coef.mean(axis=0) if len(coef) > 1 and not alpha else coef


@pytest.mark.parametrize("level", [0.3, 0.5, 0.9])
def test_smoothed_quantiles_approach_the_quantiles(level: float) -> None:
    """The bias stated in `Quantile`'s docstring bounds how far they are from scikit-learn's linear programme."""
    X, y, _ = data("quantile", "plain")
    peer = sk.QuantileRegressor(quantile=level, alpha=0.0).fit(X, y)

    def pinball(coef: Any, intercept: Any) -> float:
        left = y - X @ coef - intercept
        return float(np.maximum(level * left, (level - 1) * left).sum())

    least = pinball(peer.coef_, peer.intercept_)
    for smoothing in (0.1, 0.01, 1e-3):
        result = simulate(ps.Quantile(level, smoothing=smoothing), X, y, chunks=4).result
        assert result.converged
        bias = len(y) * smoothing * max(level**2, (1 - level) ** 2) / 2
        assert least <= pinball(result.coef_, result.intercept_) <= least + bias + 1e-8 * least
        assert least - bias <= result.objective <= least + 1e-8 * least
