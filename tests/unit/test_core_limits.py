"""A server that would not fit, and a rule that raises: the run fails in words, and nobody waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.errors import InvalidInput, RunFailed, StepFailed
from paramserver.messages import Assignment, Push, Task
from paramserver.server import reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.tasks import answer


def surveyed(rule: Any, memory: int | None, p: int = 101) -> Core:
    core = Core(RunSpec(ps.Logistic(), ps.L2(1.0), rule, 2), 1, 0.0)
    core.memory_limit = memory
    survey = ps.Logistic().survey(ps.Logistic().prepare(np.eye(100, p - 1), np.arange(100) < 40))
    for chunk in range(2):
        core.deliver(Push(chunk, 1, Task.SURVEY, core.params.version, {"survey": survey}), 1.0)
    core.refresh(2.0)
    return core


def test_a_state_over_half_the_memory_is_refused_with_a_remedy() -> None:
    need = 2 * 8 * (101 * 101 + 2 * 101 + 2)
    assert surveyed(ps.AggregatedNewton(), 2 * need).state == "running"
    core = surveyed(ps.AggregatedNewton(), 2 * need - 16)
    assert core.state == "failed"
    assert isinstance(core.error, RunFailed)
    assert 'ADMM(metric="diagonal")' in core.reason
    assert surveyed(ps.ADMM(metric="diagonal"), 2 * need - 16).state == "running"


@dataclass(frozen=True)
class Broken(ps.AggregatedNewton):
    where: str = "absorb"

    def absorb(self, *args: Any) -> Any:
        if self.where == "absorb":
            raise ZeroDivisionError("in absorb")
        return super().absorb(*args)

    def plan(self, *args: Any) -> Any:
        if self.where == "plan":
            raise ZeroDivisionError("in plan")
        return super().plan(*args)

    def consensus(self, *args: Any) -> Any:
        raise ZeroDivisionError("in consensus")


@pytest.mark.parametrize("where", ["absorb", "plan", "consensus"])
def test_a_rule_that_raises_fails_the_run(where: str) -> None:
    core = surveyed(Broken(where=where), None, p=3)
    core.dispatch.holds("w", range(2))
    for k in range(6):
        reply = core.assign("w#0", None, 3.0 + k)
        if core.state == "failed":
            break
        payload = {"x": reply.z, "f": np.float64(1.0), "g": np.ones(3), "H": np.eye(3)}
        core.deliver(Push(reply.chunk, reply.seq, Task.SOLVE, reply.version, payload), 3.5 + k)
        core.refresh(3.7 + k)
    assert core.state == "failed"
    assert isinstance(core.error, StepFailed)
    assert f"ZeroDivisionError: in {where}" in core.reason


@pytest.mark.parametrize("rule", [ps.AggregatedNewton(), ps.ADMM()], ids=repr)
def test_a_limit_met_before_every_chunk_reported_is_certified_too(rule: Any) -> None:
    rng = np.random.default_rng(0)
    problem = ps.Logistic()
    X, y = rng.standard_normal((40, 2)), np.arange(40) % 2.0
    data = [problem.prepare(X[k::4], y[(k // 2) :: 4]) for k in range(4)]
    core = Core(RunSpec(problem, ps.L2(1.0), rule, 4, tol=1e-12), 1, 0.0)
    core.dispatch.holds("w", range(4))
    for k in range(40):
        if k == 5:  # four surveys and one solve
            core.end("max_seconds", float(k))
        while core.due:
            core.refresh(float(k))
        reply = core.assign("w#0", None, float(k))
        if core.over:
            break
        payload = answer(rule, problem, data[reply.chunk], reply, reply.z)
        core.deliver(Push(reply.chunk, reply.seq, reply.task, reply.version, payload, reply.seq - 1), k + 0.5)
    result = reading.result(core)
    assert result is not None
    assert (core.state, result.reason, result.certificate) == ("finished", "max_seconds", "duality gap")
    assert 0 < result.gap < 1


def test_a_verification_that_gave_up_rests_and_comes_back() -> None:
    rng = np.random.default_rng(1)
    problem, rule = ps.LeastSquares(), ps.AggregatedNewton()
    data = [problem.prepare(rng.standard_normal((10, 2)), rng.standard_normal(10)) for _ in range(2)]
    core = Core(RunSpec(problem, ps.L2(1.0), rule, 2, tol=1e-9, silence=30.0), 1, 0.0)
    core.dispatch.holds("w", range(2))
    gave_up = []
    for now in np.arange(0.0, 200.0, 1.0):
        core.tick(now)
        while core.due:
            core.refresh(now)
        if len(core.notes) > len(gave_up):
            gave_up.append(now)
        reply = core.assign("w#0", None, now)
        if core.over:
            break
        if isinstance(reply, Assignment) and not (reply.task is Task.VERIFY and reply.chunk == 1 and now < 100):
            payload = answer(rule, problem, data[reply.chunk], reply, reply.z)
            core.deliver(Push(reply.chunk, reply.seq, reply.task, reply.version, payload, None, 1.0), now + 0.5)
    assert core.reason == "converged"
    assert len(gave_up) == 2
    assert gave_up[1] - gave_up[0] >= 60.0  # a rest, then a wait
    assert "chunks [1]" in core.notes[0]


def test_the_metric_of_a_live_run_is_fixed_and_its_relaxation_travels() -> None:
    core = surveyed(ps.ADMM(), None, p=3)
    with pytest.raises(InvalidInput, match="metric of a live run is fixed"):
        core.update(None, None, {"metric": "diagonal"}, 3.0)
    assert core.params.rule == ps.ADMM()
    core.update(None, None, {"relaxation": 1.0}, 3.0)
    core.refresh(3.5)
    core.dispatch.holds("w", range(2))
    assert core.assign("w#0", None, 4.0).fields["relaxation"] == 1.0
