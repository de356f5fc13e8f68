"""No message and no stored state that went wrong ends a run, or moves it: it is refused, or a clear error."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_core_protocol import CHUNKS, DATA, PROBLEM, Play

import paramserver as ps
from paramserver.consensus import Auto
from paramserver.errors import CheckpointError, ChunkChanged, InvalidInput, RunFailed
from paramserver.messages import Assignment, Failure, Outcome, Push, Task, Version
from paramserver.server import checkpoint, gate, reading, seal
from paramserver.server.core import Core
from paramserver.server.gather import HONEST
from paramserver.server.handle import SMALL, pack, unpack

# Without shrinking: an example is a whole run.
FUZZ = settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)  # fmt: skip
MORE = settings(FUZZ, max_examples=250)
TAKEN = (Outcome.ACCEPTED, Outcome.TOO_FAR)
REFUSED = (Outcome.MALFORMED, Outcome.SHAPE, Outcome.NOT_FINITE, Outcome.LATE, Outcome.NO_BASE, Outcome.STALE_EPOCH,
           Outcome.UNKNOWN_CHUNK)  # fmt: skip
PEOPLE: dict[str, dict[str, Any]] = {
    "newton": {"rule": ps.AggregatedNewton(), "penalty": ps.NoPenalty(), "inference": True},
    "newton, L1": {"rule": ps.AggregatedNewton(min_fresh=2), "penalty": ps.L1(2.0)},
    "active": {"rule": ps.ActiveNewton(), "penalty": ps.L1(2.0)},
    "lbfgs": {"rule": ps.LBFGS(), "penalty": ps.L2(1.0)},
    "admm": {"rule": ps.ADMM(), "penalty": ps.L2(1.0), "tol": 1e-6},
    "auto": {"rule": Auto(), "penalty": ps.L2(1.0)},
}  # fmt: skip
X = np.random.default_rng(1).standard_normal((200, 4))
Y = np.random.default_rng(2).integers(0, 2, 200).astype(float)
# With offsets the null model takes rounds of its own.
SHIFTED = [PROBLEM.prepare(X[k::CHUNKS], Y[k::CHUNKS], None, X[k::CHUNKS, 0]) for k in range(CHUNKS)]


def play(name: str) -> Play:
    return Play(data=SHIFTED if name == "newton" else DATA, **PEOPLE[name])


def frozen(core: Core) -> bytes:
    """Everything a push could move, but counts of what was refused, clocks, and whom to ask next."""
    params, verifier = core.params, core.verifier
    state = None if params.state is None else {k: _plain(v) for k, v in vars(params.state).items()}
    slots = [
        (s.seq, s.version, _plain(s.fields), _plain(s.survey), s.fingerprint, s.pushes, s.served, s.gone, dict(s.times))
        for s in params.slots
    ]
    gather = verifier.gather
    asked = gather and (gather.task, sorted(gather.pending), _plain(gather.total), gather.number)
    made = {chunk: at.tobytes() for chunk, at in verifier.hessians.made_at.items()}
    return pickle.dumps((
        core.state, core.reason, str(core.error), params.version, _plain(params.z), state, slots, sorted(params.fresh),
        params.reports, params.far, asked, made, verifier.hessians.borrowed, core.record.pushes, core.record.replayed,
        core.dispatch.holders, sorted(core.census.newcomers), [*core.notes],
    ))  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


# -- pushes ----------------------------------------------------------------------------------------


class Odd:
    """Of nobody's."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


NO_NUMBERS = [None, "0", b"0", [0], (0,), {}, {0}, np.array([0, 1]), Odd(), 1j, float, ..., [[1.0], [2.0, 3.0]]]
NO_COUNTS = [*NO_NUMBERS, True, False, -1, -(2**70), 2**70, 0.0, 1.0, float("nan"), np.int64(0), np.float64(1.0)]
NO_SECONDS = [*NO_NUMBERS, -1.0, -1e-300, float("nan"), float("inf"), -float("inf"), 1e300, 10**400]


def wrong_parts(push: Push) -> dict[str, list[Any]]:
    """What each part of a push must not be. (Deltas and tasks of another kind: see below.)"""
    epoch, n = push.version
    return {
        "chunk": [*NO_COUNTS, CHUNKS, 2**40],
        "seq": [*NO_COUNTS, push.seq + 1, push.seq + 5, push.seq - 1, 2**61],
        "task": [*NO_NUMBERS, "solve", "survey", 3, *(task for task in Task if task is not push.task)],
        "version": [
            *NO_NUMBERS, (epoch, n), [epoch, n], Version(epoch - 1, n), Version(epoch + 1, n), Version(epoch, n + 1),
            Version(epoch, 2**61), Version(epoch, -1), Version(epoch, float(n)), Version(float(epoch), n),  # type: ignore[arg-type]
            Version(None, n), Version(epoch, "n"), Version(epoch, 2**70), Version(Odd(), n),  # type: ignore[arg-type]
        ],
        "base": ["x", 1.5, True, 2**70, [1], Odd(), np.int64(1)],
        "seconds": NO_SECONDS,
        "loading": NO_SECONDS,
        "fingerprint": ["x", 1.0, [1.0], (None,), ("a", "b"), (1, 2), (Odd(),), np.ones(3), {}],
        "edition": NO_COUNTS,
        "trouble": ["late", "", 3, True, [], np.array([1, 2]), Odd()],
        "payload": [None, "x", 3, [], {}, set(), np.zeros(3), Odd(), {1: np.zeros(3)}, {None: None}, [("f", 1.0)]],
    }  # fmt: skip


def wrong_values(push: Push, name: str) -> list[Any]:
    """What one value of a payload must not be."""
    value = np.asarray(push.payload[name])
    out: list[Any] = [
        value.astype(np.float32), value.astype(complex), value.astype(object), value.astype(">f8"), value.astype(str),
        value[None], np.zeros((2, 3, 4, 5)), "x", None, [[1.0], [2.0, 3.0]], Odd(), {}, True, 3, 1j,
        np.zeros(value.shape, [("a", float)]), np.datetime64("2026-01-01"),
    ]  # fmt: skip
    if value.size and value.ndim and push.task is not Task.SURVEY:  # of a survey only the problem knows how long it is
        out += [
            value[:-1],
            np.concatenate([value, value[:1]]),
            value[:0],
            float(value.flat[0]) if value.size > 1 else "x",
        ]
    if push.task is Task.SURVEY:
        out += [value[:1], value[:0], 3.0, -value, value + 0.5, value * np.nan]
    elif value.size and push.task not in HONEST:
        out += [np.full(value.shape, np.nan), np.full(value.shape, -np.inf)]
        if push.task is Task.SOLVE:
            out += [np.full(value.shape, np.inf), float("nan")]
    return out


def spoiled(draw: Callable[..., Any], push: Push) -> Any:
    """The push, with something in it that nobody could use."""
    how = draw(st.sampled_from(["part", "part", "value", "value", "keys", "no push"]))
    if how == "no push":
        others = [None, 3, "push", (), {}, tuple(push), push._asdict(), Odd(), Failure(True, RunFailed("x")),
                  Failure("x", RunFailed("x")), Failure(0, "no error"), Failure(-1, RunFailed("x")),  # type: ignore[arg-type]
                  Failure(0, RunFailed("x"), (None,)), Failure(0, RunFailed("x"), None, -1),  # type: ignore[arg-type]
                  Failure(2**70, RunFailed("x")), Failure(None, None), Push]  # type: ignore[arg-type]  # fmt: skip
        return draw(st.sampled_from(others))
    if how == "part" or not push.payload:
        name, values = draw(st.sampled_from(sorted(wrong_parts(push).items(), key=lambda item: item[0])))
        return push._replace(**{name: draw(st.sampled_from(values))})
    name = draw(st.sampled_from(sorted(push.payload)))
    payload = dict(push.payload)
    if how == "value":
        payload[name] = draw(st.sampled_from(wrong_values(push, name)))
    elif draw(st.booleans()):
        payload[draw(st.sampled_from([1, None, "surprise", ("x",)]))] = np.zeros(3)
    else:
        payload[draw(st.sampled_from([1, "surprise"]))] = payload.pop(name)
    return push._replace(payload=payload)


@pytest.mark.parametrize("name", PEOPLE)
@FUZZ
@given(data=st.data())
def test_no_push_moves_what_it_must_not(name: str, data: Any) -> None:
    """Between the honest answers of a run, from its first to its last, come others; it ends where it would have."""
    run, sent = play(name), 0
    while not run.core.over:
        reply = run.ask(data.draw(st.sampled_from(["a#0", "b#1"])))
        if not isinstance(reply, Assignment):
            run.step()
            continue
        push = run.solve(reply)
        for _ in range(data.draw(st.integers(0, 3)) if sent < 60 else 0):
            sent += 1
            bad = spoiled(data.draw, push)
            before, counted = frozen(run.core), sum(run.core.record.outcomes.values())
            run.core.came("a#0", bad, run.now)
            outcome = run.core.deliver(bad, run.now)
            harmless = isinstance(bad, Failure) and gate.head(bad)  # of a chunk that there is not
            assert outcome in REFUSED or harmless, bad
            assert frozen(run.core) == before, bad
            assert sum(run.core.record.outcomes.values()) == counted + (not harmless)
            if not (gate.head(bad) and (bad.seq, bad.version) != (push.seq, push.version)):  # else see below
                assert run.core.replay(bad, run.now) not in TAKEN, bad
                assert frozen(run.core) == before, bad
        run.deliver(push)
        run.core.tick(run.now)
    assert run.core.error is None, run.core.error
    assert reading.result(run.core).converged
    assert np.isfinite(run.core.dispatch.pace.slowness("a"))
    assert np.isfinite([line.seconds for line in reading.profile(run.core, run.now).workers]).all()
    assert run.status().refused.keys() <= {outcome.value for outcome in REFUSED}


@pytest.mark.parametrize("field", ["x", "h", "H", "g", "d"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_model_on_other_coordinates_is_refused(monkeypatch: pytest.MonkeyPatch, field: str, remote: bool) -> None:
    """`ActiveNewton`'s arrays have the working set's length, which their shapes do not say."""
    if remote:
        monkeypatch.setattr("paramserver.consensus.active.KEPT", 0)
    run, seen = play("active"), 0
    while not run.core.over:
        reply = run.ask()
        push = run.solve(reply)
        if push.task is Task.SOLVE and field in push.payload and seen < 10:
            value, before = push.payload[field], frozen(run.core)
            longer = np.pad(value, [(0, 1)] * value.ndim)
            for other in (value[:-1], longer, *([value[:, :-1]] if value.ndim == 2 else [])):
                bad = push._replace(payload={**push.payload, field: other})
                assert run.core.deliver(bad, run.now) is Outcome.SHAPE
                assert frozen(run.core) == before
            seen += 1
        run.deliver(push)
    assert reading.result(run.core).converged
    assert seen or (field == "h" and not remote)


def test_a_replay_from_nowhere_is_refused() -> None:
    """A sequence number may be any later one, a version any earlier epoch's; but neither is without bounds."""
    run = play("newton, L1").running()
    push, before = run.solve(run.ask()), frozen(run.core)
    push = push._replace(payload={"H": np.eye(5), **push.payload})
    epoch, n = push.version
    for bad in (
        push._replace(seq=2**61), push._replace(version=Version(epoch + 1, 0)), push._replace(seconds=-1.0),
        push._replace(version=Version(epoch, run.core.params.version.n + 1)), push._replace(payload=None),  # type: ignore[arg-type]
    ):  # fmt: skip
        assert run.core.replay(bad, run.now) is Outcome.MALFORMED
        assert frozen(run.core) == before
    assert run.core.replay(push._replace(seq=push.seq + 40, version=Version(epoch - 1, n + 10**6)), 1.0) in TAKEN
    assert run.core.params.slots[push.chunk].seq == push.seq + 40
    assert run.finish().converged


def test_an_answer_before_there_is_a_z_is_late() -> None:
    """A local step, say, while chunks are being read."""
    run = play("newton, L1")
    work = run.ask()
    survey = run.solve(work)
    step = Push(work.chunk, 1, Task.SOLVE, work.version, {"x": np.zeros(5)}, 0, 1.0)
    before = frozen(run.core)
    assert run.core.deliver(step, 1.0) is Outcome.LATE
    assert frozen(run.core) == before
    assert run.deliver(survey) is Outcome.ACCEPTED


def test_a_refused_push_leaves_no_fingerprint() -> None:
    """Else the chunk's next, honest answer would look as if its data had changed."""
    run = play("newton, L1").running()
    push = run.solve(run.ask())
    nobody = push._replace(fingerprint=(1.0, 2.0), payload={**push.payload, "g": np.zeros(17)})
    assert run.deliver(nobody) is Outcome.SHAPE
    assert run.deliver(push._replace(fingerprint=(3.0, 4.0, 5.0))) is Outcome.ACCEPTED
    while (work := run.ask()).chunk != push.chunk:
        run.deliver(run.solve(work))
    run.deliver(run.solve(work)._replace(fingerprint=(3.0, 4.0)))  # of other parts
    assert isinstance(run.core.error, ChunkChanged)


def test_data_that_overflow_have_a_fingerprint_all_the_same() -> None:
    run = play("newton, L1").running()
    marks = (2.0, float("nan"), float("inf"))
    for _ in range(3 * CHUNKS):
        reply = run.ask()
        if isinstance(reply, Assignment):
            run.deliver(run.solve(reply)._replace(fingerprint=marks))
    assert run.core.error is None


@FUZZ
@given(data=st.data())
def test_no_runner_s_name_or_version_moves_a_run(data: Any) -> None:
    run = play("newton, L1").running()
    before = frozen(run.core)
    have = data.draw(st.sampled_from([*NO_COUNTS, Version(3, 10**6), Version("x", Odd()), (3, 1)]))  # type: ignore[arg-type]
    assert isinstance(run.core.assign("a#0", have, run.now), Assignment)
    with pytest.raises(InvalidInput, match="worker#k"):
        run.core.assign(data.draw(st.sampled_from(NO_NUMBERS[:1] + NO_NUMBERS[2:] + [3, 1.0])), None, run.now)
    assert frozen(run.core) == before


def test_looking_at_a_push_costs_microseconds() -> None:
    """Once for those that watch, once where it is absorbed."""
    import timeit

    run = play("newton, L1").running()
    push = run.solve(run.ask())
    seconds = min(timeit.repeat(lambda: gate.sound(push), number=1000, repeat=5)) / 1000
    assert seconds < 100e-6


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [24, SMALL], ids=["small", "large"])
def test_a_message_cut_short_is_an_error_of_ours(size: int) -> None:
    packed = pack({"x": np.ones(size // 8), "text": "a" * 100}, np.inf)
    for length in range(0, len(packed[0]), 7):
        with pytest.raises(InvalidInput, match="cannot be read"):
            unpack([packed[0][:length], *packed[1:]])
    for buffers in ([], [b""], [b"1"], [None], [packed[1][:-1]], ["x"], [3]):
        with pytest.raises(InvalidInput, match="cannot be read"):
            unpack([packed[0], *buffers])


@pytest.mark.parametrize(
    "other", [None, 3, "x", b"x", [], {}, [3], ["x"], [None, b"x"], [bytearray(b"x")], [[b"x"]]], ids=repr
)
def test_what_pack_did_not_make_is_as_it_is(other: Any) -> None:
    assert unpack(other) is other


# -- stored states ---------------------------------------------------------------------------------


def cores() -> dict[str, tuple[Core, bytes, bytes]]:
    """Runs under way: each with its state, whole and as an anchor."""
    out = {}
    for name in PEOPLE:
        run = play(name).until(lambda core: core.params.setup is not None and all(s.fields for s in core.params.slots))
        for _ in range(7):
            run.step()
        assert not run.core.over
        dumps = (checkpoint.dump(run.core, run.now, anchor=anchor) for anchor in (False, True))
        out[name] = (run.core, *dumps)
    return out


CORES = cores()


def load(data: bytes, core: Core) -> Core:
    """Nothing is ever unpickled."""
    with pytest.MonkeyPatch.context() as patch:
        for where in ("pickle.loads", "pickle.load", "pickle.Unpickler", "cloudpickle.loads"):
            patch.setattr(where, _never)
        return checkpoint.load(data, core.spec, 9, 1e3)


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a checkpoint was unpickled")


def goes_on(name: str, core: Core) -> None:
    """A core that was loaded is whole: it ends where it should."""
    run = play(name)
    run.core, run.now = core, 1e3
    for worker in ("a", "b"):
        core.dispatch.holds(worker, range(CHUNKS))
    assert run.finish().converged


@pytest.mark.parametrize("name", PEOPLE)
@FUZZ
@given(data=st.data())
def test_a_damaged_state_is_an_error(name: str, data: Any) -> None:
    core, *states = CORES[name]
    state = bytearray(data.draw(st.sampled_from(states)))
    how = data.draw(st.sampled_from(["flip", "flip", "cut", "more", "swap"]))
    where = data.draw(st.integers(0, len(state) - 1))
    if how == "flip":
        state[where] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del state[where:]
    elif how == "more":
        state += data.draw(st.binary(min_size=1, max_size=9))
    else:
        state[where : where + 4] = data.draw(st.binary(min_size=5, max_size=5))
    with pytest.raises(CheckpointError, match="damaged"):
        load(bytes(state), core)


@MORE
@given(garbage=st.binary(max_size=200), sealed=st.booleans())
def test_garbage_is_no_state(garbage: bytes, sealed: bool) -> None:
    core = CORES["newton"][0]
    with pytest.raises((CheckpointError, InvalidInput)):
        load(checkpoint._checksum(garbage) + garbage if sealed else garbage, core)


@MORE
@given(data=st.data())
def test_flipped_msgpack_under_a_right_checksum_is_no_half_a_core(data: Any) -> None:
    """Nobody's accident; but then what is loaded is a core, or nothing is."""
    name = data.draw(st.sampled_from(sorted(PEOPLE)))
    core, whole, anchor = CORES[name]
    packed = bytearray(data.draw(st.sampled_from([whole, anchor]))[checkpoint._CHECKSUM :])
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    state = bytes(packed)
    try:
        again = load(checkpoint._checksum(state) + state, core)
    except (CheckpointError, InvalidInput):
        return
    checkpoint.dump(again, 1e3)
    reading.status(again, 1e3, {}, "")


ANYTHING = [None, True, -1, 3, 2**62, 1.5, float("nan"), "x", b"x", [], [1], [[1, 2]], {}, {"x": 1}, np.zeros(3),
            np.full(3, np.nan), np.zeros((2, 2)), np.zeros(5, np.float32), np.array(["x"])]  # fmt: skip
#: Where another value is one that could have been stored.
MAY_BE = {
    "tol": (int, float, type(None)), "epoch": (int,), "n": (int,), "seconds": (int, float), "counting": (bool,),
    "pushes": (int,), "replayed": (int,), "verified": (type(None),), "fingerprint": (type(None), list), "seq": (int,),
    "gone": (bool,), "newcomers": (list,), "fresh": (list,), "z": (type(None),), "slots": (),
    "changes": (int,), "edition": (int,), "left_out": (list,), "rule_state": (type(None),),
    "notes": (list,), "version": (type(None), list), "fields": (type(None),),
    "survey": (type(None), np.ndarray),
}  # fmt: skip


@pytest.mark.parametrize("name", PEOPLE)
@FUZZ
@given(data=st.data())
def test_a_state_with_something_else_in_it_is_an_error(name: str, data: Any) -> None:
    core, whole, _ = CORES[name]
    state = checkpoint.unpack(whole)
    places: list[dict[str, Any]] = [state, *state["slots"], state["rule"], state["penalty"], state["rule_state"]]
    place = data.draw(st.sampled_from(places))
    field = data.draw(st.sampled_from(sorted(place)))
    value = data.draw(st.sampled_from(ANYTHING)) if data.draw(st.integers(0, 3)) else _never
    if value is _never:
        del place[field]
    else:
        place[field] = copy.copy(value)
    try:
        again = load(checkpoint.pack(state), core)
    except (CheckpointError, InvalidInput):
        return
    assert value is not _never, field
    if place is state["rule_state"]:  # numbers for numbers: a lie, and verified before it counts
        return
    assert field in MAY_BE, (field, value)
    assert isinstance(value, MAY_BE[field]), (field, value)
    if field not in ("fields", "gone", "survey", "version", "seq", "fresh", "rule_state"):
        goes_on(name, again)


def test_slots_of_another_number_are_no_state_of_this_run() -> None:
    core, whole, _ = CORES["newton"]
    state = checkpoint.unpack(whole)
    for slots in (state["slots"][:-1], []):
        with pytest.raises(CheckpointError):
            load(checkpoint.pack({**state, "slots": slots, "fresh": [], "newcomers": []}), core)


@pytest.mark.parametrize("name", PEOPLE)
def test_local_models_of_another_size_are_refused(name: str) -> None:
    core, whole, _ = CORES[name]
    for field in ("x", "g", "H", "w", "M", "rows", "f"):
        state = checkpoint.unpack(whole)
        fields = state["slots"][1]["fields"]
        if field not in fields:
            continue
        kept = np.asarray(fields[field])
        for other in (np.pad(kept, 1), np.full(kept.shape, np.nan), None, "x") if kept.ndim else (None, "x"):
            fields[field] = other
            with pytest.raises(CheckpointError):
                load(checkpoint.pack(state), core)


def test_an_array_of_objects_is_never_made() -> None:
    """Those would have to be unpickled."""
    core, whole, _ = CORES["newton"]
    state = checkpoint.unpack(whole)
    for dtype in ("|O", "O", "<f8,<f8", "V8", "<M8[s]", "float64"):
        evil = msgpack.ExtType(checkpoint._ARRAY, msgpack.packb((dtype, (1,), pickle.dumps(_never))))
        packed = msgpack.packb({**state, "z": evil}, default=checkpoint._pack)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(checkpoint._checksum(packed) + packed, core)


# -- files -----------------------------------------------------------------------------------------


@MORE
@given(data=st.data())
def test_a_seal_fits_its_data_alone(data: Any) -> None:
    content = data.draw(st.binary(max_size=60))
    file = bytearray(seal.header(content) + content)
    seal.verify(bytes(file[: seal.SIZE]), bytes(file[seal.SIZE :]), "file")
    how = data.draw(st.sampled_from(["flip", "cut", "more", "other"]))
    where = data.draw(st.integers(0, len(file) - 1))
    if how == "flip":
        file[where] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del file[where:]
    elif how == "more":
        file += data.draw(st.binary(min_size=1, max_size=9))
    else:
        file = bytearray(data.draw(st.binary(max_size=90).filter(lambda other: other != bytes(file))))
    with pytest.raises(CheckpointError, match=r"file is (foreign|truncated|damaged|of a newer version)"):
        seal.verify(bytes(file[: seal.SIZE]), bytes(file[seal.SIZE :]), "file")
