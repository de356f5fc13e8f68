"""A run that goes on from its stored state ends where it would have ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import paramserver as ps
from paramserver.consensus import Auto, Consensus
from paramserver.errors import InvalidInput
from paramserver.messages import Assignment, Outcome, Push, Task
from paramserver.server import checkpoint, reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.tasks import answer

rng = np.random.default_rng(0)
X = rng.standard_normal((600, 5))
Y = (rng.random(600) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
PROBLEM = ps.Logistic()
DATA = [PROBLEM.prepare(X[k::6], Y[k::6]) for k in range(6)]


def spec(rule: Consensus, penalty: ps.Penalty | None = None) -> RunSpec:
    penalty = penalty or (ps.L2(2.0) if isinstance(rule, ps.LBFGS) else ps.L1(2.0))
    return RunSpec(PROBLEM, penalty, rule, 6, run_id="r", tol=tol_of(rule))


def tol_of(rule: Consensus) -> float:
    """Where a rule has a floor, something above it."""
    return 1e-9 if rule.exact else 0.03


def drive(core: Core, pushes: int, now: float = 0.0) -> None:
    """One runner that holds every chunk."""
    core.dispatch.holds("w", range(6))
    for k in range(pushes):
        while core.due:
            core.refresh(now + k)
        reply = core.assign("w#0", None, now + k)
        if not isinstance(reply, Assignment):
            return
        payload = answer(core.params.rule, PROBLEM, DATA[reply.chunk], reply, reply.z)
        push = Push(reply.chunk, reply.seq, reply.task, reply.version, payload, reply.seq - 1, 1.0)
        core.deliver(push, now + k + 0.5)


RULES = [
    ps.AggregatedNewton(), ps.ADMM(), ps.ADMM(metric="diagonal", rho=1.0), ps.ADMM(rho=20.0, balance=True),
    ps.ActiveNewton(), ps.LBFGS(), ps.ProxGradient(), ps.AsyncSGD(batch=32), ps.FedAvg(), ps.EASGD(),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("pushes", [0, 3, 6, 9, 20])
def test_goes_on_from_any_moment(rule: Consensus, pushes: int) -> None:
    core = Core(spec(rule), 1, 0.0)
    drive(core, pushes)
    again = checkpoint.load(checkpoint.dump(core, 60.0), spec(rule), 2, 100.0)
    drive(again, 5000, 100.0)
    result = reading.result(again)
    assert result is not None
    assert result.converged
    assert result.version.epoch == 2
    whole = Core(spec(rule), 1, 0.0)
    drive(whole, 5000)
    np.testing.assert_allclose(result.z, reading.result(whole).z, atol=1e-3 if rule.exact else 1.0)
    assert abs(result.objective - reading.result(whole).objective) <= 2 * tol_of(rule) * whole.stopping.scale


def test_a_chosen_rule_is_the_one_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where today's shape would choose another."""
    core = Core(spec(Auto()), 1, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("paramserver.consensus.auto.BYTES", 0)
        drive(core, 20)
    assert isinstance(core.params.rule, ps.ActiveNewton)
    again = checkpoint.load(checkpoint.dump(core, 60.0), core.spec, 2, 100.0)
    assert isinstance(again.params.rule, ps.ActiveNewton)
    drive(again, 5000, 100.0)
    result = reading.result(again)
    assert result is not None
    assert result.converged


def test_what_is_stored_comes_back_the_same() -> None:
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    drive(core, 15)
    again = checkpoint.load(checkpoint.dump(core, 60.0), core.spec, 2, 0.0)
    np.testing.assert_array_equal(again.params.z, core.params.z)
    np.testing.assert_array_equal(again.params.state.B, core.params.state.B)
    for a, b in zip(again.params.slots, core.params.slots, strict=True):
        assert (a.seq, a.version, a.fingerprint, a.pushes) == (b.seq, b.version, b.fingerprint, b.pushes)
        assert a.fields is not None
        assert a.fields.keys() == b.fields.keys()
        for name in a.fields:
            np.testing.assert_array_equal(a.fields[name], b.fields[name])
    assert again.record.pushes == core.record.pushes
    assert not again.params.z.flags.writeable


def test_a_push_of_the_old_epoch_is_refused() -> None:
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    drive(core, 8)
    reply = core.assign("w#0", None, 50.0)
    again = checkpoint.load(checkpoint.dump(core, 60.0), core.spec, 2, 51.0)
    payload = answer(core.params.rule, PROBLEM, DATA[reply.chunk], reply, reply.z)
    again.deliver(Push(reply.chunk, reply.seq, reply.task, reply.version, payload, reply.seq - 1), 52.0)
    assert again.record.refused == {"stale epoch": 1}


def test_live_settings_are_kept_and_plug_ins_are_named_only() -> None:
    core = Core(spec(ps.ADMM()), 1, 0.0)
    drive(core, 12)
    core.update(ps.L1(4.0), 1e-7, {"rho": 0.5}, 20.0)
    data = checkpoint.dump(core, 60.0)
    again = checkpoint.load(data, core.spec, 2, 30.0)
    assert again.params.rule == replace(ps.ADMM(), rho=0.5)
    assert again.params.bound.penalty == ps.L1(4.0)
    assert again.stopping.tol == 1e-7
    assert b"paramserver" not in data


def test_another_run_or_rule_is_refused() -> None:
    core = Core(spec(ps.ADMM()), 1, 0.0)
    drive(core, 12)
    data = checkpoint.dump(core, 60.0)
    with pytest.raises(InvalidInput, match="of run r, not of other"):
        checkpoint.load(data, replace(core.spec, run_id="other"), 2, 0.0)
    with pytest.raises(InvalidInput, match="ADMM"):
        checkpoint.load(data, replace(core.spec, rule=ps.AggregatedNewton()), 2, 0.0)


# -- a server that takes over ----------------------------------------------------------------------


def replayable(core: Core, pushes: int) -> list[Push]:
    """As `drive`, and what was pushed."""
    sent: list[Push] = []
    deliver = core.deliver
    core.deliver = lambda push, now: (sent.append(push), deliver(push, now))[1]  # type: ignore[method-assign]
    drive(core, pushes)
    del core.deliver  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize(("kept", "pushes"), [(8, 8), (8, 13), (13, 14), (13, 40), (20, 33)])
def test_pushes_since_the_last_state_are_taken_again(rule: Consensus, kept: int, pushes: int, anchor: bool) -> None:
    """From a state some pushes old, whole or an anchor, and whatever was pushed since: the same optimum."""
    core = Core(spec(rule), 1, 0.0)
    sent = replayable(core, kept)
    state = checkpoint.dump(core, 60.0, anchor=anchor)
    sent += replayable(core, pushes - kept)
    again = checkpoint.load(state, spec(rule), 2, 100.0)
    for push in [*sent, *sent[::-1]]:  # twice, and in the wrong order: each is taken once
        again.replay(push, 100.0)
    solved = {push.chunk for push in sent if push.task is Task.SOLVE}
    if rule.replays:
        assert {i for i, slot in enumerate(again.params.slots) if slot.fields is not None} >= solved
    drive(again, 5000, 100.0)
    result = reading.result(again)
    assert result is not None
    assert result.converged
    whole = Core(spec(rule), 1, 0.0)
    drive(whole, 5000)
    assert abs(result.objective - reading.result(whole).objective) <= 2 * tol_of(rule) * whole.stopping.scale
    assert result.n_pushes == again.record.pushes


def test_a_replay_costs_no_step() -> None:
    """Where every push since an anchor comes again, nothing is computed twice."""
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    sent = replayable(core, 20)
    again = checkpoint.load(checkpoint.dump(core, 60.0, anchor=True), core.spec, 2, 100.0)
    for push in sent:
        again.replay(push, 100.0)
    while again.due:
        again.refresh(100.0)
    assert again.record.replayed > 0
    again.params.recompute(100.0)
    core.params.recompute(100.0)
    assert np.linalg.norm(again.params.z - core.params.z) < 1e-2 * np.linalg.norm(core.params.z)


def test_an_anchor_is_small_and_carries_no_model() -> None:
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    drive(core, 20)
    whole, anchor = checkpoint.dump(core, 60.0), checkpoint.dump(core, 60.0, anchor=True)
    assert len(anchor) < len(whole) / 2
    again = checkpoint.load(anchor, core.spec, 2, 100.0)
    np.testing.assert_array_equal(again.params.z, core.params.z)
    assert all(slot.fields is None and slot.survey is not None for slot in again.params.slots)


@pytest.mark.parametrize("fault", ["of a chunk that is gone", "not finite", "a verification's", "a delta without base"])
def test_a_replay_that_cannot_be_used_changes_nothing(fault: str) -> None:
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    sent = replayable(core, 20)
    whole = next(push for push in sent if push.task is Task.SOLVE and "H" in push.payload)
    again = checkpoint.load(checkpoint.dump(core, 60.0, anchor=True), core.spec, 2, 100.0)
    wrong = {
        "of a chunk that is gone": whole._replace(chunk=99),
        "not finite": whole._replace(payload={**whole.payload, "f": np.float64(np.nan)}),
        "a verification's": whole._replace(task=Task.VERIFY),
        "a delta without base": whole._replace(payload={k: whole.payload[k] for k in ("x", "f", "g")}),
    }[fault]
    assert again.replay(wrong, 100.0) is not Outcome.ACCEPTED
    assert again.record.replayed == 0
    assert all(slot.fields is None for slot in again.params.slots)


def test_a_snapshot_is_of_its_moment() -> None:
    """It is packed later, in another thread, while the core goes on."""
    core = Core(spec(ps.AggregatedNewton()), 1, 0.0)
    drive(core, 10)
    at_once, shot = checkpoint.dump(core, 60.0), checkpoint.snapshot(core, 60.0)
    drive(core, 10)
    assert checkpoint.pack(shot) == at_once
    assert checkpoint.dump(core, 60.0) != at_once
