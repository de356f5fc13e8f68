"""Rules compared on a cluster, with a straggler."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client

import paramserver as ps
from tests.cluster.helpers import make_data


def test_two_rules_with_a_straggler(client: Client) -> None:
    X, y = make_data(4000, 6, seed=1)
    before = [run["name"] for run in ps.list(client)]
    rules = {"newton": ps.AggregatedNewton(), "admm": "admm"}
    found = ps.compare(
        rules, ps.Logistic(), X, y, penalty=ps.L2(1.0), accuracy=(1e-2, 1e-6), client=client, straggler=5, chunks=8
    )
    tight = ps.simulate(ps.Logistic(), X, y, penalty=ps.L2(1.0), chunks=8, tol=1e-12).result
    assert found.objective == pytest.approx(tight.objective, rel=1e-9)
    for run in found.runs:
        near, far = run.reached[1e-6], run.reached[1e-2]
        assert 0 < far.time <= near.time < 60
        assert far.pushes <= near.pushes
        assert 1.0 < near.passes < 100
        assert (np.diff(run.curve.time) >= 0).all()
        assert run.curve.gap[-1] <= 1e-6
    assert found.slowdown("newton", 1e-6) > 0
    assert [run["name"] for run in ps.list(client)] == before


def test_the_straggler_sleeps_and_the_others_do_not(client: Client) -> None:
    X, y = make_data(60_000, 20, seed=1)
    found = ps.compare(["newton"], ps.Logistic(), X, y, accuracy=1e-6, client=client, straggler=20, chunks=8)
    slow = max(client.scheduler_info(n_workers=-1)["workers"].items(), key=lambda item: str(item[1]["name"]))[0]

    def seconds(run, worker) -> float:
        took = [step.end - step.start for step in run.steps if (step.worker == worker, step.task) == (True, "survey")]
        return min(took)  # whatever else the machine does only adds

    late = found.run("newton", slow=True)
    (other,) = {step.worker for step in late.steps} - {slow}
    assert seconds(late, slow) > 2.5 * seconds(late, other)
