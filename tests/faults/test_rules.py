"""Rules that are not exact lose a worker, and then their server, and come as near as ever."""

from __future__ import annotations

from typing import Any

import pytest
from cluster.helpers import Processes, Slow

import paramserver as ps

from .helpers import EXACT, PENALTY, lazy, names, under_way


@pytest.mark.parametrize(("rule", "near"), [("fedavg", 2e-4), ("easgd", 2e-3), ("sgd", 5e-3)])
def test_they_survive(own: Processes, client: Any, rule: str, near: float) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = ps.launch(Slow(delay=0.03), *lazy(), penalty=PENALTY, tol=near, consensus=rule, client=client)
    mine, others = names(own, client, under_way(run))
    own.workers[others[0]].kill()
    under_way(run, 40)
    own.workers[mine].kill()
    result = run.result(timeout=100)
    assert result.converged
    assert result.certificate == "duality gap"
    assert EXACT.gap(result.z) <= result.gap <= near
