"""Settings that change while a run lives: workers go by what they are told, and notes by what is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from by_hand import ByHand, logistic

from paramserver.consensus import EASGD, AggregatedNewton, AsyncSGD, FedAvg
from paramserver.messages import Assignment, Push
from paramserver.penalties import L2
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.problems import Logistic
from paramserver.workers.tasks import answer

X, Y = logistic(800)
CHANGES = [
    (AsyncSGD(batch=16), {"batch": 40}), (AsyncSGD(batch=16), {"seed": 4}), (FedAvg(), {"local_steps": 2}),
    (FedAvg(), {"mu": 3.0}), (FedAvg(), {"rate": 0.5}), (EASGD(), {"local_steps": 2}), (EASGD(), {"beta": 0.2}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), CHANGES, ids=str)
def test_runners_need_not_hold_the_rule_as_it_is_now(rule, change):
    """They hold it as it was launched; what counts comes with every assignment."""
    hand = ByHand(rule, X, Y, 4, L2(1.0))
    for _ in range(4):
        hand.round()
    before = hand.push(1)
    hand.rule = replace(rule, **change)
    after = hand.push(1)
    old = rule.step(hand.problem, hand.data[1], hand.pull(1))
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert all(np.array_equal(old[name], after[name]) for name in old)


def driven(rule, tol, pushes=60):
    """A server and one runner that holds every chunk."""
    problem = Logistic()
    data = [problem.prepare(X[k::4], Y[k::4]) for k in range(4)]
    core = Core(RunSpec(problem, L2(1.0), rule, 4, tol=tol, keep=True), 1, 0.0)
    core.dispatch.holds("w", range(4))
    for now in range(pushes):
        while core.due:
            core.refresh(now)
        work = core.assign("w#0", None, now)
        if not isinstance(work, Assignment):
            break
        payload = answer(core.params.rule, problem, data[work.chunk], work, work.z)
        core.deliver(Push(work.chunk, work.seq, work.task, work.version, payload, work.seq - 1, 1.0), now + 0.5)
    return core


def said(core):
    return [note for note in core.notes if "is not exact" in note]


def test_a_tolerance_below_the_floor_is_noted_when_it_is_asked_for():
    core = driven(FedAvg(), 0.05)
    assert not said(core)
    core.update(None, 1e-9, {}, 100.0)
    assert len(said(core)) == 1
    assert "tol = 1e-09" in said(core)[0]
    core.update(None, 1e-9, {"local_steps": 1}, 101.0)  # which is exact
    assert not said(core)
    core.update(None, None, {"local_steps": 4}, 102.0)
    assert len(said(core)) == 1
    core.update(None, 0.05, {}, 103.0)
    assert not said(core)


def test_by_default_too():
    """tol=None asks for 1e-6."""
    assert "tol = 1e-06" in said(driven(AsyncSGD(batch=16), None))[0]


def test_exact_rules_have_nothing_to_say():
    assert not said(driven(AggregatedNewton(), 1e-14))
