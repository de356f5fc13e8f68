"""What a run does once its z is verified, and again when it is changed after that: the core alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.errors import InvalidInput, StepFailed
from paramserver.messages import Assignment, Failure, Push, Task
from paramserver.server import checkpoint, reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.tasks import answer

CHUNKS = 4


class Play:
    """One honest runner that holds every chunk of a run that is kept."""

    def __init__(self, problem: Any, X: np.ndarray, y: np.ndarray, penalty: Any = None, **spec: Any) -> None:
        self.problem, self.now = problem, 0.0
        self.data = [problem.prepare(X[rows], y[rows]) for rows in np.array_split(np.arange(len(y)), CHUNKS)]
        spec = {"penalty": penalty or ps.NoPenalty(), "rule": ps.AggregatedNewton(), "keep": True, **spec}
        self.core = Core(RunSpec(problem, n_chunks=CHUNKS, **spec), 1, 0.0)
        self.core.dispatch.holds("w", range(100))

    def step(self) -> None:
        self.now += 1.0
        self.core.tick(self.now)
        while self.core.due:
            self.core.refresh(self.now)
        work = self.core.assign("w#0", None, self.now)
        if isinstance(work, Assignment):
            problem = self.problem if work.task is Task.SURVEY else self.core.params.problem
            try:
                payload = answer(self.core.params.rule, problem, self.data[work.chunk], work, work.z)
            except ArithmeticError as error:
                self.core.deliver(Failure(work.chunk, StepFailed(str(error))), self.now)
                return
            trouble = "too_far" if payload is None else None
            self.core.deliver(Push(*work[:4], payload or {}, work.seq - 1, 1.0, trouble=trouble), self.now)
        while self.core.due:
            self.core.refresh(self.now)

    def finish(self) -> Any:
        for _ in range(2000):
            if self.core.over:
                assert self.core.error is None, self.core.error
                return reading.result(self.core)
            self.step()
        raise AssertionError(f"not over: {self.core.state}")

    def update(self, penalty: Any = None, tol: float | None = None) -> Any:
        self.core.update(penalty, tol, {}, self.now)
        return self.finish()


def separated(n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((n, 2)), np.arange(n) % 10 == 0])
    return X, np.where(X[:, 2] > 0, 1.0, rng.random(n) < 1 / (1 + np.exp(-X[:, 0])))


@pytest.mark.parametrize("intercept", [False, True])
def test_rows_without_curvature_count_where_the_least_norm_is_chosen(intercept):
    """Two columns are alike but in rows that are all but settled, whose curvature is lost in the others'."""
    rng, n = np.random.default_rng(0), 20_000
    X, y = np.ones((n, 2)), (rng.random(n) < 0.3).astype(float)
    X[:20], X[20:40], y[:20], y[20:40] = [1, 0], [0, 1], 1.0, 0.0
    mixed = rng.permutation(n)
    play = Play(ps.Logistic(fit_intercept=intercept), X[mixed], y[mixed], tol=1e-13)
    play.finish()
    result = play.update(tol=1e-4)  # now there is room for what the Hessian does not see
    margins = X @ result.coef_ + result.intercept_
    true = np.logaddexp(0.0, np.where(y > 0, -margins, margins)).sum()
    assert result.certificate == "duality gap"
    assert result.objective == pytest.approx(true, rel=1e-9)
    assert not any("least-norm" in note for note in result.notes)


def test_a_copy_that_is_one_is_shared_and_its_objective_is_exact():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((500, 2))
    y = (rng.random(500) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    result = Play(ps.Logistic(), X[:, [0, 1, 0]], y, tol=1e-10, z0=np.array([1.0, 0.0, 0.0, 0.0])).finish()
    assert any("dependent: x0, x2: only" in note for note in result.notes)
    assert result.coef_[0] == pytest.approx(result.coef_[2], abs=1e-9)
    assert result.gap <= 1e-10


def test_what_was_found_of_another_objective_is_not_said_of_this_one():
    X, y = separated()
    play = Play(ps.Logistic(), X, y, tol=1e-8)
    assert any("no finite optimum" in note for note in play.finish().notes)
    assert play.update(ps.L2(1.0)).notes == ()
    assert any("no finite optimum" in note for note in play.update(ps.NoPenalty()).notes)
    play.data.append(play.problem.prepare(X[:100], 1.0 - y[:100]))
    play.core.add(1, play.now)
    result = play.finish()
    assert result.reason == "converged"
    assert result.notes == ()


@pytest.mark.parametrize("rule", [ps.AggregatedNewton(), ps.ActiveNewton()], ids=repr)
def test_an_anchor_that_nothing_was_lower_than_does_not_stall_another_penalty(rule):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 30)) * np.exp(rng.standard_normal(30))
    play = Play(ps.Poisson(), X, rng.poisson(np.exp(1 + X[:, 0].clip(-3, 3))), ps.L1(200.0), rule=rule, tol=1e-10)
    play.finish()
    play.core.verifier._stuck = True  # as a search that led nowhere leaves it
    assert play.update(ps.L1(0.05)).reason == "converged"


def test_a_failure_that_comes_after_the_end_changes_nothing():
    X, y = separated()
    play = Play(ps.Logistic(), X, y, ps.L2(1.0), tol=1e-8)
    play.finish()
    play.core.deliver(Failure(0, StepFailed("late")), play.now)
    assert play.core.state == "converged"
    assert play.update(ps.L2(0.1)).reason == "converged"


def test_a_checkpoint_keeps_what_gaps_are_relative_to():
    X, y = separated()
    problem = ps.Smooth(lambda z, X, y: 0.5 * float(((X @ z - y) ** 2).sum()) - 1e4, lambda z, X, y: X.T @ (X @ z - y),
                        lambda z, X, y: X.T @ X, size=3)  # fmt: skip
    play = Play(problem, X, y, ps.L2(1.0), tol=1e-8)
    while play.core.state == "surveying":
        play.step()
    again = checkpoint.load(checkpoint.dump(play.core, play.now), play.core.spec, 2, play.now)
    assert play.core.stopping.scale > 1.0
    assert again.stopping.scale == play.core.stopping.scale


def test_rows_where_f_is_infinite_at_today_s_z_do_not_stall_a_run_for_ever():
    """The newcomer has no value anywhere near: the run goes back to the null model of all there are."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 2))
    play = Play(ps.Poisson(), X, rng.poisson(np.exp(X[:, 0])).astype(float), ps.L2(1.0), tol=1e-8)
    play.finish()
    wild = 1e6 * rng.standard_normal((10, 2))
    play.data.append(ps.Poisson().prepare(wild, np.ones(10)))
    play.core.add(1, play.now)
    result = play.finish()
    assert result.n_rows == 410
    assert result.converged, result


def test_losses_that_always_have_a_minimum_are_never_called_separated():
    """Margins of 1e9 move by more than one half all the time."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((400, 2))
    y = 1e9 * (X[:, 0] + rng.standard_t(2.0, 400))
    for problem in (ps.LeastSquares(), ps.Huber(1e8)):
        result = Play(problem, X, y, tol=1e-3).finish()
        assert result.reason == "converged"


class NoMoments(ps.Logistic):
    def moments(self, data, z):
        raise ArithmeticError("out of luck")


def test_a_certified_run_does_not_fail_for_want_of_standard_errors():
    X, y = separated()
    result = Play(NoMoments(), X[:, :2], y, keep=False, inference=True).finish()
    assert result.converged
    assert any("no standard errors" in note and "out of luck" in note for note in result.notes)
    with pytest.raises(InvalidInput):
        result.summary()


def test_a_drop_that_leaves_nothing_to_fit_is_refused_and_the_run_lives():
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((400, 2)), np.repeat([0.0, 1.0, 1.0, 2.0], 100)  # 2 in the last chunk alone
    y[::7] = np.where(y[::7] < 2, 1 - y[::7], 2)
    play = Play(ps.Multinomial(), X, y, ps.L2(1.0))
    before = play.finish()
    with pytest.raises(InvalidInput, match="label 2 of the 3 classes"):
        play.core.drop([3])
    assert play.core.state == "converged"
    play.core.drop([1])
    after = play.finish()
    assert after.converged
    assert (before.n_rows, after.n_rows) == (400, 300)
