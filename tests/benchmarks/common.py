"""What the benchmarks share: data, clusters, medians, and a run that does not end by itself."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import paramserver as ps
from paramserver.views import Residuals


def logistic_data(n: int = 100_000, d: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) standard normal, y from a logistic model."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    w = rng.standard_normal(d) / np.sqrt(d)
    return X, (rng.random(n) < 1 / (1 + np.exp(-(X @ w) + 1))).astype(float)


def on_cluster(client: Client, X: np.ndarray, y: np.ndarray, chunks: int) -> tuple[Any, Any]:
    """Both persisted in so many chunks, evenly spread."""
    import warnings

    from distributed import wait

    rows = -(-len(X) // chunks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a large graph: this is a benchmark's set-up
        pair = client.persist([da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)])
    wait(pair)
    client.rebalance()
    return pair[0], pair[1]


@contextlib.contextmanager
def local(workers: int = 2) -> Iterator[Client]:
    """A LocalCluster of processes, and its client."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def separate(workers: int = 2) -> Iterator[str]:
    """Scheduler and workers in processes of their own; yields the address."""
    processes = []
    here = os.path.dirname(os.path.abspath(__file__))  # tasks of the benchmarks' own modules
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    try:
        local = ("--host", "127.0.0.1", "--no-dashboard")
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *local]
        scheduler = subprocess.Popen(dask, stderr=subprocess.PIPE, text=True, env=env)
        processes.append(scheduler)
        assert scheduler.stderr is not None
        address = ""
        for text in scheduler.stderr:
            if "Scheduler at:" in text:
                address = text.split()[-1]
                break
        for k in range(workers):
            one = ("--nthreads", "1", "--nworkers", "1", "--name", f"w{k}")
            dask = [sys.executable, "-m", "distributed.cli.dask_worker", address, *one, *local]
            processes.append(subprocess.Popen(dask, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env))
        with Client(address) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


class Uncertified(ps.Logistic):
    """Offers no line search, so that no verification ever freezes z."""

    line = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Endless(ps.AggregatedNewton):
    """Never thinks itself near: goes on until it is stopped."""

    def residuals(self, *args: Any) -> Residuals:
        return Residuals(float("inf"))


@dataclass(frozen=True, kw_only=True)
class Still(Endless):
    """Absorbs every push but leaves the linear solve out: what is left is the protocol."""

    def consensus(self, state: Any, penalty: Any, z: Any) -> Any:
        return z, state


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def until(condition: Any, limit: float = 60.0, every: float = 0.002) -> None:
    """Poll."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not come true")
        time.sleep(every)
