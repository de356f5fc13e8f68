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

import dask_jobqueue
import pytest
from cluster.helpers import until

from .site import Site, starting
from .slurm import COMES_UP, LOCAL, GridEngine, Slurm, Torque, call

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
            up("slurm", root)
            started.callback(down, "slurm", root)
            environ.setenv("SLURM_CONF", str(root / "slurm.conf"))
        found = Slurm()
        assert not found.jobs(), f"the tests need a Slurm without jobs: {found.jobs()}"
        yield found


@pytest.fixture
def no_job_left(slurm: Slurm) -> Iterator[None]:
    """Jobs that outlive their test are ended, and are an error."""
    yield
    none_left(slurm)


def none_left(system: Any) -> None:
    """Of a batch system's jobs."""
    try:
        until(lambda: not system.jobs(), 30.0, every=0.2)
    except AssertionError:
        left = system.jobs()
        system.cancel(*left)
        raise AssertionError(f"jobs are left: {left}") from None


@pytest.fixture
def on_slurm(slurm: Slurm, no_job_left: None, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """``on_slurm(jobs=2, **options)``: a `SLURMCluster` with so many workers, and its client; closed with the test."""
    with starting(dask_jobqueue.SLURMCluster, slurm, tmp_path) as start:
        yield start


@pytest.fixture
def on_pbs(slurm: Slurm, no_job_left: None, tmp_path: Path, monkeypatch: Any) -> Iterator[Callable[..., Site]]:
    """The same of a `PBSCluster`: PBS's commands in front of the Slurm."""
    root = Path(os.environ["SLURM_CONF"]).parent
    up("pbs", root)
    enter(root, monkeypatch)
    monkeypatch.chdir(tmp_path)  # where its logs go, whatever the job says
    with starting(dask_jobqueue.PBSCluster, Torque(), tmp_path, resource_spec="nodes=1:ppn=1,mem=1gb") as start:
        yield start


@pytest.fixture(scope="session")
def sge_root(tmp_path_factory: Any) -> Iterator[Path]:
    """Of a Grid Engine that answers."""
    asked_for("Grid Engine")
    if "SGE_ROOT" in os.environ:
        yield Path(os.environ["SGE_ROOT"])
        return
    root = tmp_path_factory.mktemp("sge") / "root"
    up("sge", root)
    yield root
    down("sge", root)


@pytest.fixture
def on_sge(sge_root: Path, tmp_path: Path, monkeypatch: Any) -> Iterator[Callable[..., Site]]:
    """The same of an `SGECluster`."""
    enter(sge_root, monkeypatch)
    system = GridEngine()
    with starting(dask_jobqueue.SGECluster, system, tmp_path, queue="default.q") as start:
        yield start
    none_left(system)


def up(system: str, root: Path) -> None:
    """Start a batch system, unless it is up."""
    subprocess.run([LOCAL / system / "up", root], check=True, timeout=COMES_UP)


def down(system: str, root: Path) -> None:
    """And end it."""
    subprocess.run([LOCAL / system / "down", root], check=True, timeout=COMES_UP)


def enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``source ROOT/env``."""
    said = call("bash", "-c", f"source {root}/env && env -0")
    for name, _, value in (line.partition("=") for line in said.split("\0") if line):
        monkeypatch.setenv(name, value)
