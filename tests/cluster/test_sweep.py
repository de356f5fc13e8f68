"""Twenty penalties on one copy of the data, the worst stopped half-way; nothing is left behind."""

from __future__ import annotations

import gc
import time
from typing import Any

import dask.array as da
import numpy as np
from dask.core import flatten

import paramserver as ps
from cluster.helpers import Slow, make_data, reference, until
from paramserver.errors import ParamServerError

X, Y = make_data(n=20_000, d=10)
ALPHAS = np.geomspace(0.1, 3000.0, 20)
LIVE = ("waiting", "live", "converged")


def leftovers(dask_scheduler: Any) -> list[str]:
    keys = [str(key) for key in dask_scheduler.tasks if str(key).startswith("paramserver-")]
    return keys + [str(name) for name in dask_scheduler.clients if str(name).startswith("paramserver-")]


def data_keys(dask_scheduler: Any) -> set[str]:
    return {str(key) for key in dask_scheduler.tasks if not str(key).startswith("paramserver-")}


def alpha_of(name: str) -> float:
    return float(ALPHAS[int(name[-2:])])


def test_twenty_penalties(client: Any) -> None:
    until(lambda: not client.run_on_scheduler(leftovers), 15)  # of earlier tests
    lazy = [da.from_array(X, chunks=(5000, -1)), da.from_array(Y, chunks=5000)]
    persisted = client.persist(lazy)
    mine = {str(key) for part in persisted for key in flatten(part.__dask_keys__())}
    until(lambda: mine <= client.run_on_scheduler(data_keys))
    before = client.run_on_scheduler(data_keys)  # earlier tests' too: Dask keeps some released tasks for good
    runs = {}
    for k, alpha in enumerate(ALPHAS):
        name = f"alpha-{k:02d}"
        runs[name] = ps.launch(Slow(delay=0.02), *persisted, penalty=ps.L1(alpha), name=name, tol=1e-8, client=client)
    assert client.run_on_scheduler(data_keys) == before
    assert {run["name"] for run in ps.list(client)} >= set(runs)

    # Half-way: the ten of the largest objective are given up; where they were, others start.
    until(lambda: all(run.status().pushes >= 8 or run.done() for run in runs.values()), 60)
    scores = {name: _objective(run) for name, run in runs.items()}
    worst = sorted(scores, key=lambda name: scores[name])[10:]
    results: dict[str, Any] = {}
    for name in worst:
        results[name] = runs[name].stop()
        assert results[name].reason in ("stopped", "converged")
    again = {
        f"again-{name}": ps.launch(
            ps.Logistic(), *persisted, penalty=ps.L1(alpha_of(name)), z0=results[name].z, tol=1e-8,
            name=f"again-{name}", client=client,
        )
        for name in worst
    }  # fmt: skip
    rest = {name: run for name, run in runs.items() if name not in worst}
    for run in ps.as_completed([*rest.values(), *again.values()]):
        results[run.name] = run.result()
    assert client.run_on_scheduler(data_keys) == before

    for name in rest:
        result, exact = results[name], reference(ps.Logistic(), X, Y, ps.L1(alpha_of(name)))
        assert result.converged
        assert result.certificate == "duality gap"
        assert -1e-15 <= exact.gap(result.z) <= result.gap + 1e-13 <= 1e-8 + 1e-13
    for name in worst:
        result = results[f"again-{name}"]
        assert result.converged
        assert reference(ps.Logistic(), X, Y, ps.L1(alpha_of(name))).gap(result.z) <= 1e-8
    assert len(ps.list(client)) <= 20
    assert not [run for run in ps.list(client) if run["state"] in LIVE]

    until(lambda: not client.run_on_scheduler(leftovers), 10)
    assert client.run_on_scheduler(data_keys) == before  # the user's own, as long as they are wanted
    del persisted
    gc.collect()  # Dask lets go of a future when Python does
    until(lambda: not client.run_on_scheduler(data_keys) & mine, 30)


def _objective(run: Any) -> float:
    try:
        status = run.status()
        return float(status.objective if status.verified is None else status.verified.objective)
    except ParamServerError:
        return float("inf")


def test_watching_many_at_once_ends(client: Any) -> None:
    runs = [ps.launch(Slow(delay=0.01), X, Y, penalty=ps.L2(a), tol=1e-6, client=client, chunks=4) for a in (1.0, 10.0)]
    began = time.monotonic()
    for run in runs:
        for status in run.watch(every=0.1):
            last = status
        assert last.reason == "converged"
    assert time.monotonic() - began < 60
