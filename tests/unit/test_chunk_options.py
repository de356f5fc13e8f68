"""Chunks whose data are lost, or are others when they are computed again: the core alone, no Dask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cluster.helpers import reference
from test_live_data import CHUNKS, FIRST, PENALTY, REAL, ROWS, RULES, YES, D, N, Play, X, assert_optimal

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.errors import BadData, ChunkChanged, InvalidInput, StepFailed
from paramserver.messages import Assignment, Failure, Outcome, Push, Task
from paramserver.server import checkpoint, reading
from paramserver.workers.fingerprint import fingerprint

GONE = "chunk {} is gone: the worker that held it left"
RNG = np.random.default_rng(1)
NEW = {i: X[ROWS[i]] * 1.5 - 0.2 for i in range(CHUNKS)}  # what chunks have after a change
NEW_Y = {i: (RNG.random(len(ROWS[i])) < 0.4).astype(float) for i in range(CHUNKS)}


def lost(*chunks: int) -> dict[int, str]:
    return {i: GONE.format(i) for i in chunks}


class Changing(Play):
    """A worker "w" that has the data as they are, and one, "old", with copies from the start."""

    def __init__(self, *args: Any, **spec: Any) -> None:
        super().__init__(*args, **{"on_chunk_change": "reset", **spec})
        rows = [ROWS[i] for i in range(len(self.data))]
        self.prints = [fingerprint((X[r], self.y[r])) for r in rows]
        self.old = list(zip(self.data, self.prints, strict=True))

    def change(self, i: int, values: Any = None, y: Any = None) -> None:
        values, y = NEW[i] if values is None else values, NEW_Y[i] if y is None else y
        self.data[i], self.prints[i] = self.problem.prepare(values, y, None), fingerprint((values, y))

    def solve_old(self, work: Assignment) -> Any:
        """As a worker that has not let go of its copy."""
        now = self.data, self.prints
        self.data, self.prints = map(list, zip(*self.old, strict=True))
        try:
            return self.solve(work)
        finally:
            self.data, self.prints = now

    def ask_for(self, chunk: int | None, task: Task | None = None) -> Assignment:
        """The next assignment of this chunk, or this task; what comes before is done."""
        for _ in range(1000):
            self.refresh()
            work = self.ask()
            if isinstance(work, Assignment) and chunk in (None, work.chunk) and task in (None, work.task):
                return work
            if isinstance(work, Assignment):
                self.deliver(self.solve(work))
            self.now += 1.0
        raise AssertionError(f"chunk {chunk} is not wanted")

    def solve(self, work: Assignment) -> Any:
        """As a runner does: a step that raises is a `Failure` with what it failed at."""
        prints = self.prints[work.chunk]
        try:
            return super().solve(work)._replace(fingerprint=prints, edition=work.edition)
        except (ValueError, IndexError) as error:
            return Failure(work.chunk, StepFailed(f"chunk {work.chunk}: {error}"), prints, work.edition)


def changed_optimum(play: Changing, changed: set[int]) -> Any:
    """Of the first chunks, some of them changed."""
    values = np.vstack([NEW[i] if i in changed else X[ROWS[i]] for i in range(FIRST)])
    y = np.concatenate([NEW_Y[i] if i in changed else play.y[ROWS[i]] for i in range(FIRST)])
    return reference(play.problem, values, y, play.core.params.bound.penalty)


def assert_of_today(play: Changing, changed: set[int]) -> Any:
    result, best = play.finish(), changed_optimum(play, changed)
    assert (result.converged, result.certificate) == (True, play.core.params.rule.certificate)
    assert -1e-14 <= best.gap(result.z) <= result.gap + 1e-13 <= 1e-8
    assert play.core.stopping.scale == pytest.approx(float(best.null), rel=1e-12)
    assert result.n_chunks == FIRST
    for i in range(FIRST):
        noted = sum(f"chunk {i} was computed again and has other values now" in note for note in result.notes)
        assert noted == bool(play.core.params.slots[i].edition)
    return result


# -- lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("steps", [0, 4, 12, 20, None])
def test_lost_chunks_are_left_out(rule: Consensus, steps: int | None) -> None:
    """At any moment, those too that nobody has read; of what was certified nothing is left."""
    play = Play(rule=rule, chunks=range(CHUNKS), on_chunk_loss="drop", keep=steps is None)
    if steps is None:
        play.finish()
    else:
        play.steps(steps)
    unread = {i for i in (0, 4) if play.core.params.slots[i].survey is None}
    assert play.core.lost(lost(0, 4), play.now) == ""
    assert play.core.verifier.verified is None
    result = play.finish()
    assert_optimal(result, play, [1, 2, 3, 5, 6, 7, 8])
    assert result.left_out == {i: None if i in unread else len(ROWS[i]) for i in (0, 4)}
    (note,) = [note for note in result.notes if "left out" in note]
    rows = {0: "200 rows", 1: "100 rows, and those of 1 that were never read", 2: "rows unknown: never read"}
    assert note == f"left out: chunks 0, 4 ({rows[len(unread)]}): {GONE.format(0)}"
    assert note in reading.status(play.core, play.now, {}, "").notes
    assert play.core.lost(lost(0, 4), play.now) == ""  # the supervisor asks until it heard
    assert play.core.over


def test_a_lost_chunk_ends_the_run_where_nothing_else_was_said() -> None:
    play = Play().steps(10)
    state = play.core.state
    assert play.core.lost(lost(3, 5), play.now) == GONE.format(3)
    assert play.core.state == state  # who asked ends it
    assert not play.core.params.slots[3].gone


@pytest.mark.parametrize("option", ["fail", "drop"])
def test_a_lost_newcomer_is_refused_whatever_was_said(option: str) -> None:
    play = Play(on_chunk_loss=option)
    play.finish()
    play.add(6, 7)
    assert play.core.lost(lost(6), play.now) == ""
    result = play.finish()
    assert_optimal(result, play, [*range(FIRST), 7])
    assert result.left_out == {}
    assert result.notes[-1].startswith("chunk 6 was refused: ")


def test_the_last_chunk_with_rows_cannot_be_left_out() -> None:
    play = Play(on_chunk_loss="drop")
    play.add(play.problem.prepare(np.empty((0, D)), np.empty(0)))
    play.finish()
    assert play.core.lost(lost(1, 2, 3, 4, 5), play.now) == ""
    assert play.core.lost(lost(0, 6), play.now) == f"{GONE.format(0)}; no other chunk has rows, as far as is known"
    result = play.finish()
    assert (result.n_rows, list(result.left_out)) == (len(ROWS[0]), [1, 2, 3, 4, 5])


def test_what_is_left_must_be_a_fit() -> None:
    y = np.zeros(N)
    y[ROWS[2]] = YES[ROWS[2]]
    play = Play(y=y, on_chunk_loss="drop", tol=1e-6).until(lambda core: core.state == "running")
    why = play.core.lost(lost(2), play.now)
    assert why.startswith(f"{GONE.format(2)}; without chunks [2] nothing could be fitted: ")
    assert play.core.state == "running"


def test_what_was_certified_stands_where_only_inference_lacks_a_chunk() -> None:
    play = Play(penalty=ps.NoPenalty(), on_chunk_loss="drop", inference=True, keep=False)
    play.until(lambda core: core.inferring.under_way)
    assert play.core.lost(lost(2), play.now) == ""
    result = play.finish()
    assert (result.converged, result.n_chunks, result.left_out) == (True, FIRST, {})
    assert result.no_inference == GONE.format(2)


def test_a_finished_run_misses_nothing() -> None:
    play = Play(keep=False)
    result = play.finish()
    assert play.core.lost(lost(0, 1, 99), play.now) == ""
    assert reading.result(play.core).notes == result.notes


def test_an_end_under_way_is_certified_without_the_lost_chunk() -> None:
    play = Play(chunks=range(CHUNKS), on_chunk_loss="drop").until(lambda core: core.state == "running").steps(6)
    play.core.end("max_seconds", play.now)
    play.steps(3)
    assert play.core.lost(lost(1), play.now) == ""
    result = play.finish()
    assert (result.reason, result.certificate, result.n_chunks) == ("max_seconds", "duality gap", CHUNKS - 1)
    rest = np.concatenate([ROWS[i] for i in range(CHUNKS) if i != 1])
    assert reference(play.problem, X[rest], YES[rest], PENALTY).gap(result.z) <= result.gap + 1e-13


@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("steps", [0, 3, 12, None])
def test_what_was_left_out_survives_the_server(steps: int | None, anchor: bool) -> None:
    play = Play(chunks=range(CHUNKS), on_chunk_loss="drop").steps(30)
    play.core.lost(lost(0, 4), play.now)
    if steps is None:
        play.finish()
    else:
        play.steps(steps)
    state = checkpoint.dump(play.core, play.now, anchor=anchor)
    play.core = checkpoint.load(state, play.core.spec, 2, play.now)
    play.core.dispatch.holds("w", range(100))
    assert play.core.lost(lost(0, 4), play.now) == ""
    result = play.finish()
    assert_optimal(result, play, [1, 2, 3, 5, 6, 7, 8])
    assert result.left_out == {0: 100, 4: 100}
    assert sum("left out" in note for note in result.notes) == 1


# -- changed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [ps.Logistic(), ps.LeastSquares()], ids=repr)
@pytest.mark.parametrize("rule", [*RULES, ps.LBFGS(), ps.ActiveNewton()], ids=repr)
@pytest.mark.parametrize("steps", [1, 8, 14, 22, 30])
def test_a_chunk_that_changed_counts_as_it_is_now(problem: Any, rule: Consensus, steps: int) -> None:
    """Seen when somebody reads it again, as all that go on with it do."""
    play = Changing(problem, rule, penalty=ps.L2(3.0) if isinstance(rule, ps.LBFGS) else PENALTY)
    play.steps(steps)
    for i in (1, 4):
        play.change(i)
    if play.core.over:
        play.core.update(None, 1e-10, {}, play.now)
    play.until(lambda core: core.over)
    seen = {i for i in (1, 4) if play.core.params.slots[i].fingerprint == play.prints[i]}
    assert_of_today(play, seen)
    assert len(seen) == 2 or steps >= 30


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("task", [Task.SURVEY, Task.SOLVE, Task.VERIFY])
def test_a_change_is_seen_at_every_question(rule: Consensus, task: Task) -> None:
    play = Changing(rule=rule).steps(3 if task is Task.SURVEY else 0)
    chunk = play.ask_for(None, task).chunk
    play.core.params.slots[chunk].fingerprint = play.prints[chunk]  # of a survey that was too late, say
    play.change(chunk)
    assert play.deliver(play.solve(play.ask_for(chunk, task))) is Outcome.OTHER_DATA
    assert play.core.state == "surveying"
    slot = play.core.params.slots[chunk]
    assert (slot.survey, slot.fields, slot.edition, slot.fingerprint) == (None, None, 1, play.prints[chunk])
    assert_of_today(play, {chunk})
    assert play.core.record.refused["other data"] == 1


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_change_in_the_rounds_of_a_null_model(rule: Consensus) -> None:
    offset = 0.3 * X[:, 3]
    play = Changing(rule=rule, offset=offset)
    work = play.ask_for(2, Task.NULL)
    play.change(2, X[ROWS[2]])
    play.data[2] = play.problem.prepare(X[ROWS[2]], NEW_Y[2], None, offset[ROWS[2]])
    assert play.deliver(play.solve(work)) is Outcome.OTHER_DATA
    result = play.finish()
    y = YES.copy()
    y[ROWS[2]] = NEW_Y[2]
    fresh = Play(rule=rule, offset=offset, y=y)
    assert abs(fresh.finish().objective - result.objective) <= 2e-9 * play.core.stopping.scale
    assert fresh.core.stopping.scale == pytest.approx(play.core.stopping.scale, rel=1e-12)


def test_a_change_while_standard_errors_are_made() -> None:
    """Asked for the data as they are, the fit is not content with what it certified."""
    play = Changing(penalty=ps.NoPenalty(), inference=True)
    work = play.ask_for(2, Task.INFER)
    play.change(2)
    assert play.deliver(play.solve(work)) is Outcome.OTHER_DATA
    result = play.finish()
    assert (result.converged, result.no_inference) == (True, "")
    values = np.vstack([NEW[i] if i == 2 else X[ROWS[i]] for i in range(FIRST)])
    y = np.concatenate([NEW_Y[i] if i == 2 else YES[ROWS[i]] for i in range(FIRST)])
    fresh = ps.simulate(ps.Logistic(), values, y, chunks=6, tol=1e-9, inference=True).result
    np.testing.assert_allclose(result.summary().std_err, fresh.summary().std_err, rtol=1e-5)


def test_the_null_model_and_the_scale_are_of_today() -> None:
    play = Changing(ps.LeastSquares(), y=REAL)
    play.finish()
    scale = play.core.stopping.scale
    play.change(3)
    play.core.update(ps.L1(3.1), None, {}, play.now)
    play.core.update(PENALTY, None, {}, play.now)
    assert_of_today(play, {3})
    assert play.core.stopping.scale != scale


def test_what_is_under_way_for_the_old_data_changes_nothing() -> None:
    """A step, an answer and a survey of those that hold a copy; by number, by edition, whatever their order."""
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 2)
    late = play.solve_old(play.ask_for(2))
    also = play.solve_old(play.ask_for(2)._replace(seq=late.seq + 1))  # in turn after the change
    play.change(2)
    assert play.deliver(play.solve(play.ask_for(2))) is Outcome.OTHER_DATA
    for push in (late, also, late._replace(fingerprint=None)):
        before = play.core.params.slots[2]
        assert play.deliver(push) in (Outcome.LATE, Outcome.OTHER_DATA)
        assert play.core.params.slots[2] is before
        assert (before.edition, before.fields, before.survey) == (1, None, None)
    survey = play.ask_for(2)
    assert survey.edition == 1
    stale = play.solve_old(survey)._replace(edition=0)  # whoever surveyed it before, and was slow
    assert play.deliver(stale) is Outcome.OTHER_DATA
    assert play.core.params.slots[2].survey is None
    assert play.deliver(play.solve(survey)) is Outcome.ACCEPTED
    assert_of_today(play, {2})
    assert play.core.params.slots[2].edition == 1


def test_two_workers_that_differ_do_not_go_on_for_ever() -> None:
    """Both say that theirs are the data as they are now."""
    play = Changing().until(lambda core: core.state == "running")
    times = 0
    for _ in range(2000):
        work = play.ask()
        if not isinstance(work, Assignment):
            play.step()
            continue
        if work.chunk == 2:
            times += 1
            play.change(2, y=NEW_Y[2] if times % 2 else play.y[ROWS[2]])
        play.deliver(play.solve(work))
        play.refresh()
        if play.core.over:
            break
    assert isinstance(play.core.error, ChunkChanged)
    assert "other values than before, now 51 times" in str(play.core.error)


def test_what_is_pushed_again_to_another_server_must_be_of_its_data() -> None:
    """Before the change, or after one that this server has not heard of."""
    play = Changing(tol=1e-12).until(lambda core: core.state == "running").steps(3)
    before = checkpoint.dump(play.core, play.now, anchor=True)
    old = play.solve(play.ask_for(2, Task.SOLVE)._replace(whole=True))
    play.change(2)
    play.deliver(play.solve(play.ask_for(2)))
    play.until(lambda core: core.state == "running")
    new = play.solve(play.ask_for(2, Task.SOLVE)._replace(whole=True))
    after = checkpoint.dump(play.core, play.now, anchor=True)
    for state, wrong, right in ((before, new, old), (after, old, new)):
        core = checkpoint.load(state, play.core.spec, 2, play.now)
        assert core.replay(wrong, play.now) is Outcome.OTHER_DATA
        assert core.params.slots[2].fields is None
        assert core.replay(right, play.now) is Outcome.ACCEPTED
        again = Changing()
        again.core, again.now = core, play.now
        again.change(2)
        core.dispatch.holds("w", range(100))
        assert_of_today(again, {2})


@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 5, 30])
def test_a_change_survives_the_server(steps: int, anchor: bool) -> None:
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 3)
    play.change(2)
    play.deliver(play.solve(play.ask_for(2)))
    play.steps(steps)
    state = checkpoint.dump(play.core, play.now, anchor=anchor)
    play.core = checkpoint.load(state, play.core.spec, 2, play.now)
    play.core.dispatch.holds("w", range(100))
    assert play.core.params.slots[2].edition == 1
    assert_of_today(play, {2})


@pytest.mark.parametrize("bad", ["columns", "class", "nan", "empty"])
def test_new_values_that_do_not_fit(bad: str) -> None:
    """What was, is no more: there is no going back, and the run says why."""
    labels = {"y": np.arange(N) % 3.0, "tol": 1e-6} if bad == "class" else {}
    play = Changing(ps.Multinomial() if bad == "class" else ps.Logistic(), **labels)
    play.until(lambda core: core.state == "running").steps(FIRST)
    work = play.ask_for(2)
    values, y = X[ROWS[2]] + 0.25, play.y[ROWS[2]]
    if bad == "nan":
        play.deliver(Failure(2, BadData("chunk 2: nan in row 3, column 1")))
        assert isinstance(play.core.error, BadData)
        return
    if bad == "columns":
        play.change(2, values[:, :3], y)
    elif bad == "class":
        play.change(2, values, np.arange(len(y)) % 4.0)
    else:
        play.change(2, np.empty((0, D)), np.empty(0))
    push = play.solve(work)
    assert isinstance(push, Push if bad == "empty" else Failure)
    assert play.deliver(push) is Outcome.OTHER_DATA
    if bad == "empty":
        result = play.finish()
        assert (result.n_rows, result.converged) == (500, True)
        return
    play.until(lambda core: core.over)
    assert isinstance(play.core.error, ChunkChanged)
    words = {"columns": "it has 3 columns where the run has 4", "class": "a new class?"}
    assert str(play.core.error).startswith("chunk 2 was computed again, and its new values cannot be used: ")
    assert words[bad] in str(play.core.error)


def test_many_that_changed_are_found_at_once() -> None:
    """Whoever died had more than one: one roll is called, and there is one verification."""
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 2)
    for i in range(FIRST):
        play.change(i)
    play.until(lambda core: core.state == "surveying").until(lambda core: core.state != "surveying")
    assert [slot.edition for slot in play.core.params.slots] == [1] * FIRST
    assert play.core.record.refused["other data"] == FIRST
    assert_of_today(play, set(range(FIRST)))


@pytest.mark.parametrize("ends", [False, True])
def test_the_roll_is_not_waited_for_for_ever(ends: bool) -> None:
    """Chunks that are computed again for long: the run goes on with those that answered."""
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 2)
    play.change(2)
    play.deliver(play.solve(play.ask_for(2)))
    assert play.core.verifier.gather.pending == set(range(FIRST))
    play.core.dispatch.holds("w", [2])
    play.steps(5)
    assert play.core.verifier.gather.pending == {0, 1, 3, 4, 5}
    if ends:
        play.core.end("max_seconds", play.now)
    play.now += 100.0
    play.steps(2)
    assert play.core.state == ("finished" if ends else "verifying")
    play.core.dispatch.holds("w", range(100))
    if not ends:
        assert_of_today(play, {2})


def test_an_end_does_not_wait_for_new_values_for_ever() -> None:
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 2)
    play.change(2)
    play.deliver(play.solve(play.ask_for(2)))
    play.core.dispatch.holds("w", [])
    play.now += 100.0
    play.steps(2)
    assert (play.core.state, play.core.verifier.gather.pending) == ("surveying", {2})
    play.core.end("max_seconds", play.now)
    play.now += 100.0
    play.steps(2)
    assert (play.core.state, play.core.reason) == ("finished", "max_seconds")
    assert reading.result(play.core).converged is False


def test_the_only_chunk_changes() -> None:
    play = Changing(chunks=[0]).until(lambda core: core.state == "running").steps(1)
    play.change(0)
    play.deliver(play.solve(play.ask()))
    result = play.finish()
    best = reference(play.problem, NEW[0], NEW_Y[0], PENALTY)
    assert -1e-14 <= best.gap(result.z) <= result.gap + 1e-13 <= 1e-8


def test_one_chunk_changes_and_the_other_is_lost() -> None:
    play = Changing(chunks=[0, 1], on_chunk_loss="drop").until(lambda core: core.state == "running").steps(3)
    play.change(0)
    play.deliver(play.solve(play.ask_for(0)))
    assert play.core.params.slots[0].unread
    assert play.core.lost(lost(1), play.now) == ""
    result = play.finish()
    best = reference(play.problem, NEW[0], NEW_Y[0], PENALTY)
    assert -1e-14 <= best.gap(result.z) <= result.gap + 1e-13 <= 1e-8
    assert result.left_out == {1: 100}


def test_a_newcomer_that_changes_while_it_is_read_stays_one() -> None:
    play = Changing()
    play.finish()
    play.add(6)
    play.prints.append(fingerprint((X[ROWS[6]], play.y[ROWS[6]])))
    play.core.params.slots[6].fingerprint = play.prints[6]
    play.change(6)
    play.deliver(play.solve(play.ask()))
    assert play.core.census.newcomers == {6}
    assert play.finish().n_rows == 700


@pytest.mark.parametrize("answered", [True, False])
def test_a_change_while_the_run_ends(answered: bool) -> None:
    """The last certificate is of today's data; where those are not to be had there is none, and no waiting."""
    play = Changing().until(lambda core: core.state == "running").steps(FIRST + 2)
    play.core.end("max_seconds", play.now)
    play.change(2)
    work = play.ask_for(2)
    assert work.task is Task.VERIFY
    play.deliver(play.solve(work))
    assert play.core.state == "surveying"
    if answered:
        result = play.finish()
        assert (result.reason, result.certificate) == ("max_seconds", "duality gap")
        assert changed_optimum(play, {2}).gap(result.z) <= result.gap + 1e-13
    else:
        for _ in range(200):
            play.now += 10.0
            play.core.tick(play.now)
            play.refresh()
        assert play.core.over
        result = reading.result(play.core)
        assert (result.reason, result.converged, result.certificate) == ("max_seconds", False, "estimate")


@pytest.mark.parametrize("option", ["on_chunk_loss", "on_chunk_change"])
def test_options_are_checked(option: str) -> None:
    words = {"on_chunk_loss": "'fail' or 'drop'", "on_chunk_change": "'fail' or 'reset'"}
    with pytest.raises(InvalidInput, match=f"{option} must be {words[option]}, got 'ignore'"):
        Play(**{option: "ignore"})


def test_nothing_is_reset_unasked() -> None:
    play = Changing(on_chunk_change="fail").until(lambda core: core.state == "running").steps(FIRST)
    play.change(2)
    play.deliver(play.solve(play.ask_for(2)))
    assert isinstance(play.core.error, ChunkChanged)
    assert 'on_chunk_change="reset"' in str(play.core.error)
