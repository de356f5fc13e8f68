"""The server state machine under a hostile network: no Dask, no clock, pushes straight into the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paramserver.consensus import ADMM, AggregatedNewton
from paramserver.errors import BadData, ChunkChanged, InvalidInput, RunFailed, StepFailed
from paramserver.messages import Assignment, Failure, Outcome, Push, Stop, Task, Version, Wait
from paramserver.penalties import L1, L2, NoPenalty
from paramserver.server import hessians, reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers import solvers, tasks
from paramserver.workers.problems import LeastSquares, Logistic
from paramserver.workers.tasks import answer

CHUNKS = 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4))
Y = (RNG.random(200) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0]) + 0.5))).astype(float)
PROBLEM = Logistic()
DATA = [PROBLEM.prepare(X[rows], Y[rows]) for rows in np.array_split(np.arange(200), CHUNKS)]


def F(z, alpha=1.0):
    m = X @ z[:-1] + z[-1]
    return float((np.logaddexp(0, m) - Y * m).sum() + alpha / 2 * z[:-1] @ z[:-1])


def optimum(alpha=1.0):
    """Newton's method on the whole, by hand."""
    z, ones = np.zeros(5), np.column_stack([X, np.ones(200)])
    ridge = np.diag([alpha] * 4 + [0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-ones @ z))
        z = z - np.linalg.solve(ones.T @ (ones * (p * (1 - p))[:, None]) + ridge, ones.T @ (p - Y) + ridge @ z)
    return z


SCALE = F(np.array([0, 0, 0, 0, np.log(Y.mean() / (1 - Y.mean()))]))


class Play:
    """Two honest runners that hold every chunk, a clock, and a memory of what was sent."""

    def __init__(self, rule=None, problem=PROBLEM, data=None, penalty=None, tol=1e-8, **spec) -> None:
        self.data = DATA if data is None else data
        rule, penalty = rule or AggregatedNewton(), penalty or L2(1.0)
        self.core = Core(RunSpec(problem, penalty, rule, len(self.data), tol=tol, **spec), 3, 0.0)
        self.now = 0.0
        self.mute: set[int] = set()  # chunks that nobody answers for
        self.sent: list[Push] = []
        self.pulled: list[tuple[np.ndarray, np.ndarray]] = []
        for worker in ("a", "b"):
            self.core.dispatch.holds(worker, range(len(self.data)))

    def ask(self, runner="a#0"):
        reply = self.core.assign(runner, None, self.now)
        if isinstance(reply, Assignment) and reply.z is not None:
            self.pulled.append((reply.z, reply.z.copy()))
        return reply

    def solve(self, work: Assignment) -> Push:
        payload = answer(self.core.params.rule, self.core.params.problem, self.data[work.chunk], work, work.z)
        base = None if work.whole else work.seq - 1
        trouble = "too_far" if payload is None else None
        push = Push(work.chunk, work.seq, work.task, work.version, payload or {}, base, 1.0, trouble=trouble)
        self.sent.append(push)
        return push

    def deliver(self, push) -> Outcome:
        self.now += 1.0
        outcome = self.core.deliver(push, self.now)
        while self.core.due:
            self.core.refresh(self.now)
        return outcome

    def step(self, runner="a#0"):
        """One honest exchange."""
        reply = self.ask(runner)
        if isinstance(reply, Assignment) and reply.chunk not in self.mute:
            self.deliver(self.solve(reply))
        else:
            self.now += 1.0
        self.core.tick(self.now)
        while self.core.due:
            self.core.refresh(self.now)
        return reply

    def until(self, done, limit=400):
        for _ in range(limit):
            if done(self.core):
                return self
            self.step()
        raise AssertionError(f"not there after {limit} exchanges: {self.core.state}, {self.core.params.version}")

    def running(self):
        """Past the survey and the first sweep."""
        return self.until(lambda core: core.state == "running" and all(s.fields for s in core.params.slots))

    def finish(self):
        self.until(lambda core: core.over)
        assert self.core.error is None, self.core.error
        return reading.result(self.core)

    def status(self):
        return reading.status(self.core, self.now, {}, "")

    def snapshot(self):
        """All that a refused push must leave as it was."""
        params, gather = self.core.params, self.core.verifier.gather
        state = {k: np.array(v) for k, v in vars(params.state).items()} if params.state is not None else {}
        return (
            self.core.state,
            params.version,
            params.z if params.z is None else params.z.tobytes(),
            [(s.seq, s.version, s.pushes, id(s.fields)) for s in params.slots],
            {k: v.tobytes() for k, v in state.items() if v.dtype != object},
            sorted(params.fresh),
            None if gather is None else (gather.task, sorted(gather.pending)),
        )


def assert_optimal(result, tol=1e-8, alpha=1.0):
    assert result.reason == "converged"
    assert result.converged
    assert result.certificate == "duality gap"
    true = (F(result.z, alpha) - F(optimum(alpha), alpha)) / SCALE
    assert true <= result.gap + 1e-14 <= tol + 2e-14


# -- a hostile network ----------------------------------------------------------------------------

RULES = [
    (AggregatedNewton(), 1e-8),
    (AggregatedNewton(min_fresh=3), 1e-8),
    (AggregatedNewton(min_fresh=CHUNKS, max_staleness=2), 1e-8),
    (ADMM(), 1e-6),
    (ADMM(metric="diagonal", min_fresh=2, max_staleness=5), 1e-6),
]
DEEDS = ["honest", "hold", "release", "replay", "double", "drop", "no base", "stale epoch", "shape", "dtype", "missing",
         "extra", "nan", "inf", "unknown chunk", "busy", "death"]  # fmt: skip


def spoiled(push: Push, how: str) -> Push:
    """The same push, gone wrong on the way."""
    name, value = next(iter(push.payload.items())) if push.payload else ("x", np.zeros(5))
    if how == "stale epoch":
        return push._replace(version=Version(push.version.epoch - 1, push.version.n))
    if how == "unknown chunk":
        return push._replace(chunk=CHUNKS + 3)
    if how == "no base":
        payload = {k: v for k, v in push.payload.items() if k not in ("H", "M")}
        return push._replace(payload=payload, base=push.seq - 7)
    payload = dict(push.payload)
    if how == "shape":
        payload[name] = np.zeros(17)
    elif how == "dtype":
        payload[name] = np.asarray(value).astype(np.float32)
    elif how == "missing":
        del payload[name]
    elif how == "extra":
        payload["surprise"] = np.zeros(3)
    else:
        payload[name] = np.full_like(np.asarray(value), np.nan if how == "nan" else np.inf)
    return push._replace(payload=payload)


REFUSALS = {
    "stale epoch": {Outcome.STALE_EPOCH},
    "unknown chunk": {Outcome.UNKNOWN_CHUNK},
    "no base": {Outcome.NO_BASE, Outcome.SHAPE, Outcome.LATE},
    "dtype": {Outcome.SHAPE, Outcome.LATE},
    "missing": {Outcome.SHAPE, Outcome.LATE, Outcome.NO_BASE},
    "extra": {Outcome.SHAPE, Outcome.LATE},
    "shape": {Outcome.SHAPE, Outcome.LATE},
    "nan": {Outcome.NOT_FINITE, Outcome.LATE},
    "inf": {Outcome.NOT_FINITE, Outcome.LATE},
}


@pytest.mark.parametrize(("rule", "tol"), RULES, ids=lambda v: repr(v)[:60] if not isinstance(v, float) else "")
@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(deeds=st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 1000)), max_size=80))
def test_a_hostile_network_ends_at_the_same_certified_optimum(rule, tol, deeds):
    play = Play(rule, tol=tol)
    bag: list[Push] = []
    in_a_row: dict[int, int] = {}
    refused = 0
    for deed, draw in deeds:
        if play.core.over:
            break
        if deed == "death":
            play.core.dispatch.gone("ab"[draw % 2])
            play.core.dispatch.holds("ab"[draw % 2], range(CHUNKS))
            continue
        if deed in ("replay", "release"):
            pool = play.sent if deed == "replay" else bag
            if pool:
                push = pool.pop(draw % len(pool)) if deed == "release" else pool[draw % len(pool)]
                before, in_turn = play.snapshot(), push.seq == play.core.params.slots[push.chunk].seq + 1
                outcome = play.deliver(push)
                if outcome not in (Outcome.ACCEPTED, Outcome.TOO_FAR):
                    refused += 1
                    assert play.snapshot() == before
                elif push.task is Task.SOLVE:
                    assert in_turn
            continue
        reply = play.ask(f"{'ab'[draw % 2]}#{draw % 3}")
        if not isinstance(reply, Assignment):
            play.step()
            continue
        push = play.solve(reply)
        if deed == "drop":
            continue
        if deed == "hold":
            bag.append(push)
        elif deed in ("honest", "double"):
            for _ in range(1 + (deed == "double")):
                refused += play.deliver(push) not in (Outcome.ACCEPTED, Outcome.TOO_FAR)
            in_a_row.pop(push.chunk, None)
        elif deed == "busy":
            before = play.snapshot()
            assert play.deliver(push._replace(trouble="busy")) is Outcome.LATE
            assert play.snapshot() == before
        elif in_a_row.get(push.chunk, 0) < 3 and not (push.task is Task.SURVEY and deed in ("shape", "no base")):
            in_a_row[push.chunk] = in_a_row.get(push.chunk, 0) + 1
            before, counted = play.snapshot(), dict(play.core.record.refused)
            outcome = play.deliver(spoiled(push, deed))
            assert outcome in REFUSALS[deed]
            assert play.snapshot() == before
            assert play.core.record.refused[outcome.value] == counted.get(outcome.value, 0) + 1
            refused += 1
    assert sum(play.core.record.refused.values()) == refused
    for _ in range(60):  # leases of dropped assignments run out
        play.now += 20.0
        play.step("b#0")
    assert_optimal(play.finish(), tol)
    for z, copy in play.pulled:
        assert not z.flags.writeable
        assert z.tobytes() == copy.tobytes()


# -- who is first, and what is refused -------------------------------------------------------------


def test_first_valid_push_with_a_sequence_number_wins():
    play = Play().running()
    work = play.ask("a#0")
    assert work.task is Task.SOLVE
    first = play.solve(work)
    other = first._replace(payload={**first.payload, "f": np.float64(first.payload["f"] + 0.5)})
    bad = first._replace(payload={**first.payload, "g": np.full(5, np.nan)})
    before = play.snapshot()
    assert play.deliver(bad) is Outcome.NOT_FINITE  # not valid: the sequence number is still to be had
    assert play.snapshot() == before
    assert play.deliver(first) is Outcome.ACCEPTED
    before = play.snapshot()
    assert play.deliver(other) is Outcome.LATE
    assert play.deliver(first) is Outcome.LATE
    assert play.snapshot() == before
    assert play.core.params.slots[work.chunk].fields["f"] == first.payload["f"]
    assert play.core.record.refused == {"late": 2, "not finite": 1}


def test_a_push_of_the_future_is_late_too():
    play = Play().running()
    push = play.solve(play.ask())
    assert play.deliver(push._replace(seq=push.seq + 1)) is Outcome.LATE
    assert play.deliver(push) is Outcome.ACCEPTED


def test_delta_without_its_base_is_answered_send_whole():
    play = Play().running()
    work = play.ask()
    push = play.solve(work)
    delta = push._replace(payload={k: v for k, v in push.payload.items() if k != "H"}, base=push.seq - 2)
    assert play.deliver(delta) is Outcome.NO_BASE
    again = next(reply for reply in (play.ask(f"a#{k}") for k in range(CHUNKS)) if reply.chunk == work.chunk)
    assert again.whole
    assert again.seq == work.seq
    assert "H" in play.solve(again).payload
    assert play.deliver(play.sent[-1]) is Outcome.ACCEPTED
    fields = play.core.params.slots[work.chunk].fields
    np.testing.assert_array_equal(fields["hessian_at"], fields["x"])


@pytest.mark.parametrize(("how", "outcomes"), REFUSALS.items())
def test_every_refusal_is_named_and_counted(how, outcomes):
    play = Play().running()
    push, before = play.solve(play.ask()), play.snapshot()
    outcome = play.deliver(spoiled(push, how))
    assert outcome in outcomes - {Outcome.LATE}
    assert play.snapshot() == before
    assert play.status().refused == {outcome.value: 1}


def test_five_unusable_answers_in_a_row_end_the_run():
    play = Play().running()
    push = play.solve(play.ask())
    for _ in range(5):
        play.deliver(spoiled(push, "nan"))
    assert play.core.state == "failed"
    assert isinstance(play.core.error, StepFailed)
    assert f"chunk {push.chunk}" in str(play.core.error)
    assert isinstance(play.ask(), Stop)


def test_a_push_after_the_end_changes_nothing():
    play = Play()
    play.finish()
    before = play.snapshot()
    assert play.deliver(play.sent[-1]) is Outcome.LATE
    assert play.snapshot() == before
    assert isinstance(play.ask(), Stop)


def test_a_failure_ends_the_run():
    play = Play().running()
    play.deliver(Failure(2, BadData("chunk 2: X is nan in row 7")))
    assert (play.core.state, play.core.reason) == ("failed", "chunk 2: X is nan in row 7")


def test_recomputed_data_must_be_the_same():
    play = Play().running()
    for fingerprint, ended in (((1.0, 2.0), False), ((1.0, 2.0 * (1 + 1e-12)), False), ((1.0, 2.1), True)):
        for _ in range(CHUNKS):
            work = next(r for r in (play.ask(f"a#{k}") for k in range(CHUNKS)) if isinstance(r, Assignment))
            play.deliver(play.solve(work)._replace(fingerprint=fingerprint))
            if play.core.over:
                break
        assert (play.core.state == "failed") is ended
    assert isinstance(play.core.error, ChunkChanged)


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_fresh", [1, 2, CHUNKS, CHUNKS + 7])
def test_min_fresh_counts_distinct_chunks(min_fresh):
    play = Play(AggregatedNewton(min_fresh=min_fresh)).running().until(lambda core: not core.params.fresh)
    need = min(min_fresh, CHUNKS)
    for _ in range(3):
        version, seen = play.core.params.version, set()
        while play.core.params.version == version:
            assert len(seen) < need
            reply = play.step()
            assert reply.chunk not in seen  # its answer would be to the same question
            seen.add(reply.chunk)
        assert len(seen) == need
        if play.core.state != "running":
            break


def test_under_a_full_barrier_any_order_gives_the_same_z():
    ends = []
    for order in (range(CHUNKS), reversed(range(CHUNKS)), [2, 0, 4, 1, 3]):
        play = Play(AggregatedNewton(min_fresh=CHUNKS))
        play.until(lambda core: core.state == "running")
        work = {w.chunk: w for w in (play.ask(f"a#{k}") for k in range(CHUNKS))}
        pushes = {chunk: play.solve(w) for chunk, w in work.items()}
        for chunk in order:
            play.deliver(pushes[chunk])
        assert play.core.params.version.n == 1
        ends.append(play.core.params.z)
    for z in ends[1:]:
        np.testing.assert_allclose(z, ends[0], rtol=1e-11)


def test_rejections_count_as_reports():
    """A step that was too far does not block the barrier: the model stiffens, and z is made anew."""
    play = Play(AggregatedNewton(min_fresh=CHUNKS)).running()
    version = play.core.params.version
    for k in range(CHUNKS):
        work = play.ask(f"a#{k}")
        assert play.deliver(Push(*work[:4], {}, None, 1.0, trouble="too_far")) is Outcome.TOO_FAR
    assert play.core.params.version == version._replace(n=version.n + 1)
    assert all(slot.fields["sigma"] == 4.0 for slot in play.core.params.slots)
    assert play.core.record.refused == {}
    assert_optimal(play.finish())


def test_too_far_at_the_very_first_step_is_asked_again():
    play = Play().until(lambda core: core.state == "running")
    work = play.ask()
    play.deliver(Push(*work[:4], {}, None, 1.0, trouble="too_far"))
    assert play.core.params.slots[work.chunk].fields is None
    assert_optimal(play.finish())


def test_max_staleness_holds_z_still_and_names_the_chunk():
    play = Play(AggregatedNewton(max_staleness=3)).running()
    play.mute = {4}
    at = play.core.params.slots[4].version.n
    for _ in range(60):
        play.step()
    version = play.core.params.version
    assert version.n - at == 3
    assert any("[4]" in note for note in play.status().notes)
    for _ in range(20):
        play.step()
    assert play.core.params.version == version
    play.mute = set()
    for _ in range(10):  # its lease runs out
        play.now += 60.0
        play.step("b#1")
    assert play.core.params.version.n > version.n
    assert_optimal(play.finish())


def test_without_max_staleness_versions_go_on():
    play = Play(tol=1e-300).running()
    play.mute = {4}
    version = play.core.params.version
    for _ in range(40):
        play.step()
    assert play.core.params.version.n > version.n + 5


def test_what_was_pulled_never_changes():
    play = Play(max_pushes=40, tol=1e-15)
    play.finish()
    assert len({z.tobytes() for z, _ in play.pulled}) > 5
    for z, copy in play.pulled:
        assert z.tobytes() == copy.tobytes()
        with pytest.raises(ValueError, match="read-only"):
            z[0] = 1.0


def test_runner_that_holds_this_version_is_not_sent_it_again():
    play = Play().running()
    version = play.core.params.version
    assert play.core.assign("a#0", version, play.now).z is None
    stale = version._replace(n=version.n - 1)
    assert play.core.assign("a#1", stale, play.now).z is play.core.params.z


# -- verification ----------------------------------------------------------------------------------


def test_a_verification_that_a_chunk_never_answers_thaws_and_names_it():
    play = Play(silence=100.0)
    play.until(lambda core: core.state == "verifying")
    play.mute = {2}
    version = play.core.params.version
    play.until(lambda core: core.verifier.gather is not None and core.verifier.gather.pending == {2})
    play.now += 99.0
    play.core.tick(play.now - 50)
    assert play.core.state == "verifying"
    assert play.core.params.version == version
    play.now += 2.0
    play.core.tick(play.now)
    assert play.core.state == "running"
    assert any("[2]" in note for note in play.status().notes)
    play.mute = set()
    play.now += 1e3
    assert_optimal(play.finish())


def test_other_pushes_are_absorbed_while_z_stands_still():
    play = Play(patience=100.0).running()  # a long lease
    slow = play.ask("b#0")
    push = play.solve(slow)
    play.until(lambda core: core.state == "verifying")
    z, version = play.core.params.z, play.core.params.version
    assert play.deliver(push) is Outcome.ACCEPTED
    assert play.core.params.z is z
    assert play.core.params.version == version
    assert play.core.params.slots[slow.chunk].seq == slow.seq
    assert_optimal(play.finish())


def test_each_chunk_answers_a_verification_once():
    play = Play().until(lambda core: core.state == "verifying")
    push = play.solve(play.ask())
    assert play.deliver(push) is Outcome.ACCEPTED
    before = play.snapshot()
    assert play.deliver(push) is Outcome.LATE
    assert play.deliver(push._replace(payload={**push.payload, "f": np.float64(0.0)})) is Outcome.LATE
    assert play.snapshot() == before
    assert_optimal(play.finish())


def test_least_squares_makes_each_hessian_once():
    problem = LeastSquares()
    data = [problem.prepare(X[rows], X[rows, 0] + 3.0) for rows in np.array_split(np.arange(200), CHUNKS)]
    play = Play(AggregatedNewton(min_fresh=CHUNKS), problem, data, NoPenalty())
    result = play.finish()
    assert result.gap <= 1e-8
    assert set(result.pushes_per_chunk.values()) == {3}
    assert sum("H" in push.payload for push in play.sent) == CHUNKS


def test_empty_chunks_are_skipped_and_shown():
    data = [*DATA, PROBLEM.prepare(X[:0], Y[:0])]
    play = Play(data=data)
    assert_optimal(play.finish())
    assert play.status().empty_chunks == (CHUNKS,)
    with_nothing = Play(data=[PROBLEM.prepare(X[:0], Y[:0])])
    with_nothing.until(lambda core: core.over)
    assert isinstance(with_nothing.core.error, BadData)


# -- a live run changes ----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [AggregatedNewton(), ADMM(), ADMM(metric="identity", rho=10.0)], ids=repr)
def test_new_penalty_on_a_live_run(rule):
    play = Play(rule, tol=1e-6).running()
    version = play.core.update(L2(30.0), 1e-7, {}, play.now)
    assert version.n == play.core.params.version.n + 1
    while play.core.due:
        play.core.refresh(play.now)
    assert play.core.params.version == version
    result = play.finish()
    assert result.penalty == "L2(alpha=30.0)"
    assert_optimal(result, 1e-7, alpha=30.0)


@pytest.mark.parametrize("rho", [0.05, 3.0])
@pytest.mark.parametrize("metric", ["hessian", "diagonal"])
def test_new_rho_on_a_live_run_keeps_the_duals(metric, rho):
    play = Play(ADMM(metric=metric), tol=1e-6).running()
    for _ in range(15):
        play.step()
    before = [v.value for v in reading.values(play.core, "dual", None)]
    scaled = [s.fields["w"] - play.core.params.z for s in play.core.params.slots]
    play.core.update(None, None, {"rho": rho}, play.now)
    for slot, was in zip(play.core.params.slots, scaled, strict=True):
        np.testing.assert_allclose(rho * (slot.fields["w"] - play.core.params.z), 0.3 * was, rtol=1e-12)
    after = [v.value for v in reading.values(play.core, "dual", None)]
    np.testing.assert_allclose(after, before)
    assert_optimal(play.finish(), 1e-6)
    assert "rho=" + repr(rho) in repr(play.core.params.rule)


def test_kept_run_stays_converged_then_takes_up_again():
    play = Play(keep=True, tol=1e-6).until(lambda core: core.over)
    assert (play.core.state, play.core.reason) == ("converged", "converged")
    assert isinstance(play.ask(), Wait)
    z, version = play.core.params.z, play.core.params.version
    for _ in range(5):
        play.step()
    assert play.core.params.z is z
    first = play.core.update(L2(0.1), 1e-9, {}, play.now)
    assert first.n == version.n + 1
    play.until(lambda core: core.state == "converged")
    assert_optimal(reading.result(play.core), 1e-9, alpha=0.1)
    play.core.end("stopped", play.now)
    assert play.core.state == "finished"
    assert isinstance(play.ask(), Stop)
    assert reading.result(play.core).converged  # it was, and stays so
    with pytest.raises(InvalidInput, match="has ended"):
        play.core.update(L2(0.2), None, {}, play.now)


def test_tighter_tol_on_a_kept_run():
    play = Play(keep=True, tol=1e-3).until(lambda core: core.over)
    assert play.core.verifier.verified.gap > 1e-10
    play.core.update(None, 1e-10, {}, play.now)
    play.until(lambda core: core.over)
    assert_optimal(reading.result(play.core), 1e-10)


def test_update_refuses_what_it_does_not_know():
    play = Play()
    with pytest.raises(InvalidInput, match="not read its data"):
        play.core.update(L2(2.0), None, {}, 0.0)
    play.running()
    with pytest.raises(InvalidInput, match="no setting 'speed'"):
        play.core.update(None, None, {"speed": 2}, play.now)
    with pytest.raises(InvalidInput, match="min_fresh"):
        play.core.update(None, None, {"min_fresh": 0}, play.now)
    assert_optimal(play.finish())


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"max_pushes": 11}, "max_pushes"), ({"max_seconds": 11.0}, "max_seconds")],
    ids=["pushes", "seconds"],
)
def test_limits_end_with_a_certificate(spec, reason):
    play = Play(tol=1e-300, **spec)
    result = play.finish()
    assert (result.reason, result.converged) == (reason, False)
    assert result.certificate == "duality gap"
    assert result.gap_absolute >= F(result.z) - F(optimum())
    assert 13 <= result.n_pushes <= 13 + 3 * CHUNKS


@pytest.mark.parametrize("verify", [True, False])
def test_stop(verify):
    play = Play(tol=1e-300).running()
    play.step()
    play.core.end("stopped", play.now, verify=verify)
    assert play.core.over is not verify
    result = play.finish()
    assert result.reason == "stopped"
    assert result.certificate == ("duality gap" if verify else "estimate")
    assert result.objective == pytest.approx(F(result.z), rel=1e-9 if verify else 0.2)


def test_stop_before_there_is_a_z():
    play = Play()
    play.core.end("stopped", 0.0)
    assert (play.core.state, reading.result(play.core)) == ("finished", None)


def test_a_last_verification_nobody_answers_ends_all_the_same():
    play = Play(silence=50.0, tol=1e-14).running()
    play.mute = set(range(CHUNKS))
    play.core.end("max_seconds", play.now)
    play.now += 1e3
    play.core.tick(play.now)
    assert (play.core.state, play.core.reason) == ("finished", "max_seconds")


def test_a_gap_that_passes_while_ending_is_converged():
    play = Play(tol=1e-3).until(lambda core: core.state == "verifying")
    play.core.end("stopped", play.now)
    assert play.finish().reason in ("converged", "stopped")


@pytest.mark.parametrize("penalty", [L1(4.0), L2(1.0), NoPenalty()], ids=repr)
def test_from_another_start(penalty):
    far = Play(penalty=penalty, z0=np.array([2.0, 2.0, -2.0, 1.0, 0.0])).finish()
    near = Play(penalty=penalty).finish()
    assert far.gap <= 1e-8
    np.testing.assert_allclose(far.z, near.z, atol=2e-3)
    wrong = Play(z0=np.zeros(3))
    wrong.until(lambda core: core.over)
    assert isinstance(wrong.core.error, RunFailed)
    assert "z0 has shape (3,)" in wrong.core.reason


def test_staleness_counts_versions_and_time():
    play = Play(patience=100.0).running()  # a long lease
    work = play.ask("b#0")
    push = play.solve(work)
    began, made = play.now, play.core.params.version.n
    for _ in range(4):
        play.step()
    seen = play.core.record.staleness().versions_p99
    play.deliver(push)
    assert play.core.record._recent[-1] == (play.core.params.version.n - 1 - made, (play.now - began) * 1e3)
    assert play.core.record.staleness().versions_p99 > seen


class Asks(Logistic):
    """Its Fenchel term has no bound, like Huber's: every verification asks for it, and again ahead."""

    bending = False

    def fenchel_bound(self, bend, reach):
        return None


def test_an_answer_to_an_earlier_question_is_late():
    """A doubled answer to the first CONJUGATE must not count for the second, at the same z."""
    play, first, seen = Play(problem=Asks()), [], 0
    for _ in range(300):
        reply = play.ask()
        if play.core.over:
            break
        push = play.solve(reply)
        if push.task is Task.CONJUGATE and "move" not in reply.fields:
            first.append(push)
        elif push.task is Task.CONJUGATE:
            for old in first:
                before = play.snapshot()
                assert play.core.deliver(old, play.now) is Outcome.LATE
                assert play.snapshot() == before
                seen += 1
            first.clear()
        play.deliver(push)
    assert seen >= CHUNKS
    assert_optimal(reading.result(play.core))


def test_a_verification_is_about_the_hessian_that_it_was_asked_about(monkeypatch):
    """A step from before the freeze may replace the chunk's Hessian while its answer is under way."""
    monkeypatch.setattr(hessians, "WORTH", 1)
    monkeypatch.setattr(solvers, "DRIFT", 10.0)  # whatever was kept will do
    monkeypatch.setattr(tasks, "VANISHING", 10.0)
    play = Play(patience=100.0, silence=1e9).running()
    work = play.ask("b#0")
    late = play.solve(work._replace(whole=True))
    play.until(lambda core: core.state == "verifying" and core.verifier.gather.pending)
    play.now += 1e4  # the lease runs out
    reply = next(reply for k in range(CHUNKS) if (reply := play.ask(f"a#{k}")).chunk == work.chunk)
    assert reply.task is Task.VERIFY
    push, slot = play.solve(reply), play.core.params.slots[work.chunk]
    before = slot.fields["H"]
    assert "H" not in push.payload
    assert play.core.deliver(late, play.now) is Outcome.ACCEPTED
    assert slot.fields["H"] is not before
    assert play.core.deliver(push, play.now) is Outcome.ACCEPTED
    assert slot.fields["H"] is before
    np.testing.assert_array_equal(slot.fields["hessian_at"], reply.fields["hessian_at"])
    np.testing.assert_array_equal(play.core.verifier.hessians.made_at[work.chunk], reply.fields["hessian_at"])
    assert_optimal(play.finish())


def test_a_doubled_answer_leaves_the_next_lease_alone():
    play = Play(ADMM(), tol=1e-300, patience=100.0).until(lambda core: core.state == "verifying")
    push = play.solve(play.ask("a#0"))
    play.deliver(push)
    while play.core.state == "verifying":
        play.step()
    taken = {}
    for k in range(CHUNKS):
        reply = play.ask(f"a#{k}")
        if isinstance(reply, Assignment):
            taken[reply.chunk] = f"a#{k}"
    assert push.chunk in taken
    assert play.deliver(push) is Outcome.LATE
    for chunk, runner in taken.items():
        assert play.core.params.slots[chunk].lease.runner == runner


def test_update_while_ending_is_refused():
    play = Play(tol=1e-300).running()
    play.core.end("stopped", play.now)
    with pytest.raises(InvalidInput, match="is ending"):
        play.core.update(L2(2.0), None, {}, play.now)
    assert play.finish().reason == "stopped"


def test_methods_are_not_settings():
    play = Play().running()
    with pytest.raises(InvalidInput, match="no setting 'absorb'"):
        play.core.update(None, None, {"absorb": 1}, play.now)
