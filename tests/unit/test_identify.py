"""Dependent, empty and runaway coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from paramserver.identify import running_away, shortest, undetermined

RNG = np.random.default_rng(3)


def design(n: int = 200) -> np.ndarray:
    """A numeric column, all levels of two factors, a copy ×1e8 of column 0, a zero column, the intercept."""
    x = RNG.standard_normal((n, 1))
    a, b = RNG.integers(0, 3, n), RNG.integers(0, 2, n)
    return np.column_stack([x, np.eye(3)[a], np.eye(2)[b], 1e8 * x, np.zeros(n), np.ones(n)])


def test_dependences_are_found_and_told_apart():
    X = design()
    found = undetermined((X.T * RNG.random(len(X))) @ X, np.ones(9, bool))
    assert found.empty == (7,)
    assert found.groups == ((0, 6), (1, 2, 3, 4, 5, 8))
    assert found.basis.shape == (9, 4)
    assert np.abs(X @ (found.basis / np.abs(found.basis * (np.abs(X).max(0) + 1)[:, None]).max(0))).max() < 1e-9


def test_penalised_coordinates_are_determined():
    X = design()
    free = np.zeros(9, bool)
    free[[1, 2, 3, 8]] = True
    found = undetermined(X.T @ X, free)
    assert found.groups == ((1, 2, 3, 8),)
    assert found.empty == ()
    free[8] = False
    assert undetermined(X.T @ X, free).groups == ()


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_close_is_not_dependent(scale):
    x = RNG.standard_normal((500, 2))
    X = np.column_stack([x[:, 0], scale * (x[:, 0] + 1e-4 * x[:, 1]), np.ones(500)])
    assert undetermined(X.T @ X, np.ones(3, bool)).basis.shape == (3, 0)


def test_the_shortest_of_all_that_fit_alike_is_the_pseudo_inverse_s():
    X = design()[:, :-1]
    y = RNG.standard_normal(len(X))
    ones = np.ones((len(X), 1))
    A = np.column_stack([X / np.r_[np.ones(6), 1e8, 1.0], ones])
    basis = undetermined(A.T @ A, np.ones(9, bool)).basis
    z = np.linalg.lstsq(A, y, rcond=1e-12)[0] + basis @ RNG.standard_normal(basis.shape[1])
    counts = np.arange(9) < 8
    got = shortest(z, basis, counts)
    centred = A[:, :8] - A[:, :8].mean(axis=0)  # an intercept that costs nothing takes the means
    want = np.linalg.pinv(centred, rcond=1e-10) @ (y - y.mean())
    np.testing.assert_allclose(got[:8], want, atol=1e-10)
    np.testing.assert_allclose(A @ got, A @ z, atol=1e-9)


def test_running_away_names_what_moves_most_and_has_no_penalty():
    step, reach = np.array([0.0, 1.0, 1e-3, 0.9, 3.0]), np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    assert running_away(step, reach, np.array([True, True, True, True, False])) == (1, 3)
    assert running_away(0.1 * step, reach, np.ones(5, bool)) == ()
    assert running_away(step, 1e-3 * reach, np.ones(5, bool)) == ()
