"""Every rule that ships, without a fault, beside a straggler, and through the loss of a worker and of its server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import distributed
import pytest
from cluster.helpers import Processes, Slow

import paramserver as ps
from paramserver.consensus.registry import RULES
from paramserver.examples import extensive_form, inventory

from .helpers import EXACT, PENALTY, lazy, names, under_way

NEAR = {"fedavg": 2e-4, "easgd": 2e-3, "sgd": 5e-3}  #: how near a rule that is not exact is asked to come
DELAY = {"newton": 0.05, "active": 0.05, "admm": 0.01, "easgd": 0.01, "fedavg": 0.01}  #: seconds an evaluation
HEDGING = ("progressive_hedging", "aph")
GLM = sorted(RULES.keys() - {"auto", *HEDGING})
TREE = inventory.scenarios()


@dataclass(frozen=True)
class SlowProgram(ps.StochasticProgram):
    """Every scenario takes its time, ``factor`` times longer on the worker called ``slow``."""

    delay: float = 0.0
    slow: str = ""
    factor: float = 6.0

    def prox(self, data: Any, centre: Any, rho: Any) -> Any:
        name = str(distributed.get_worker().name)
        time.sleep(self.delay * (self.factor if name == self.slow else 1.0))
        return super().prox(data, centre, rho)


@pytest.mark.parametrize("rule", GLM)
def test_it_ends_where_it_should(own: Processes, client: Any, rule: str) -> None:
    def launched(delay: float, slow: tuple[str, ...] = ()) -> Any:
        problem, tol = Slow(delay=delay, slow=slow), NEAR.get(rule, 1e-8)
        return ps.launch(problem, *lazy(), penalty=PENALTY, tol=tol, consensus=rule, client=client)

    def check(run: Any) -> Any:
        result = run.result(timeout=100)
        assert result.converged
        assert result.certificate in ("duality gap", "first-order")
        assert -1e-15 <= EXACT.gap(result.z) <= result.gap + 1e-13
        assert result.gap <= NEAR.get(rule, 1e-8)
        return result

    through_faults(own, client, launched, check, DELAY.get(rule, 0.03))


@pytest.mark.parametrize("rule", HEDGING)
def test_a_stochastic_program_ends_where_it_should(own: Processes, client: Any, rule: str) -> None:
    exact = extensive_form.solve(TREE)

    def launched(delay: float, slow: tuple[str, ...] = ()) -> Any:
        problem = SlowProgram(delay=delay, slow="".join(slow))
        return ps.launch(problem, list(TREE), tol=1e-4, consensus=rule, client=client)

    def check(run: Any) -> Any:
        result = run.result(timeout=100)
        assert result.converged
        assert result.objective == pytest.approx(exact.cost, rel=1e-4)
        return result

    through_faults(own, client, launched, check, 0.015)


def through_faults(
    own: Processes, client: Any, launched: Callable[..., Any], check: Callable[[Any], Any], delay: float
) -> None:
    """Three runs, the last of which loses a worker and then its server's."""
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    check(launched(0.0))
    check(launched(delay / 10, ("a",)))
    run = launched(delay)
    mine, others = names(own, client, under_way(run, 10))
    own.workers[others[0]].kill()
    under_way(run, 20)
    assert not run.done()
    own.workers[mine].kill()
    assert check(run).version.epoch == 2
