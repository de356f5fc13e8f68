"""Chunks that come and go while a run lives: the core alone, no Dask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cluster.helpers import reference

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Assignment, Failure, Outcome, Push, Task
from paramserver.server import checkpoint, reading
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
        self, problem: Any = None, rule: Any = None, chunks: Any = range(FIRST), offset: Any = None, y: Any = None,
        **spec: Any,
    ) -> None:  # fmt: skip
        self.problem, self.offset = problem or ps.Logistic(), offset
        self.y = y if y is not None else YES if isinstance(self.problem, ps.Logistic) else REAL
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
        return self.problem.prepare(X[rows], self.y[rows], None, None if self.offset is None else self.offset[rows])

    def add(self, *chunks: Any) -> list[int]:
        """Chunks by number, or data as they are."""
        ids = self.core.add(len(chunks), self.now)
        self.data += [self.prepared(c) if isinstance(c, int) else c for c in chunks]
        return ids

    def ask(self) -> Any:
        return self.core.assign("w#0", None, self.now)

    def solve(self, work: Assignment) -> Push:
        data = self.data[work.chunk]
        problem = self.problem if work.task is Task.SURVEY else self.core.params.problem
        payload = answer(self.core.params.rule, problem, data, work, work.z)
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
@pytest.mark.parametrize("steps", [0, 7, 25, None])
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
@pytest.mark.parametrize("steps", [0, 8, 20, None])
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
    play = Play(rule=rule, tol=1e-12)  # tight enough for its z to be told from another
    before = play.finish()
    state, scale, z = play.core.params.state, play.core.stopping.scale, play.core.params.z
    rows = state.rows
    ids = play.add(7)
    play.core.drop(ids)
    assert play.core.params.z is z
    after = play.finish()
    assert play.core.stopping.scale == scale
    assert play.core.params.state.rows == play.core.params.state.rows_seen == before.n_rows == after.n_rows
    np.testing.assert_allclose(play.core.params.problem.inward(after.z), z, rtol=0, atol=1e-6)
    assert abs(after.objective - before.objective) <= 1e-9 * scale
    assert rows == before.n_rows
    play.add(7)
    assert play.finish().n_chunks == FIRST + 1
    assert play.core.stopping.scale > scale
    play.core.drop([7])
    assert play.core.params.slots[7].gone
    assert_optimal(play.finish(), play, range(FIRST))


def test_adding_changes_the_null_model_and_dropping_changes_it_back() -> None:
    play = Play(ps.LeastSquares())
    play.finish()
    scale, start = play.core.stopping.scale, play.core.params.setup.start.z.copy()
    ids = play.add(6, 7, 8)
    play.finish()
    assert play.core.stopping.scale == pytest.approx(float(exact(play.problem, range(CHUNKS)).null), rel=1e-12)
    assert play.core.stopping.scale > 1.2 * scale
    play.core.drop(ids)
    play.finish()
    assert play.core.stopping.scale == scale
    np.testing.assert_array_equal(play.core.params.setup.start.z, start)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_null_model_that_takes_rounds(rule: Consensus) -> None:
    """With an offset the surveys do not tell it: it is asked of old chunks and new."""
    offset = 0.3 * X[:, 3]
    play = Play(rule=rule, offset=offset)
    play.finish()
    play.add(6, 7, 8)
    play.until(lambda core: core.verifier.gather is not None and core.verifier.gather.task is Task.NULL)
    late = play.solve(play.ask())
    play.core.drop([1])  # in the middle of the rounds
    assert play.deliver(late) in (Outcome.LATE, Outcome.UNKNOWN_CHUNK)
    result = play.finish()
    assert result.converged
    stay = np.concatenate([ROWS[i] for i in range(CHUNKS) if i != 1])
    b = 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-(offset[stay] + b)))
        b -= (p - YES[stay]).sum() / (p * (1 - p)).sum()
    m = offset[stay] + b
    assert play.core.stopping.scale == pytest.approx((np.logaddexp(0, m) - YES[stay] * m).sum(), rel=1e-12)
    fresh = Play(rule=rule, offset=offset, chunks=[0, 2, 3, 4, 5, 6, 7, 8]).finish()
    assert abs(fresh.objective - result.objective) <= 2e-9 * play.core.stopping.scale


@pytest.mark.parametrize("chunks", range(8, 28))
def test_the_last_chunk_to_settle_is_looked_at(chunks: int) -> None:
    """Quadratic chunks answer once: no push comes after the last, however many pushes lie between two looks."""
    problem = ps.LeastSquares()
    for looked in (0.0, -np.inf):
        play = Play(problem)
        play.data = [problem.prepare(X[rows], REAL[rows]) for rows in np.array_split(np.arange(N), chunks)]
        play.core = Core(replace(play.core.spec, n_chunks=chunks), 1, 0.0)
        play.core.dispatch.holds("w", range(100))
        play.until(lambda core: core.state == "running")
        play.core._looked_at = looked
        assert play.until(lambda core: core.over, 20 * chunks).core.reason == "converged"


def test_late_pushes_of_a_dropped_chunk_are_of_an_unknown_chunk() -> None:
    play = Play().until(lambda core: core.state == "running").steps(3)
    work = play.ask()
    push = play.solve(work)
    play.core.drop([work.chunk])
    assert play.deliver(push) is Outcome.UNKNOWN_CHUNK
    assert play.deliver(Failure(work.chunk, BadData("too late to matter"))) is Outcome.ACCEPTED
    assert play.core.error is None
    assert play.core.record.refused == {"unknown chunk": 1}
    for _ in range(FIRST * 2):
        play.refresh()
        asked = play.ask()
        assert not isinstance(asked, Assignment) or asked.chunk != work.chunk
        play.step()
    assert_optimal(play.finish(), play, [i for i in range(FIRST) if i != work.chunk])


def test_a_verification_under_way_is_void() -> None:
    play = Play().until(lambda core: core.state == "verifying")
    push = play.solve(play.ask())
    play.add(6)
    assert play.core.state == "surveying"
    assert play.deliver(push) is Outcome.LATE
    assert_optimal(play.finish(), play, range(FIRST + 1))


def test_what_cannot_be_dropped() -> None:
    play = Play()
    play.finish()
    version = play.core.params.version
    for chunks, text in (([9], "no chunk 9: the run has chunks 0 to 5"), ([-1], "no chunk -1"),
                         (range(FIRST), "at least one chunk")):  # fmt: skip
        with pytest.raises(InvalidInput, match=text):
            play.core.drop(chunks)
    assert (play.core.state, play.core.params.version) == ("converged", version)
    play.core.drop([1, 3])
    with pytest.raises(InvalidInput, match="no chunk 3: the run has chunks 0, 2, 4 to 5"):
        play.core.drop([3])
    play.finish()
    play.add(6)
    with pytest.raises(InvalidInput, match="being read do not count"):
        play.core.drop([0, 2, 4, 5])
    play.until(lambda core: core.state != "surveying")
    play.core.drop([0, 2, 4, 5])
    assert_optimal(play.finish(), play, [6])
    with pytest.raises(InvalidInput, match="at least one"):
        play.core.drop([6])
    with pytest.raises(InvalidInput, match="no chunk 0 any more: it was dropped"):
        reading.values(play.core, "dual", 0)
    play.core.end("stopped", play.now)
    for change in (lambda: play.core.drop([6]), lambda: play.add(7)):
        with pytest.raises(InvalidInput, match="has ended"):
            change()


@pytest.mark.parametrize("bad", ["columns", "failure", "class"])
def test_a_chunk_that_cannot_be_used_is_refused(bad: str) -> None:
    if bad == "class":
        play = Play(ps.Multinomial(), y=np.arange(N) % 3.0, tol=1e-7)
        new = play.problem.prepare(X[:50], np.arange(50) % 4.0)
    else:
        play = Play()
        new = play.problem.prepare(X[:50, :3], YES[:50])
    before = play.finish()
    ids = play.add(new, 7)
    assert ids == [6, 7]
    if bad == "failure":
        play.deliver(Failure(6, BadData("chunk 6: nan in row 3, column 1")))
    result = play.finish()
    assert result.converged
    assert result.n_chunks == FIRST + 1
    assert result.n_rows == before.n_rows + 100
    (note,) = result.notes[len(before.notes) :]
    words = {"columns": "3 columns where the run has 4", "failure": ": nan in row 3, column 1", "class": "class"}
    assert note.startswith("chunk 6 was refused: ")
    assert words[bad] in note
    assert play.core.params.slots[6].gone


def test_a_chunk_that_counts_ends_the_run_when_it_fails() -> None:
    play = Play()
    play.add(6)
    play.finish()
    play.add(7)
    play.deliver(Failure(6, BadData("chunk 6: nan in row 3, column 1")))
    assert play.core.state == "failed"


def test_a_null_model_without_a_value_refuses_what_was_added() -> None:
    play = Play(ps.Poisson(fit_intercept=False), offset=np.zeros(N), y=YES)
    before = play.finish()
    scale = play.core.stopping.scale
    play.add(play.problem.prepare(X[:50], YES[:50], None, np.full(50, 800.0)))  # exp(800) overflows
    result = play.finish()
    assert result.converged
    assert (result.n_rows, result.n_chunks, play.core.stopping.scale) == (before.n_rows, FIRST, scale)
    assert "refused: with the chunks added, the losses of the null model" in result.notes[-1]


def test_an_empty_chunk_is_there_and_counts_nothing() -> None:
    play = Play()
    before = play.finish()
    play.add(play.problem.prepare(np.empty((0, D)), np.empty(0)))
    result = play.finish()
    assert result.converged
    assert (result.n_rows, result.n_chunks) == (before.n_rows, FIRST + 1)
    assert reading.status(play.core, play.now, {}, "").empty_chunks == (6,)


@pytest.mark.parametrize("verify", [True, False])
def test_an_end_does_not_wait_for_chunks_being_read(verify: bool) -> None:
    play = Play()
    play.finish()
    play.add(6, 7)
    play.step()  # one of them is read
    (read,) = (i for i in (6, 7) if play.core.params.slots[i].survey is not None)
    play.core.end("max_seconds", play.now, verify)
    result = play.finish()
    assert result.reason == "max_seconds"
    if verify:
        assert result.certificate == "duality gap"
        assert (result.n_rows, result.n_chunks) == (sum(map(len, ROWS[:7])), 7)
        assert f"chunk {13 - read} was refused: not read when the run ended" in result.notes[-1]
        assert exact(play.problem, [*range(FIRST), read]).gap(result.z) <= result.gap + 1e-13


def test_an_update_while_chunks_are_read_waits_for_them() -> None:
    play = Play()
    play.finish()
    play.add(6, 7, 8)
    play.core.update(ps.L2(2.0), None, {}, play.now)
    assert play.core.state == "surveying"
    result = play.finish()
    best = reference(play.problem, X, YES, ps.L2(2.0))
    assert -1e-14 <= best.gap(result.z) <= result.gap + 1e-13 <= 1e-8


def test_more_than_the_server_has_room_for() -> None:
    play = Play()
    play.finish()
    play.core.memory_limit = 50_000
    with pytest.raises(InvalidInput, match="half of its worker"):
        play.core.add(1_000, play.now)
    assert play.core.state == "converged"


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("steps", [0, 1, 3, 9])
def test_a_checkpoint_keeps_what_came_and_went(rule: Consensus, steps: int) -> None:
    play = Play(rule=rule)
    play.finish()
    play.add(6, 7, 8)
    play.core.drop([2])
    play.steps(steps)
    spec = play.core.spec
    play.core = checkpoint.load(checkpoint.dump(play.core, play.now), spec, 2, play.now)
    play.core.dispatch.holds("w", range(100))
    result = play.finish()
    assert_optimal(result, play, [i for i in range(CHUNKS) if i != 2])
    assert play.core.params.slots[2].gone
    play.add(2)
    play.core.drop([4])
    assert_optimal(play.finish(), play, [0, 1, 3, 5, 6, 7, 8, 2])


class Plain(ps.AggregatedNewton):
    """Without a `recount` of its own: the default begins anew from the slots."""

    recount = Consensus.recount


def test_the_default_recount_absorbs_the_slots_anew() -> None:
    play = Play(rule=Plain())
    play.finish()
    play.add(6, 7)
    play.core.drop([0])
    assert_optimal(play.finish(), play, range(1, 8))


def test_columns_keep_the_units_they_had() -> None:
    """Standardised by the first chunks' deviations; z and the penalty do not change units under way."""
    play = Play(ps.Logistic(standardize=True))
    play.finish()
    units = play.core.params.problem.units
    play.add(6, 7, 8)
    result = play.finish()
    assert play.core.params.problem.units is units
    again = checkpoint.load(checkpoint.dump(play.core, play.now), play.core.spec, 2, play.now)
    np.testing.assert_array_equal(again.params.problem.units.scale, units.scale)
    scaled = X / units.scale
    best = reference(ps.Logistic(), scaled, YES, PENALTY)
    z = np.append(result.coef_ * units.scale, result.intercept_)
    assert -1e-14 <= best.gap(z) <= result.gap + 1e-13
