"""Every rule that ships, without a fault, beside a straggler, and through the loss of a worker and of its server."""

from __future__ import annotations

from typing import Any

import pytest
from cluster.helpers import Processes, Slow

import paramserver as ps
from paramserver.consensus.registry import RULES

from .helpers import EXACT, PENALTY, lazy, names, under_way

NEAR = {"fedavg": 2e-4, "easgd": 2e-3, "sgd": 5e-3}  #: how near a rule that is not exact is asked to come
DELAY = {"newton": 0.05, "active": 0.05, "admm": 0.01, "easgd": 0.01, "fedavg": 0.01}  #: seconds an evaluation
GLM = sorted(RULES.keys() - {"auto"})


@pytest.mark.parametrize("rule", GLM)
def test_it_ends_where_it_should(own: Processes, client: Any, rule: str) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")

    def launched(problem: Slow) -> Any:
        return ps.launch(problem, *lazy(), penalty=PENALTY, tol=NEAR.get(rule, 1e-8), consensus=rule, client=client)

    check(launched(Slow(delay=0.0)), rule)
    check(launched(Slow(delay=DELAY.get(rule, 0.03) / 10, slow=("a",))), rule)
    run = launched(Slow(delay=DELAY.get(rule, 0.03)))
    mine, others = names(own, client, under_way(run, 10))
    own.workers[others[0]].kill()
    under_way(run, 20)
    own.workers[mine].kill()
    assert check(run, rule).version.epoch == 2


def check(run: Any, rule: str) -> Any:
    result = run.result(timeout=100)
    assert result.converged
    assert result.certificate in ("duality gap", "first-order")
    assert -1e-15 <= EXACT.gap(result.z) <= result.gap + 1e-13
    assert result.gap <= NEAR.get(rule, 1e-8)
    return result
