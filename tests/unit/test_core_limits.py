"""A server that would not fit, and a rule that raises: the run fails in words, and nobody waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.errors import RunFailed, StepFailed
from paramserver.messages import Push, Task
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec


def surveyed(rule: Any, memory: int | None, p: int = 101) -> Core:
    core = Core(RunSpec(ps.Logistic(), ps.L2(1.0), rule, 2), 1, 0.0)
    core.memory_limit = memory
    for chunk in range(2):
        survey = np.array([100.0, p, 100.0, 40.0, 60.0, 0.0])
        core.deliver(Push(chunk, 1, Task.SURVEY, core.params.version, {"survey": survey}), 1.0)
    core.refresh(2.0)
    return core


def test_a_state_over_half_the_memory_is_refused_with_a_remedy() -> None:
    need = 2 * 8 * (101 * 101 + 2 * 101 + 1)
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
