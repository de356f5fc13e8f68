"""The command line on a real Slurm: what it starts it ends, and what goes wrong it says in a line or two."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from cluster.helpers import make_data, until

from .site import IMPORTS
from .slurm import Slurm

pytestmark = pytest.mark.timeout(180)

ENDS = 60.0  #: seconds for a command to end that was told to
STARTS = 90.0  #: seconds for a command's run to be live


class Command:
    """``paramserver`` in a directory of its own, with small jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PYTHONPATH": IMPORTS, "OMP_NUM_THREADS": "1"}
        self.started: list[subprocess.Popen[str]] = []
        X, y = make_data(3000, 4, seed=3)
        pd.DataFrame(X, columns=list("abcd")).assign(late=y).to_csv(folder / "data.csv", index=False)

    def job(self, cluster: dict[str, Any] | None = None, **keys: Any) -> str:
        """A job file's name."""
        options = {"system": "slurm", "cores": 1, "memory": "1GB", "walltime": "0:10:00", "interface": "lo"}
        whole = {"X": "data.csv", "y": "late", "name": "front", **keys, "cluster": {**options, **(cluster or {})}}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        return "job.yaml"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin it, as a shell does: heeding SIGHUP, whatever these tests were started by."""
        heeded = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "paramserver", *words], cwd=self.folder, env={**os.environ, **self.environ},
                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGHUP, heeded)
        self.started.append(process)
        return process

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What it prints, and says on the way, when it has ended."""
        process = self.start(*words)
        out, err = process.communicate(timeout=150)
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out, err

    def live(self, process: subprocess.Popen[str]) -> list[str]:
        """How other commands reach its run, once that has converged and is kept."""
        assert process.stderr is not None
        words: list[str] = []
        for line in process.stderr:
            if "paramserver status" in line:
                words = line.split()[2:]
            if line.startswith("kept live"):
                return words
        raise AssertionError(f"it ended with {process.wait()}, {words}")


@pytest.fixture
def command(slurm: Slurm, no_job_left: None, tmp_path: Path) -> Iterator[Command]:
    """The jobs that a test's commands start end with it."""
    made = Command(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=10)
    for log in sorted(tmp_path.glob("slurm-*.out")):  # pytest shows them where the test failed
        print(f"{log.name}:\n{log.read_text(errors='replace')[-4000:]}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=ENDS)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_a_fit(command: Command, slurm: Slurm) -> None:
    out, err = command("fit", command.job(), "--jobs", "2", "--tol", "1e-8", "--json")
    result = json.loads(out.splitlines()[-1])
    assert result["converged"]
    assert 0 <= result["gap"] <= 1e-8
    assert result["n_rows"] == 3000
    assert "paramserver watch --scheduler tcp://127.0.0.1:" in err
    assert "certified gap" in err
    assert err.rstrip().endswith("cancelling the jobs")
    assert not slurm.jobs()


@pytest.mark.parametrize(
    ("system", "options", "refusal"),
    [
        ("pbs", {"resource_spec": "nodes=1:ppn=1,mem=1gb"}, "invalid partition specified: nosuch"),
        ("sge", {}, 'job requests unknown queue "nosuch"'),
    ],
    ids=["pbs", "sge"],
)
def test_other_systems(request: Any, command: Command, system: str, options: dict[str, Any], refusal: str) -> None:
    request.getfixturevalue(f"on_{system}")
    options = {"system": system, "job_script_prologue": [f"export PYTHONPATH={IMPORTS}"], **options}
    out, err = command("fit", command.job(options), "--jobs", "2", "--json")
    assert json.loads(out.splitlines()[-1])["converged"]
    assert err.rstrip().endswith("cancelling the jobs")
    _, err = command("fit", command.job({**options, "queue": "nosuch"}), code=1)
    assert f"{system} refuses the job: " in err
    assert refusal in err
    _, err = command("fit", command.job({**options, "job_extra_directives": ["-h"], "wait": 6}), code=1)
    assert "no worker within 6 s: 1 pending (" in err


def test_by_demand(command: Command, slurm: Slurm) -> None:
    process = command.start("fit", command.job(keep=True, chunks=8), "--adapt", "0:2")
    command.live(process)
    assert 1 <= len(slurm.jobs()) <= 2
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_a_script_and_no_job(command: Command, slurm: Slurm) -> None:
    out, err = command("fit", command.job({"queue": "debug"}), "--dry-run")
    assert err == ""
    assert out.startswith("#!/usr/bin/env bash\n")
    for line in ("#SBATCH -p debug", "#SBATCH -t 0:10:00", "#SBATCH --signal=B:USR1@60", "#SBATCH --no-requeue"):
        assert f"{line}\n" in out
    script = command.folder / "script.sh"
    script.write_text(out)
    assert subprocess.run(["sbatch", "--test-only", script], capture_output=True, timeout=60).returncode == 0
    assert not slurm.jobs()


def test_a_queue_that_refuses(command: Command) -> None:
    _, err = command("fit", command.job({"queue": "nosuch"}), "--jobs", "2", code=1)
    assert "slurm refuses the job: sbatch: error: invalid partition specified: nosuch" in err
    assert len(err.splitlines()) == 1


def test_a_job_that_stays_pending(command: Command) -> None:
    cluster = {"job_extra_directives": ["--begin=now+1hour"], "wait": 8}
    _, err = command("fit", command.job(cluster), code=1)
    assert "waiting for the first worker: 1 pending (BeginTime)\n" in err
    assert "paramserver: no worker within 8 s: 1 pending (BeginTime); wait for longer (--wait S)" in err


def test_jobs_that_end_at_once(command: Command) -> None:
    _, err = command("fit", command.job({"job_script_prologue": ["echo no such module >&2; exit 3"]}), code=1)
    assert "ended before a worker came; slurm-" in err
    assert ".out ends: no such module\n" in err


def test_jobs_that_do_not_reach_us(command: Command) -> None:
    _, err = command("fit", command.job({"job_script_prologue": ["sleep 60"], "wait": 6}), code=1)
    assert "no worker within 6 s: 1 running; job " in err
    assert "did not reach the scheduler at tcp://127.0.0.1:" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_leaves_no_jobs(command: Command, slurm: Slurm, number: int) -> None:
    process = command.start("fit", command.job({"jobs": 2}, keep=True))
    command.live(process)
    assert len(slurm.jobs()) == 2
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 0
    assert err == "cancelling the jobs\n"
    assert not slurm.jobs()


def test_jobs_that_end_come_back(command: Command, slurm: Slurm) -> None:
    process = command.start("fit", command.job({"jobs": 2}, keep=True))
    command.live(process)
    first = set(slurm.jobs())
    slurm.cancel(*first)
    until(lambda: len(set(slurm.jobs()) - first) == 2, ENDS, every=0.2)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_told_to_end_while_it_waits(command: Command, slurm: Slurm) -> None:
    process = command.start("fit", command.job({"job_extra_directives": ["--begin=now+1hour"]}))
    until(lambda: len(slurm.jobs()) == 1, STARTS)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # the impatient have their jobs cancelled too
    code, _, err = ended(process)
    assert (code, err.splitlines()[-1]) == (130, "paramserver: interrupted")
    assert not slurm.jobs()


def test_a_run_that_was_stopped_goes_on(command: Command) -> None:
    slow = {"chunks": 8, "consensus": {"admm": {"rho": 1e4}}, "tol": 1e-12, "checkpoint": "a place"}
    process = command.start("fit", command.job(**slow))
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("version ") and "[running]" in line:
            break
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 0
    assert "ended          stopped" in out
    (again,) = (line for line in err.splitlines() if line.startswith("to go on: "))
    assert again == "to go on: paramserver fit job.yaml --resume 'a place'"
    out, _ = command("fit", "job.yaml", "--resume", "a place", "--consensus", "newton", "--json")
    assert json.loads(out.splitlines()[-1])["converged"]


def test_a_killed_command_leaves_no_jobs(command: Command, slurm: Slurm) -> None:
    """Nobody is left to cancel them: workers end when their scheduler is gone."""
    process = command.start("fit", command.job({"jobs": 2}, keep=True))
    command.live(process)
    process.kill()
    process.communicate(timeout=10)
    until(lambda: not slurm.jobs(), 30.0, every=0.2)


def test_tls(command: Command, slurm: Slurm) -> None:
    process = command.start("fit", command.job(keep=True), "--tls", "--require-tls")
    _, file = words = command.live(process)[:2]
    place = Path(file).parent
    assert place.parent == command.folder
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(found.stat().st_mode) for found in place.iterdir()} == {0o600}
    address = json.loads(Path(file).read_text())["address"]
    assert address.startswith("tls://")
    status = json.loads(command("status", *words, "--json")[0])
    assert status["state"] == "converged"
    _, err = command("status", "--scheduler", address, code=2)
    assert "needs a certificate" in err
    command("params", *words, "-o", "z.npy")
    assert np.load(command.folder / "z.npy").shape == (5,)
    command("stop", *words)
    assert ended(process)[0] == 0
    assert not place.exists()
    assert not slurm.jobs()
