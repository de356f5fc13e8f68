"""Over TLS by the shared file system: whatever travels, strangers get nothing, and no key is left."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.helpers import Slow, until
from distributed import Client
from faults.certificates import certificates
from faults.helpers import assert_nothing_left, check, launch, under_way
from faults.test_strangers import assert_all_tls, intrude

from .site import IMPORTS, Site, python_script, worker_options
from .slurm import Slurm

pytestmark = pytest.mark.timeout(180)


def test_one_switch(on_slurm: Callable[..., Site], tmp_path: Path) -> None:
    """``security=True``: certificates of this cluster's own, which the jobs read from a shared directory."""
    site = on_slurm(jobs=3, security=True, shared_temp_directory=shared(tmp_path))
    files = list((tmp_path / "shared").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    run = launch(site.client, Slow(delay=0.1), require_tls=True)
    server = under_way(run)
    assert_all_tls(site.client, run)
    site.system.cancel(site.workers()[server])
    until(lambda: run.status().epoch == 2)
    assert_all_tls(site.client, run)
    refused(site.client.scheduler.address, next(iter(site.workers())), tmp_path)
    check(run)
    assert_nothing_left(site.client)


def shared(folder: Path) -> str:
    """A new directory."""
    (folder / "shared").mkdir()
    return str(folder / "shared")


def refused(scheduler: str, worker: str, folder: Path) -> None:
    """Without a certificate, with one of another authority, and in the clear."""
    foreign = certificates(folder / "foreign")
    files = {
        "tls_ca_file": str(foreign.authority),
        "tls_client_cert": str(foreign.certificate),
        "tls_client_key": str(foreign.key),
    }
    clear = [address.replace("tls://", "tcp://") for address in (scheduler, worker)]
    for to, shown in (((scheduler, worker), {}), ((scheduler, worker), files), (clear, {})):
        for got, seconds in intrude(*to, shown):
            assert isinstance(got, list), got  # an error; an answer would be a text
            assert seconds < 15


SCRIPT = """
import dask, json, numpy as np, paramserver as ps, sys
from dask_jobqueue import SLURMCluster
from distributed import Client

if __name__ == "__main__":
    X = np.arange(640.0)[:, None] % 7
    with SLURMCluster(**json.loads(sys.argv[1])) as cluster, Client(cluster) as client:
        cluster.scale(jobs=1)
        print(ps.fit(ps.LeastSquares(), X, X[:, 0] + np.arange(640) % 3, client=client, require_tls=True).certificate)
"""


@pytest.mark.usefixtures("no_job_left")
def test_a_script_leaves_no_key(slurm: Slurm, tmp_path: Path) -> None:
    options = {**worker_options(tmp_path), "security": True, "shared_temp_directory": shared(tmp_path)}
    words = [sys.executable, "-c", SCRIPT, json.dumps(options)]
    out = subprocess.run(words, capture_output=True, text=True, timeout=90, env={**os.environ, "PYTHONPATH": IMPORTS})
    assert (out.stdout.strip(), out.returncode) == ("duality gap", 0), out.stderr
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.usefixtures("no_job_left")
def test_started_by_dask_s_own_commands(slurm: Slurm, tmp_path: Path) -> None:
    """A job for the scheduler, one for each worker: the supervisor shows the scheduler's certificate."""
    ours, file = certificates(tmp_path / "ours"), tmp_path / "scheduler.json"

    def start(*words: Any) -> str:
        script = python_script(tmp_path, "-m", *words, "--scheduler-file", file, *ours.args)
        return slurm.submit(script, "--mem=1G", f"--output={tmp_path}/%j.out")

    jobs = [start("distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard")]
    try:
        until(lambda: file.exists() and file.stat().st_size, 60.0)
        workers = ("distributed.cli.dask_worker", "--nthreads", "1", "--local-directory", tmp_path, "--no-dashboard")
        jobs += [start(*workers) for _ in range(3)]
        with Client(scheduler_file=str(file), security=ours.client, set_as_default=False) as client:
            the_server_s_job_is_lost(client, slurm)
    finally:
        slurm.cancel(*jobs)


def the_server_s_job_is_lost(client: Client, slurm: Slurm) -> None:
    client.wait_for_workers(3, timeout=60)
    run = launch(client, Slow(delay=0.1), require_tls=True)
    server = under_way(run)
    assert_all_tls(client, run)
    slurm.cancel(client.run(os.getenv, "SLURM_JOB_ID", workers=[server])[server])
    until(lambda: run.status().epoch == 2)
    assert_all_tls(client, run)
    check(run)
