"""A Dask cluster whose workers are jobs, and what is asked of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
from cluster.helpers import TESTS
from distributed import Client

import paramserver as ps

QUICK = {"distributed.deploy.lost-worker-timeout": "2s"}  #: after which the cluster forgets the job of a lost worker
JOBS_START = 60.0  #: seconds for jobs to start and their workers to be there
IMPORTS = os.pathsep.join([str(TESTS), str(Path(ps.__file__).parent.parent)])  #: what a job's Python finds


class Site(NamedTuple):
    """A dask-jobqueue cluster, and the batch system that has its jobs."""

    cluster: Any
    client: Client
    system: Any  #: where its jobs are: `jobs`, `cancel`

    def scale(self, jobs: int) -> None:
        """So many jobs, and wait for their workers."""
        self.cluster.scale(jobs=jobs)
        if jobs:
            self.client.wait_for_workers(jobs * self.cluster.new_spec["options"]["processes"], timeout=JOBS_START)

    def workers(self) -> dict[str, str]:
        """Address → job of the workers there are."""
        there = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: self.job(worker["name"]) for address, worker in there.items()}

    def job(self, name: str) -> str:
        """The job of the worker of that name."""
        started = self.cluster.workers.get(name) or self.cluster.workers[name.rpartition("-")[0]]  # one of several
        return str(started.job_id)


@contextlib.contextmanager
def starting(kind: Any, system: Any, folder: Path, **defaults: Any) -> Iterator[Callable[..., Site]]:
    """``start(jobs=2, **options)`` makes a cluster of this class by `settings`, with so many jobs, and its client."""
    with contextlib.ExitStack() as opened, dask.config.set(QUICK):

        def start(jobs: int = 0, **options: Any) -> Site:
            ours = {**worker_options(folder), **defaults, **options}
            cluster = opened.enter_context(kind(**ps.cluster.settings(kind.job_cls.config_name, **ours)))
            client = opened.enter_context(Client(cluster, set_as_default=False))
            site = Site(cluster, client, system)
            site.scale(jobs)
            return site

        yield start
    for log in sorted((folder / "logs").glob("*")):  # pytest shows them where the test failed
        print(f"{log.name}:\n{log.read_text(errors='replace')[-4000:]}")


def worker_options(folder: Path) -> dict[str, Any]:
    """For `settings`: small jobs that find the tests' helpers, their logs and scratch files in a folder."""
    return {
        "cores": 1,
        "processes": 1,
        "memory": "1GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "local_directory": str(folder / "scratch"),
        "log_directory": str(folder / "logs"),
        "job_script_prologue": [f"export PYTHONPATH={IMPORTS}"],
        "silence_logs": "critical",
    }


def python_script(folder: Path, *words: Any) -> Path:
    """A batch script that runs this Python with these words, and can be sent signals (``exec``)."""
    script = folder / f"{time.monotonic_ns()}.sh"
    line = shlex.join(["exec", sys.executable, *map(str, words)])
    script.write_text(f"#!/usr/bin/env bash\nexport PYTHONPATH={IMPORTS}\n{line}\n")
    return script
