"""Chunks that come and go while a run lives: the core alone, no Dask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cluster.helpers import reference

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.messages import Assignment, Failure, Outcome, Push
from paramserver.server import reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.tasks import answer

RNG = np.random.default_rng(0)
N, D, CHUNKS = 900, 4, 9
X = RNG.standard_normal((N, D))
X[600:] = X[600:] @ np.diag([1.0, 2.0, 0.5, 1.0]) + 0.5  # what comes later is not alike
MARGIN = X @ np.array([1.0, -0.7, 0.5, 0.0]) + 0.3
YES = (RNG.random(N) < 1 / (1 + np.exp(-MARGIN))).astype(float)
REAL = MARGIN + RNG.standard_normal(N)
ROWS = np.array_split(np.arange(N), CHUNKS)  # 0 to 5 at the start, 6 to 8 later
FIRST = 6
PENALTY = ps.L1(3.0)
RULES = [ps.AggregatedNewton(), ps.AggregatedNewton(min_fresh=4, max_staleness=3), ps.ADMM(),
         ps.ADMM(metric="diagonal", rho=1.0)]  # fmt: skip
PROBLEMS = [ps.Logistic(), ps.LeastSquares()]


class Play:
    """One honest runner that holds every chunk."""

    def __init__(
        self,
        problem: Any = None,
        rule: Consensus | None = None,
        chunks: Any = range(FIRST),
        offset: Any = None,
        **spec: Any,
    ) -> None:
        self.problem = problem or ps.Logistic()
        self.offset = offset
        self.spec = {"penalty": PENALTY, "tol": 1e-9, "keep": True, **spec}
        self.data = [self.prepared(i) for i in chunks]
        penalty = self.spec.pop("penalty")
        self.core = Core(
            RunSpec(self.problem, penalty, rule or ps.AggregatedNewton(), len(self.data), **self.spec), 1, 0.0
        )
        self.now = 0.0
        self.core.dispatch.holds("w", range(100))

    def prepared(self, i: int) -> Any:
        rows = ROWS[i]
        y = YES if isinstance(self.problem, ps.Logistic) else REAL
        return self.problem.prepare(X[rows], y[rows], None, None if self.offset is None else self.offset[rows])

    def add(self, *chunks: Any) -> list[int]:
        """Chunks by number, or data as they are."""
        ids = self.core.add(len(chunks), self.now)
        self.data += [self.prepared(c) if isinstance(c, int) else c for c in chunks]
        return ids

    def ask(self) -> Any:
        return self.core.assign("w#0", None, self.now)

    def solve(self, work: Assignment) -> Push:
        data = self.data[work.chunk]
        payload = answer(self.core.params.rule, self.core.params.problem, data, work, work.z)
        trouble = "too_far" if payload is None else None
        return Push(work.chunk, work.seq, work.task, work.version, payload or {}, work.seq - 1, 1.0, None, trouble)

    def deliver(self, push: Push | Failure) -> Outcome:
        self.now += 1.0
        return self.core.deliver(push, self.now)

    def refresh(self) -> None:
        while self.core.due:
            self.core.refresh(self.now)

    def step(self) -> None:
        self.refresh()
        work = self.ask()
        if isinstance(work, Assignment):
            self.deliver(self.solve(work))
        else:
            self.now += 1.0
        self.core.tick(self.now)
        self.refresh()

    def steps(self, n: int) -> Play:
        for _ in range(n):
            self.step()
        return self

    def until(self, done: Any, limit: int = 5000) -> Play:
        for _ in range(limit):
            if done(self.core):
                return self
            self.step()
        raise AssertionError(f"not there after {limit} exchanges: {self.core.state} {self.core.params.version}")

    def finish(self) -> Any:
        self.until(lambda core: core.over)
        assert self.core.error is None, self.core.error
        return reading.result(self.core)


def exact(problem: Any, chunks: Any) -> Any:
    rows = np.concatenate([ROWS[i] for i in chunks])
    y = YES if isinstance(problem, ps.Logistic) else REAL
    return reference(problem, X[rows], y[rows], PENALTY)


def assert_optimal(result: Any, play: Play, chunks: Any, tol: float = 1e-8) -> None:
    best = exact(play.problem, chunks)
    assert result.converged
    assert result.certificate == "duality gap"
    assert -1e-14 <= best.gap(result.z) <= result.gap + 1e-13 <= tol
    assert play.core.stopping.scale == pytest.approx(float(best.null), rel=1e-12)
    assert result.n_rows == sum(len(ROWS[i]) for i in chunks)
    assert result.n_chunks == len(chunks)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("steps", [0, 3, 7, 15, 25, None])
def test_chunks_added_at_any_moment_count(problem: Any, rule: Consensus, steps: int | None) -> None:
    play = Play(problem, rule)
    if steps is None:
        assert_optimal(play.finish(), play, range(FIRST))
    else:
        play.steps(steps)
    assert play.add(6, 7) == [6, 7]
    play.steps(2)
    assert play.add(8) == [8]
    assert not play.core.over
    assert play.core.verifier.verified is None
    assert_optimal(play.finish(), play, range(CHUNKS))
    assert play.core.params.setup.rows == N
    assert play.core.params.setup.n_chunks == CHUNKS


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("steps", [0, 3, 8, 20, 30, None])
def test_chunks_dropped_at_any_moment_do_not(problem: Any, rule: Consensus, steps: int | None) -> None:
    play = Play(problem, rule, range(CHUNKS))
    if steps is None:
        assert_optimal(play.finish(), play, range(CHUNKS))
    else:
        play.until(lambda core: core.state != "surveying").steps(steps)
    play.core.drop([0, 4])
    stay = [1, 2, 3, 5, 6, 7, 8]
    assert_optimal(play.finish(), play, stay)
    assert [value.chunk for value in reading.values(play.core, "dual", None)] == stay
    assert set(reading.status(play.core, play.now, {}, "").chunk_age) == set(stay)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_added_and_dropped_again_is_as_before(rule: Consensus) -> None:
    play = Play(rule=rule)
    before = play.finish()
    state, scale, z = play.core.params.state, play.core.stopping.scale, play.core.params.z
    sums = state.B.copy(), state.c.copy(), state.ref.copy()
    ids = play.add(7)
    play.core.drop(ids)
    assert play.core.params.z is z
    after = play.finish()
    assert play.core.stopping.scale == scale
    assert play.core.params.state.rows == play.core.params.state.rows_seen == before.n_rows == after.n_rows
    np.testing.assert_allclose(play.core.params.problem.inward(after.z), z, rtol=0, atol=1e-6)
    assert abs(after.objective - before.objective) <= 1e-9 * scale
    del sums
    play.add(7)
    assert play.finish().n_chunks == FIRST + 1
    assert play.core.stopping.scale > scale
    play.core.drop([7])
    assert play.core.params.slots[7].gone
    assert_optimal(play.finish(), play, range(FIRST))
