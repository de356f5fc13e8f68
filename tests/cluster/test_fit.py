"""A fit on a real cluster ends at the optimum that another solver finds, and knows how near it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest

import paramserver as ps
from cluster.helpers import Reference, make_data, reference
from paramserver.views import Residuals

PENALTIES = [ps.NoPenalty(), ps.L2(1.0), ps.L1(10.0), ps.ElasticNet(10.0, 0.5)]
SLACK = 1e-13  #: of F(null model): what rounding may do to the sums behind a certificate


def check(result: Any, exact: Reference, tol: float) -> None:
    """The gap is small, and the certificate is a bound that is not far off."""
    gap = exact.gap(result.z)
    assert result.converged
    assert result.certificate == "duality gap"
    assert -1e-15 <= gap <= tol
    assert result.gap <= tol
    assert gap <= result.gap + SLACK
    assert result.gap <= 10 * gap or max(result.gap, gap) < 1e-12
    assert result.objective == pytest.approx(float(exact.value(result.z)), rel=1e-12)
    assert result.gap_absolute == pytest.approx(result.gap * float(exact.null), rel=1e-9, abs=1e-300)


def fit_within(pushes: int, *args: Any, **kwargs: Any) -> Any:
    """A fit of so many pushes a chunk. Where the machine stops one of two workers, the other goes on: try again."""
    for _ in range(4):
        result = ps.fit(*args, **kwargs)
        if result.n_pushes <= pushes * result.n_chunks:
            break
    assert result.n_pushes <= pushes * result.n_chunks
    return result


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
@pytest.mark.parametrize("kind", ["logistic", "squares"])
def test_newton_reaches_the_optimum_and_certifies_it(client: Any, kind: str, penalty: Any) -> None:
    problem = ps.Logistic() if kind == "logistic" else ps.LeastSquares()
    X, y = make_data(kind=kind)
    exact = reference(problem, X, y, penalty)
    result = fit_within(8, problem, X, y, penalty=penalty, tol=1e-8, client=client, chunks=8)
    check(result, exact, 1e-8)
    assert result.n_chunks == 8
    assert result.n_rows == len(X)
    assert result.reason == "converged"
    assert result.coef_.shape == (10,)
    assert result.intercept_ == result.z[-1]


def test_least_squares_needs_one_hessian_and_one_verification(client: Any) -> None:
    X, y = make_data(kind="squares")
    # a survey, a Hessian and a verification a chunk; while others have yet to report, one may report twice
    fit_within(4, ps.LeastSquares(), X, y, penalty=ps.L2(1.0), tol=1e-8, client=client, chunks=8)


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
@pytest.mark.parametrize("kind", ["logistic", "squares"])
def test_admm_reaches_the_optimum(client: Any, kind: str, penalty: Any) -> None:
    problem = ps.Logistic() if kind == "logistic" else ps.LeastSquares()
    X, y = make_data(kind=kind)
    exact = reference(problem, X, y, penalty)
    rule = ps.ADMM(metric="hessian")
    result = ps.fit(problem, X, y, penalty=penalty, consensus=rule, tol=1e-6, client=client, chunks=8)
    check(result, exact, 1e-6)


@pytest.mark.parametrize(
    "rule", [ps.ADMM(metric="diagonal"), ps.ADMM(min_fresh=8), ps.ADMM(metric="identity", rho=500.0)]
)
def test_admm_by_its_other_metrics(client: Any, rule: Any) -> None:
    X, y = make_data()
    exact = reference(ps.Logistic(), X, y, ps.L2(1.0))
    result = ps.fit(ps.Logistic(), X, y, penalty=ps.L2(1.0), consensus=rule, tol=1e-5, client=client, chunks=8)
    check(result, exact, 1e-5)


@pytest.mark.parametrize("consensus", ["newton", "admm"])
@pytest.mark.parametrize("penalty", [ps.NoPenalty(), ps.L2(1.0), ps.L1(10.0)], ids=repr)
def test_columns_of_very_different_scales(client: Any, penalty: Any, consensus: str) -> None:
    X, y = make_data()
    X = X * np.array([1e6, 1e-6, 1.0, 1e6, 1e-6, 1.0, 1.0, 1.0, 1e3, 1e-3])
    exact = reference(ps.Logistic(), X, y, penalty)
    tol = 1e-8 if consensus == "newton" else 1e-6
    result = ps.fit(ps.Logistic(), X, y, penalty=penalty, consensus=consensus, tol=tol, client=client, chunks=8)
    check(result, exact, tol)


@pytest.mark.parametrize("consensus", ["newton", "admm"])
def test_chunks_sorted_by_label(client: Any, consensus: str) -> None:
    X, y = make_data()
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    exact = reference(ps.Logistic(), X, y, ps.L2(1.0))
    tol = 1e-8 if consensus == "newton" else 1e-6
    result = ps.fit(ps.Logistic(), X, y, penalty=ps.L2(1.0), consensus=consensus, tol=tol, client=client, chunks=8)
    check(result, exact, tol)


@pytest.mark.parametrize("kind", ["logistic", "squares"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sample_weight(client: Any, kind: str, fit_intercept: bool) -> None:
    problem = (ps.Logistic if kind == "logistic" else ps.LeastSquares)(fit_intercept=fit_intercept)
    X, y = make_data(kind=kind)
    weight = np.random.default_rng(5).exponential(size=len(y))
    weight[::7] = 0.0
    exact = reference(problem, X, y, ps.L2(3.0), weight)
    lazy = da.from_array(weight, chunks=3000)  # not the chunks of X
    result = ps.fit(problem, X, y, sample_weight=lazy, penalty=ps.L2(3.0), tol=1e-8, client=client, chunks=8)
    check(result, exact, 1e-8)


@pytest.mark.parametrize("kind", ["logistic", "squares"])
def test_without_an_intercept(client: Any, kind: str) -> None:
    problem = (ps.Logistic if kind == "logistic" else ps.LeastSquares)(fit_intercept=False)
    X, y = make_data(kind=kind)
    exact = reference(problem, X, y, ps.L1(10.0))
    result = ps.fit(problem, X, y, penalty=ps.L1(10.0), tol=1e-8, client=client, chunks=8)
    check(result, exact, 1e-8)
    assert result.z.shape == result.coef_.shape == (10,)
    assert result.intercept_ == 0.0


@dataclass(frozen=True)
class Blind(ps.AggregatedNewton):
    """A rule that cannot say how far it is."""

    def residuals(self, state: Any, slots: Any, penalty: Any, z: Any) -> Residuals:
        return Residuals(float("nan"))


def test_a_rule_without_an_estimate_is_verified_all_the_same(client: Any) -> None:
    X, y = make_data()
    exact = reference(ps.Logistic(), X, y, ps.L2(1.0))
    run = ps.launch(
        ps.Logistic(), X, y, penalty=ps.L2(1.0), consensus=Blind(), tol=1e-8, client=client, chunks=8, max_seconds=30
    )
    check(run.result(60), exact, 1e-8)


def test_fully_synchronous(client: Any) -> None:
    X, y = make_data()
    exact = reference(ps.Logistic(), X, y, ps.L2(1.0))
    rule = ps.AggregatedNewton(min_fresh=8)
    result = ps.fit(ps.Logistic(), X, y, penalty=ps.L2(1.0), consensus=rule, tol=1e-8, client=client, chunks=8)
    check(result, exact, 1e-8)
    assert set(result.pushes_per_chunk.values()) == {max(result.pushes_per_chunk.values())}


def test_default_tolerance_bounds_the_error_in_standard_errors(client: Any) -> None:
    X, y = make_data()
    result = ps.fit(ps.Logistic(), X, y, client=client)
    assert result.converged
    assert result.gap <= 1e-6
    assert result.standard_errors <= 0.1


def test_tall_chunks_of_many_blocks(client: Any) -> None:
    X, y = make_data(n=100_000, d=10)
    exact = reference(ps.Logistic(), X, y, ps.L2(1.0))
    data = da.from_array(X, chunks=(25_000, -1)), da.from_array(y, chunks=25_000)
    result = ps.fit(ps.Logistic(), *data, penalty=ps.L2(1.0), tol=1e-8, client=client)
    check(result, exact, 1e-8)
    assert result.n_chunks == 4
