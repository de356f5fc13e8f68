"""Jobs that are told before they end: walltime costs a run nothing but time."""

from __future__ import annotations

import contextlib
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

WARNING = 60  #: seconds before its end that a job is told; Slurm may do so up to a minute earlier


class Watched:
    """A run, and what its status said while it went on."""

    def __init__(self, run: Any) -> None:
        self.run, self.seen = run, []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with contextlib.suppress(ps.errors.ParamServerError):  # the test ended before
            for status in self.run.watch(every=0.2):
                if status.server:
                    self.seen.append(status)

    def end(self, seconds: float) -> Any:
        """The result, after a look at whether anything ever went back."""
        result = self.run.result(timeout=seconds)
        self._thread.join(20)
        check(self.run)
        refused = self.seen[-1].refused
        print(f"{result.n_pushes} pushes, epochs up to {self.seen[-1].epoch}, {result.seconds:.0f} s, {refused}")
        assert refused.keys() <= {"late"}  # a step that two runners were at, of which the other's answer came first
        for what in (lambda s: s.pushes, lambda s: s.version.n):
            values = [what(status) for status in self.seen]
            assert values == sorted(values)
        return result


@pytest.mark.timeout(120)
def test_the_server_s_job_is_warned(on_slurm: Start) -> None:
    site = on_slurm(jobs=3)
    run = Watched(launch(site.client, Slow(delay=0.2)))
    job = site.workers()[under_way(run.run)]
    site.system.warn(job)
    until(lambda: run.run.status().epoch == 2)
    site.system.wait(job)
    until(lambda: len(site.system.jobs()) == 3)  # another came in its place, by itself
    run.end(60)


@pytest.mark.timeout(420)
def test_all_jobs_expire_together_again_and_again(on_slurm: Start, tmp_path: Path) -> None:
    """What comes after goes on from where it was, though nobody was left to hold anything but the scheduler."""
    site = on_slurm(2, walltime="00:02:00", warning=WARNING)
    run, loads = long_run(site, tmp_path, delay=0.33)
    result = run.end(360)
    assert result.seconds > 120, "it did not outlast a job"
    epochs = {status.epoch for status in run.seen}
    assert len(epochs) > 1
    assert result.n_pushes <= 1.2 * uninterrupted()
    assert len(loads()) <= CHUNKS * len(epochs)  # data are read once a generation of jobs


@pytest.mark.timeout(420)
def test_jobs_expire_one_after_the_other(on_slurm: Start, tmp_path: Path) -> None:
    """Each hands its data on to the other: nothing is read twice."""
    site = on_slurm(1, walltime="00:03:00", warning=WARNING)
    first, began = set(site.system.jobs()), time.monotonic()
    time.sleep(70)  # Slurm looks at its jobs once a minute, and tells all at once that are due
    site.scale(2)
    both = set(site.system.jobs())
    run, loads = long_run(site, tmp_path, delay=0.4)
    assert run.end(300).n_pushes <= 1.2 * uninterrupted()
    assert time.monotonic() - began > 180, "it did not outlast a job"
    assert not first & set(site.system.jobs())
    assert both & set(site.system.jobs()) != both
    assert len(loads()) < 2 * CHUNKS


def uninterrupted() -> int:
    """Pushes of the same fit."""
    alone = ps.simulate(ps.Logistic(), X, Y, chunks=CHUNKS, penalty=PENALTY, tol=1e-8, consensus="admm")
    return int(alone.result.n_pushes)


def long_run(site: Site, folder: Path, delay: float) -> tuple[Watched, Callable[[], list[Path]]]:
    """A fit whose steps take their time, and what lists the reads of its data."""
    loads = folder / "loads"
    loads.mkdir()
    data = [chunk(i, loads) for i in range(CHUNKS)]
    fit = ps.launch(Slow(delay=delay), data, penalty=PENALTY, tol=1e-8, consensus="admm", client=site.client)
    return Watched(fit), lambda: list(loads.iterdir())


def chunk(i: int, loads: Path) -> Any:
    """A chunk that leaves a mark wherever it is read."""
    return dask.delayed(_read, pure=False)(i, str(loads))


def _read(i: int, loads: str) -> Any:
    Path(loads, f"{i}-{time.time_ns()}").touch()
    rows = slice(i * len(X) // CHUNKS, (i + 1) * len(X) // CHUNKS)
    return X[rows], Y[rows]
