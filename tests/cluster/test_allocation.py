"""`SLURMRunner` without a Slurm: the tasks of an allocation are processes with Slurm's variables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import numpy as np, paramserver as ps
from distributed import Client
from paramserver.cluster import SLURMRunner, allocation

allocation.STARTS = float(sys.argv[1])
with SLURMRunner(security=True) as runner, Client(runner) as client:
    client.wait_for_workers(runner.n_workers, timeout=60)
    X = np.arange(640.0)[:, None] % 7
    result = ps.fit(ps.LeastSquares(), X, X[:, 0] + np.arange(640) % 3, require_tls=True, client=client)
    print(result.certificate, len(client.nthreads()), sum(client.nthreads().values()))
"""


def task(number: int, folder: Path, starts: float) -> subprocess.Popen[str]:
    """One of three of an allocation, with two processors."""
    slurm = {"SLURM_PROCID": str(number), "SLURM_NTASKS": "3", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(starts)], env={**os.environ, **slurm}, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_an_allocation_over_tls(tmp_path: Path) -> None:
    """All of it ends with the script, and no key is left."""
    tasks = [task(number, tmp_path, 60.0) for number in range(3)]
    try:
        printed = [one.communicate(timeout=90) for one in tasks]
    finally:
        for one in tasks:
            one.kill()
    assert printed[1][0] == "duality gap 1 2\n", printed
    assert [one.returncode for one in tasks] == [0, 0, 0], printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [1, 2])
def test_no_scheduler_comes(tmp_path: Path, number: int) -> None:
    with task(number, tmp_path, 0.5) as alone:
        _, err = alone.communicate(timeout=60)
    assert alone.returncode == 1
    assert "CallTimeout: no scheduler file scheduler-7.json within 0.5 s: the first task did not start" in err
