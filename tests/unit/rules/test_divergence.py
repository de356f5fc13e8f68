"""A rule that diverges ends so, with finite parameters and the trace of how it went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from by_hand import logistic, objective

from paramserver.consensus import AggregatedNewton, AsyncSGD, ProxGradient
from paramserver.errors import MissingMethod
from paramserver.penalties import L2, Box
from paramserver.simulator import simulate
from paramserver.workers.problems import LeastSquares, Logistic, Smooth

X, Y = logistic(800, 4)
NULL = np.append(np.zeros(4), np.log(Y.mean() / (1 - Y.mean())))


@dataclass(frozen=True, kw_only=True)
class Lost(ProxGradient):
    """Its third z is no number, or infinite."""

    value: float = np.nan

    def consensus(self, state, penalty, z):
        z, state = super().consensus(state, penalty, z)
        LOST.append(1)
        return (np.where(np.arange(len(z)) == 1, self.value, z) if len(LOST) > 20 else z), state


LOST: list[int] = []


@dataclass(frozen=True)
class Runaway(ProxGradient):
    """Every step goes ten times as far as the last one."""

    def consensus(self, state, penalty, z):
        return 10.0 * z + 1.0, state


@dataclass(frozen=True)
class Worse(ProxGradient):
    """It stays at a z that is worse than the null model."""

    def consensus(self, state, penalty, z):
        return np.full_like(z, 3.0), state


def check(result, penalty=0.0):
    assert result.reason == "diverged"
    assert not result.converged
    assert np.isfinite(result.z).all()
    assert np.isfinite(np.append(result.coef_, result.intercept_)).all()
    assert any(note.startswith("diverged: by version") for note in result.notes)
    assert len(result.history.seconds) > 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_z_that_is_no_number_is_not_published(value):
    LOST.clear()
    result = simulate(Logistic(), X, Y, chunks=4, penalty=L2(1.0), consensus=Lost(value=value), tol=1e-12).result
    check(result)
    assert result.certificate == "duality gap"
    assert result.objective <= objective(X, Y, NULL) * (1 + 1e-9)
    assert result.objective == pytest.approx(objective(X, Y, result.z, l2=1.0))
    assert result.history.pushes[-1] >= 20


@pytest.mark.parametrize("rule", [Runaway(), Worse(), AsyncSGD(batch=16, rate=40.0)], ids=lambda r: type(r).__name__)
def test_the_best_that_there_was_is_given(rule):
    result = simulate(Logistic(), X, Y, chunks=4, penalty=L2(1.0), consensus=rule, tol=1e-8, limit=3e3).result
    check(result)
    assert result.objective <= objective(X, Y, NULL) * (1 + 1e-9)
    assert np.nanmax(result.history.objective) > objective(X, Y, NULL)  # the trace says how it went


def test_least_squares_overflow_quietly():
    y = X @ np.arange(4.0) + 5.0
    result = simulate(LeastSquares(), X, y, chunks=4, consensus=AsyncSGD(batch=16, rate=40.0), tol=1e-8).result
    check(result)


def test_where_the_null_model_is_no_start():
    """Bounds without zero: F of the null model is infinite."""
    result = simulate(
        LeastSquares(), X, X @ np.arange(4.0), chunks=4, penalty=Box(0.5, np.inf),
        consensus=AsyncSGD(batch=16, rate=40.0), tol=1e-8, limit=3e3,
    ).result  # fmt: skip
    check(result)
    assert (result.coef_ >= 0.5).all()


def test_a_problem_that_cannot_be_certified():
    """Nothing verifies z: only one that is no number is noticed."""
    problem = Smooth(lambda z, a: float(0.5 * (a**2 * z**2).sum()), lambda z, a: (a**2).sum(axis=0) * z, z0=np.ones(3))
    LOST.clear()
    chunks = [np.full(3, 1.0 + k) for k in range(4)]
    result = simulate(problem, np.array(chunks), chunks=[[k] for k in range(4)], consensus=Lost(), tol=1e-12).result
    check(result)
    np.testing.assert_array_equal(result.z, np.ones(3))


def test_a_rule_that_stalls_above_its_tolerance_has_not_diverged():
    result = simulate(Logistic(), X, Y, chunks=4, penalty=L2(1.0), consensus="fedavg", tol=1e-10).result
    assert result.reason == "stalled"
    assert not any("diverged" in note for note in result.notes)


def test_a_rule_without_its_methods_is_told_which():
    class Half(AggregatedNewton.__mro__[2]):
        def init(self, setup):
            return None

        def step(self, problem, data, pull):
            return {}

    with pytest.raises(MissingMethod) as info:
        Half()
    text = str(info.value)
    assert text.startswith("Half lacks what every rule needs")
    assert "def absorb(self, state: Any, chunk: int, old: Fields | None, new: Fields) -> Absorbed" in text
    assert "def consensus(self, state: Any, penalty: Bound, z: Array) -> tuple[Array, Any]" in text
    assert "payload: ClassVar = {" in text
    assert "init" not in text
