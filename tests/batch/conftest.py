"""A real Slurm for the whole session, Dask clusters on it for a test, and no job left by any.

``PARAMSERVER_BATCH=1 pytest -n0 tests/batch``: on the Slurm that SLURM_CONF names, else on one that is started for it
(as root, by deploy/local/slurm/up). A Slurm that is not there is then a failure; without the variable all is skipped.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from cluster.helpers import until
from distributed import Client

from .site import QUICK, Site, worker_options
from .slurm import COMES_UP, LOCAL, Slurm

ASK = "PARAMSERVER_BATCH"


def asked_for(system: str) -> None:
    """Skip the test, unless it is wanted."""
    if os.environ.get(ASK) != "1":
        pytest.skip(f"runs jobs on a real {system}: {ASK}=1 pytest -n0 tests/batch does it")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: Any) -> Iterator[Slurm]:
    """A Slurm that answers and has nothing to do."""
    asked_for("Slurm")
    with contextlib.ExitStack() as started, pytest.MonkeyPatch.context() as environ:
        if "SLURM_CONF" not in os.environ:
            root = tmp_path_factory.mktemp("slurm") / "root"
            subprocess.run([LOCAL / "slurm" / "up", root], check=True, timeout=COMES_UP)
            started.callback(subprocess.run, [LOCAL / "slurm" / "down", root], check=True, timeout=COMES_UP)
            environ.setenv("SLURM_CONF", str(root / "slurm.conf"))
        found = Slurm()
        assert not found.jobs(), f"the tests need a Slurm without jobs: {found.jobs()}"
        yield found


@pytest.fixture
def no_job_left(slurm: Slurm) -> Iterator[None]:
    """Jobs that outlive their test are ended, and are an error."""
    yield
    try:
        until(lambda: not slurm.jobs(), 30.0, every=0.2)
    except AssertionError:
        left = slurm.jobs()
        slurm.cancel(*left)
        raise AssertionError(f"jobs are left: {left}") from None


@pytest.fixture
def on_slurm(slurm: Slurm, no_job_left: None, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """``on_slurm(jobs=2, **options)``: a `SLURMCluster` with so many workers, and its client; closed with the test."""
    from dask_jobqueue import SLURMCluster

    with contextlib.ExitStack() as opened, dask.config.set(QUICK):

        def start(jobs: int = 0, **options: Any) -> Site:
            cluster = opened.enter_context(SLURMCluster(**{**worker_options(tmp_path), **options}))
            client = opened.enter_context(Client(cluster, set_as_default=False))
            site = Site(cluster, client, slurm)
            site.scale(jobs)
            return site

        yield start
    for log in sorted((tmp_path / "logs").glob("*")):  # pytest shows them where the test failed
        print(f"{log.name}:\n{log.read_text(errors='replace')[-4000:]}")
