"""What the fault tests share: a run that takes its time, and whether it ended where it should."""

from __future__ import annotations

import time
from typing import Any

import dask.array as da
from cluster.helpers import Processes, Slow, make_data, reference

import paramserver as ps

X, Y = make_data(n=16_000, d=8)
PENALTY = ps.L2(1.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)
CHUNKS = 16


def lazy() -> Any:
    rows = len(X) // CHUNKS
    return da.from_array(X, chunks=(rows, -1)), da.from_array(Y, chunks=rows)


def launch(client: Any, problem: Any = None, **options: Any) -> Any:
    return ps.launch(problem or Slow(delay=0.05), *lazy(), penalty=PENALTY, tol=1e-8, client=client, **options)


def under_way(run: Any, pushes: int = 20) -> str:
    """The server's address, once so many pushes were taken, or all there are to take."""
    status = run.status()
    limit = time.monotonic() + 45
    while status.pushes < pushes and not run.done():
        assert time.monotonic() < limit, status
        time.sleep(0.02)
        status = run.status()
    return str(status.server)


def check(run: Any) -> Any:
    result = run.result(timeout=60)
    assert result.converged
    assert result.certificate == "duality gap"
    assert result.gap <= 1e-8
    assert -1e-15 <= EXACT.gap(result.z) <= result.gap + 1e-13
    return result


def names(own: Processes, client: Any, server: str) -> tuple[str, list[str]]:
    """(the worker that holds the server, the others)."""
    there = own.by_name(client)
    mine = next(name for name, address in there.items() if address == server)
    return mine, [name for name in there if name != mine]


def leftovers(dask_scheduler: Any) -> list[str]:
    keys = [str(key) for key in dask_scheduler.tasks if str(key).startswith("paramserver-")]
    return keys + [str(name) for name in dask_scheduler.clients if str(name).startswith("paramserver-")]


def assert_nothing_left(client: Any) -> None:
    limit = time.monotonic() + 15
    while left := client.run_on_scheduler(leftovers):
        assert time.monotonic() < limit, left
        time.sleep(0.1)
