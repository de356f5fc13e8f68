"""No finite optimum, not identifiable, far from zero: the right answer, or the right words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.server import hessians

RNG = np.random.default_rng(5)
N = 2000


@pytest.fixture(autouse=True, params=[hessians.WORTH, 1], ids=["own", "kept"])
def _worth(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a few columns, and as for many, where verifications keep Hessians."""
    monkeypatch.setattr(hessians, "WORTH", request.param)


def logistic(X: np.ndarray, w: np.ndarray, b: float = -0.5) -> np.ndarray:
    return (RNG.random(len(X)) < 1 / (1 + np.exp(-X @ w - b))).astype(float)


def fit(problem, X, y, **options):
    return ps.simulate(problem, X, y, chunks=8, **options).result


# -- separation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
def test_a_level_of_one_class_is_named(tol):
    level = RNG.integers(0, 6, N)
    X = np.column_stack([RNG.standard_normal((N, 2)), np.eye(6)[level][:, 1:]])
    y = logistic(X[:, :2], np.array([1.0, -1.0]))
    y[level == 3] = 0.0
    result = fit(ps.Logistic(), X, y, tol=tol)
    assert result.reason == "separation"
    assert result.converged
    assert result.gap <= tol
    assert any("x4" in note and "x0" not in note and "x3" not in note for note in result.notes)
    assert result.coef_[4] < -5


def test_a_penalty_makes_it_finite():
    level = RNG.integers(0, 6, N)
    X = np.eye(6)[level]
    y = logistic(X, np.zeros(6))
    y[level == 3] = 1.0
    result = fit(ps.Logistic(), X, y, penalty=ps.L2(0.1))
    assert result.reason == "converged"
    assert result.notes == ()


def test_classes_a_plane_tells_apart():
    X = RNG.standard_normal((N, 3))
    result = fit(ps.Logistic(), X, (X @ np.array([1.0, 2.0, -1.0]) > 0.3).astype(float))
    assert result.reason == "separation"
    assert result.objective < 1e-6 * N


def test_many_ordinary_fits_are_not_called_separated():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((400, 5)) * 10.0 ** rng.uniform(-4, 4, 5)
        w = 2.0 * rng.standard_normal(5) / np.abs(X).mean(axis=0)
        y = (rng.random(400) < 1 / (1 + np.exp(-X @ w))).astype(float)
        result = fit(ps.Logistic(), X, y, tol=1e-3)
        assert result.reason == "converged", (seed, result.notes)


# -- not identifiable ------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [ps.Logistic(), ps.LeastSquares()], ids=repr)
def test_every_level_beside_an_intercept(problem):
    """The dummy trap: reported, and of all solutions the one of least norm."""
    level = RNG.integers(0, 4, N)
    X = np.column_stack([RNG.standard_normal(N), np.eye(4)[level]])
    m = X @ np.array([1.0, 0.5, -0.5, 0.2, 0.0])
    y = (RNG.random(N) < 1 / (1 + np.exp(-m))).astype(float) if problem == ps.Logistic() else m + RNG.standard_normal(N)
    result = fit(problem, X, y, tol=1e-10)
    assert result.converged
    assert any("dependent: x1, x2, x3, x4, the intercept" in note for note in result.notes), result.notes
    assert abs(result.coef_[1:].sum()) < 1e-8  # least norm: no common part
    without = fit(problem, X[:, :4], y, tol=1e-10)
    assert result.objective == pytest.approx(without.objective, rel=1e-9)
    np.testing.assert_allclose(result.coef_[1:4] - result.coef_[4], without.coef_[1:4], atol=1e-4)


def test_a_copy_and_a_column_of_zeros():
    X = RNG.standard_normal((N, 3))
    X = np.column_stack([X, X[:, 0], np.zeros(N), np.full(N, 7.0)])
    y = logistic(X[:, :3], np.array([1.0, 0.0, -1.0]))
    result = fit(ps.Logistic(), X, y, tol=1e-10)
    assert result.converged
    assert any("dependent: x0, x3:" in note for note in result.notes)
    assert any("x4, x5" in note for note in result.notes)
    assert result.coef_[0] == pytest.approx(result.coef_[3], abs=1e-9)  # least norm: shared equally
    np.testing.assert_array_equal(result.coef_[4:], 0.0)


def test_penalised_copies_need_no_words():
    X = RNG.standard_normal((N, 2))
    result = fit(ps.Logistic(), np.column_stack([X, X]), logistic(X, np.ones(2)), penalty=ps.L2(1.0))
    assert result.notes == ()
    np.testing.assert_allclose(result.coef_[:2], result.coef_[2:], rtol=1e-6)


# -- columns far from zero, and in odd units -------------------------------------------------------


@pytest.mark.parametrize("penalty", [ps.NoPenalty(), ps.L1(3.0), ps.L2(2.0)], ids=repr)
@pytest.mark.parametrize("problem", [ps.Logistic(), ps.LeastSquares()], ids=repr)
def test_a_column_like_time_stamps(problem, penalty):
    X = RNG.standard_normal((N, 3))
    m = X @ np.array([1.0, -1.0, 0.0])
    y = (RNG.random(N) < 1 / (1 + np.exp(-m))).astype(float) if problem == ps.Logistic() else m + RNG.standard_normal(N)
    far = X + np.array([1.5e9, 0.0, -3e5])
    X = far - np.array([1.5e9, 0.0, -3e5])  # the digits that are left
    near, result = (fit(problem, Z, y, penalty=penalty, tol=1e-10) for Z in (X, far))
    assert result.converged
    assert result.objective == pytest.approx(near.objective, rel=1e-10)
    np.testing.assert_allclose(result.coef_, near.coef_, rtol=1e-4, atol=1e-7)
    back = near.intercept_ - 1.5e9 * near.coef_[0] + 3e5 * near.coef_[2]
    assert result.intercept_ == pytest.approx(back, rel=1e-4)
    assert len(result.z) == 4
    assert result.z[-1] == result.intercept_


def test_z0_and_duals_are_in_the_user_s_units():
    X = RNG.standard_normal((N, 2)) * np.array([1.0, 1e8]) + np.array([1e7, 0.0])
    y = logistic((X - [1e7, 0]) / [1, 1e8], np.array([1.0, -1.0]))
    problem = ps.Logistic(standardize=True)
    first = fit(problem, X, y, penalty=ps.L2(1.0), tol=1e-10)
    at = problem.at(problem.survey(problem.prepare(X, y)))
    np.testing.assert_allclose(at.outward(at.inward(first.z)), first.z, rtol=1e-9)
    y_in = RNG.standard_normal(3)
    step = RNG.standard_normal(3)  # a gradient is a linear function of steps, in whatever units
    moved = at.outward(step) - at.outward(np.zeros(3))
    assert at.outward_dual(y_in) @ moved == pytest.approx(y_in @ step, rel=1e-7)


@pytest.mark.parametrize("scale", [1e8, 1e-8])
def test_standardize_does_not_see_units(scale):
    X = RNG.standard_normal((N, 3))
    y = logistic(X, np.array([1.0, -1.0, 0.0]))
    weight = RNG.random(N)
    one = fit(ps.Logistic(standardize=True), X, y, sample_weight=weight, penalty=ps.L1(5.0), tol=1e-12)
    other = fit(ps.Logistic(standardize=True), X * [scale, 1, 1] + [0, 5, 0], y, sample_weight=weight,
                penalty=ps.L1(5.0), tol=1e-12)  # fmt: skip
    assert "sd·w" in one.penalty
    assert one.objective == pytest.approx(other.objective, rel=1e-11)
    np.testing.assert_allclose(one.coef_, other.coef_ * [scale, 1, 1], rtol=1e-5, atol=1e-8)
    sd = np.sqrt(np.average((X - np.average(X, axis=0, weights=weight)) ** 2, axis=0, weights=weight))
    plain = fit(ps.Logistic(), X / sd, y, sample_weight=weight, penalty=ps.L1(5.0), tol=1e-12)
    assert plain.objective == pytest.approx(one.objective, rel=1e-11)
    np.testing.assert_allclose(one.coef_, plain.coef_ / sd, rtol=1e-5, atol=1e-8)
