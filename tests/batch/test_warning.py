"""Jobs that are told before they end: walltime costs a run nothing but time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
from cluster.helpers import Slow, until
from faults.helpers import CHUNKS, PENALTY, X, Y, check, launch, under_way

import paramserver as ps

from .site import Site

Start = Callable[..., Site]

WALLTIME = "00:02:00"  #: Slurm counts in minutes
WARNING = 60  #: seconds before its end that a job is told; Slurm may do so up to a minute earlier
WORK = 0.4  #: seconds for every look at a chunk, so that all steps take two workers longer than any job lives


class Watched:
    """A run, and what its status said while it went on."""

    def __init__(self, run: Any) -> None:
        self.run, self.seen = run, []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        for status in self.run.watch(every=0.2):
            if status.server:
                self.seen.append(status)

    def end(self, seconds: float) -> Any:
        """The result, after a look at whether anything ever went back."""
        result = self.run.result(timeout=seconds)
        self._thread.join(20)
        for what in (lambda s: s.pushes, lambda s: s.version.n):
            values = [what(status) for status in self.seen]
            assert values == sorted(values)
        return result


@pytest.mark.timeout(120)
def test_the_server_s_job_is_warned(on_slurm: Start) -> None:
    site = on_slurm(jobs=3)
    run = Watched(launch(site.client, Slow(delay=0.2)))
    job = site.workers()[under_way(run.run)]
    site.slurm.warn(job)
    until(lambda: run.run.status().epoch == 2)
    site.slurm.wait(job)
    until(lambda: len(site.slurm.jobs()) == 3)  # another came in its place, by itself
    assert run.end(60).n_refused == 0
    check(run.run)


@pytest.mark.timeout(480)
@pytest.mark.parametrize("apart", [0, 40], ids=["all together", "staggered"])
def test_the_work_outlasts_every_job(on_slurm: Start, tmp_path: Path, apart: float) -> None:
    """What comes after goes on from where it was: pushes are not made again, data are read once a job."""
    site = on_slurm(walltime=WALLTIME, warning=WARNING)
    for jobs in (1, 2):
        site.scale(jobs)
        time.sleep(apart if jobs == 1 else 0)
    loads = tmp_path / "loads"
    loads.mkdir()
    began = time.monotonic()
    fit = ps.launch(
        Slow(delay=WORK), [chunk(i, loads) for i in range(CHUNKS)], penalty=PENALTY, tol=1e-8, consensus="admm",
        client=site.client,
    )  # fmt: skip
    run = Watched(fit)
    result = run.end(420)
    assert check(fit).n_refused == 0
    assert time.monotonic() - began > 120, "it did not outlast a job"
    epochs = {status.epoch for status in run.seen}
    assert len(epochs) > 1
    alone = ps.simulate(ps.Logistic(), X, Y, chunks=CHUNKS, penalty=PENALTY, tol=1e-8, consensus="admm").result
    assert result.n_pushes <= 1.2 * alone.n_pushes
    read = len(list(loads.iterdir()))
    print(f"{result.n_pushes} pushes, {alone.n_pushes} uninterrupted; {read} loads of {CHUNKS} chunks; {epochs}")
    assert CHUNKS <= read <= CHUNKS * len(epochs)


def chunk(i: int, loads: Path) -> Any:
    """A chunk that leaves a mark wherever it is read."""
    return dask.delayed(_read, pure=False)(i, str(loads))


def _read(i: int, loads: str) -> Any:
    Path(loads, f"{i}-{time.time_ns()}").touch()
    rows = slice(i * len(X) // CHUNKS, (i + 1) * len(X) // CHUNKS)
    return X[rows], Y[rows]
