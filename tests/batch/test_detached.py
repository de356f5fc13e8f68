"""Fits that need nobody's login: the head job, its end, and its successor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster.helpers import until
from distributed import Client

import paramserver as ps
from paramserver.cluster import schedulerfile

from .site import IMPORTS
from .slurm import Slurm

#: ADMM in a metric that does not suit the data takes minutes to the tolerance, which is changed when enough was seen
LONG = """
X: flights
name: long
consensus: {admm: {metric: identity}}
tol: 1e-13
cluster:
  system: slurm
  jobs: 2
  cores: 1
  memory: 1GB
  interface: lo
  walltime: '00:10:00'
"""


def paramserver(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in this folder."""
    command = [sys.executable, "-m", "paramserver", *words]
    environ = {**os.environ, "PYTHONPATH": IMPORTS}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environ)


def status(folder: Path) -> dict[str, Any] | None:
    """Of the fit, while its scheduler is to be reached."""
    done = paramserver(folder, "status", "--scheduler-file", "out/scheduler.json", "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_the_head_job_is_warned_and_its_successor_finishes(
    slurm: Slurm, no_job_left: None, tmp_path: Path, tls: bool
) -> None:
    (tmp_path / "job.yaml").write_text(f"{LONG}  tls: {tls}\n")
    done = paramserver(tmp_path, "fit", "job.yaml", "--detach", "out")
    assert done.returncode == 0, done.stderr
    assert "--scheduler-file" in done.stderr
    (head,) = [job for job, seen in slurm.jobs().items() if seen.name == "out"]
    before = until(lambda: (said := status(tmp_path)) and said["pushes"] > 50 and said, 60)
    slurm.warn(head)
    slurm.wait(head)
    after = until(lambda: (said := status(tmp_path)) and "resumed" in "".join(said["notes"]) and said, 60)
    assert after["epoch"] > before["epoch"]
    (resumed,) = (note for note in after["notes"] if note.startswith("resumed from"))
    assert int(resumed.split()[2]) >= before["pushes"]
    assert "16 of 16 chunks with their local models" in resumed
    found = schedulerfile.read(str(tmp_path / "out" / "scheduler.json"))
    with Client(found.address, security=found.tls and found.tls.security(), set_as_default=False) as client:
        ps.connect("long", client).update(tol=2e-2)
    result = until(lambda: (tmp_path / "out" / "result.json").exists() and _result(tmp_path), 120)
    assert result["converged"]
    assert result["gap"] <= 2e-2
    slurm.wait(*slurm.jobs(), seconds=60)
    assert "result.json" in paramserver(tmp_path, "status", "--scheduler-file", "out/scheduler.json").stderr
    assert not list(tmp_path.glob(".paramserver-tls*"))


def _result(folder: Path) -> Any:
    return json.loads((folder / "out" / "result.json").read_text())


def test_mistakes_are_seen_before_a_job_is_submitted(slurm: Slurm, no_job_left: None, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(LONG.replace("flights", "gone.parquet") + "y: late\n")
    done = paramserver(tmp_path, "fit", "job.yaml", "--detach")
    assert done.returncode == 2
    assert "gone.parquet" in done.stderr
    assert not slurm.jobs()
    assert not list(tmp_path.glob("paramserver-*"))


def test_others_are_shown(slurm: Slurm, no_job_left: None, tmp_path: Path) -> None:
    """What the head job says last is what the command says."""
    np.save(tmp_path / "z0.npy", np.zeros(3))
    (tmp_path / "job.yaml").write_text(f"{LONG}z0: z0.npy\n")
    done = paramserver(tmp_path, "fit", "job.yaml", "--detach", "out")
    assert done.returncode == 1
    assert "z0 has shape (3,), this problem's z has (165,)" in done.stderr


def test_a_folder_is_one_fit_s(slurm: Slurm, no_job_left: None, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(LONG)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "head.sh").touch()
    done = paramserver(tmp_path, "fit", "job.yaml", "--detach", "out")
    assert done.returncode == 2
    assert "another detached fit" in done.stderr
    assert not slurm.jobs()
