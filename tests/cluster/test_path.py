"""A path of strengths, warm started on one run, against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import enet_path, lasso_path

import paramserver as ps
from cluster.helpers import Slow, make_data, reference
from paramserver import errors

X, Y = make_data(n=4_000, d=8, kind="linear")
CENTRED, TARGET = X - X.mean(axis=0), Y - Y.mean()
N = len(X)


def objective(coef: Any, alpha: float, ratio: float) -> float:
    """Ours, with the intercept at its best."""
    left = TARGET - CENTRED @ coef
    return float(left @ left / 2 + alpha * (ratio * np.abs(coef).sum() + (1 - ratio) / 2 * (coef @ coef)))


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_as_scikit_learn(client: Any, ratio: float) -> None:
    penalty = ps.L1 if ratio == 1.0 else ps.ElasticNet(l1_ratio=ratio)
    found = ps.path(ps.LeastSquares(), X, Y, alphas=12, penalty=penalty, tol=1e-9, client=client)
    largest = np.abs(CENTRED.T @ TARGET).max() / ratio
    np.testing.assert_allclose(found.alphas, np.geomspace(largest, largest * 1e-3, 12), rtol=1e-9)
    options = {"alphas": found.alphas / N, "tol": 1e-10, "max_iter": 100_000}
    theirs = (
        lasso_path(CENTRED, TARGET, **options)[1]
        if ratio == 1.0
        else enet_path(CENTRED, TARGET, l1_ratio=ratio, **options)[1]
    )
    null = TARGET @ TARGET / 2
    for alpha, result, coef in zip(found.alphas, found, theirs.T, strict=True):
        assert result.converged
        assert result.certificate == "duality gap"
        ours, other = objective(result.coef_, alpha, ratio), objective(coef, alpha, ratio)
        assert abs(ours - other) <= 1e-6 * other
        assert ours - other <= result.gap_absolute + 1e-9 * null
        assert result.objective == pytest.approx(ours, rel=1e-9)
    assert not found[0].coef_.any()
    assert np.count_nonzero(found[1].coef_) > 0
    assert found.coefs_.shape == (12, 8)
    assert found.intercepts_.shape == (12,)
    assert len(found) == 12
    assert repr(found).count("\n") == 12
    assert ps.list(client) == [] or all(run["state"] not in ("live", "converged") for run in ps.list(client))


def test_alphas_of_your_own_from_the_largest_down(client: Any) -> None:
    X, Y = make_data(n=4_000, d=5)
    found = ps.path(ps.Logistic(), X, Y, alphas=[1.0, 100.0, 10.0], penalty=ps.L2, tol=1e-8, client=client, name="mine")
    assert found.alphas.tolist() == [100.0, 10.0, 1.0]
    for alpha, result in zip(found.alphas, found.results, strict=True):
        assert result.penalty == f"L2(alpha={alpha})"
        assert reference(ps.Logistic(), X, Y, ps.L2(alpha)).gap(result.z) <= result.gap + 1e-13 <= 1e-8 + 1e-13
    assert "mine" not in [run["name"] for run in ps.list(client)]


def test_in_units_of_standardised_columns(client: Any) -> None:
    """The first alpha is where the first coefficient leaves zero, in the units that the penalty acts in."""
    scales = 10.0 ** np.arange(-3, 5)
    found = ps.path(ps.LeastSquares(standardize=True), X * scales, Y, alphas=5, eps=0.5, tol=1e-9, client=client)
    largest = np.abs((CENTRED / CENTRED.std(axis=0)).T @ TARGET).max()
    assert found.alphas[0] == pytest.approx(largest, rel=1e-9)
    assert not found[0].coef_.any()
    assert found[1].coef_.any()


def test_a_limit_shortens_it(client: Any) -> None:
    found = ps.path(ps.LeastSquares(), X, Y, alphas=200, client=client, max_pushes=60, chunks=4)
    assert 1 <= len(found) < 200
    assert len(found.alphas) == len(found.results)
    assert found[len(found) - 1].reason == "max_pushes"
    with pytest.raises(errors.RunFailed, match=r"run ended \(max_pushes\) before"):
        ps.path(Slow(delay=0.2), X, Y > 0, client=client, max_pushes=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"penalty": ps.L2, "alphas": 10}, "pass the alphas themselves"),
        ({"penalty": ps.NoPenalty}, "pass the alphas themselves"),
        ({"alphas": 0}, "at least one alpha"),
        ({"alphas": []}, "at least one"),
        ({"alphas": [1.0, -1.0]}, "> 0"),
        ({"eps": 2.0}, "eps"),
        ({"keep": False}, "keeps"),
    ],
)
def test_what_it_cannot_do_is_said_first(client: Any, options: Any, text: str) -> None:
    before = ps.list(client)
    with pytest.raises(errors.InvalidInput, match=text):
        ps.path(ps.LeastSquares(), X, Y, client=client, **options)
    assert ps.list(client) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(client: Any, monkeypatch: Any, error: Any) -> None:
    calls: list[int] = []
    result = ps.Run.result

    def interrupted(self: Any, timeout: Any = None) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return result(self, timeout)

    monkeypatch.setattr(ps.Run, "result", interrupted)
    with pytest.raises(error):
        ps.path(ps.LeastSquares(), X, Y, client=client, name="short")
    assert len(calls) == 3
    assert "short" not in [run["name"] for run in ps.list(client)]
