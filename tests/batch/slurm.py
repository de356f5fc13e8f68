"""Batch systems by their own commands."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cluster.helpers import until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
LOCAL = DEPLOY / "local"
COMMAND = 20.0  #: seconds for a command to answer
COMES_UP = 300.0  #: seconds for a batch system to be installed and started


class Job(NamedTuple):
    """A job that has not ended."""

    state: str  #: PENDING, RUNNING …
    node: str  #: where it runs
    reason: str  #: why it does not run yet
    name: str


def call(*words: Any, timeout: float = COMMAND) -> str:
    """What a command prints; that it fails is an error that shows what it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


class Slurm:
    """The Slurm that SLURM_CONF names."""

    def jobs(self) -> dict[str, Job]:
        """Everyone's jobs, by their ids; not those of which only dying processes are left."""
        lines = call("squeue", "--noheader", "--format=%A|%T|%N|%r|%j").splitlines()
        listed = {job: Job(*rest) for job, *rest in (line.split("|", 4) for line in lines)}
        return {job: seen for job, seen in listed.items() if seen.state != "COMPLETING"}

    def submit(self, script: Path, *options: str) -> str:
        """The id of the job that runs a script."""
        return call("sbatch", "--parsable", *options, script).strip()

    def cancel(self, *jobs: str) -> None:
        """End jobs; those that have ended are none of its business."""
        subprocess.run(["scancel", *jobs], capture_output=True, timeout=COMMAND)

    def warn(self, job: str) -> None:
        """Send SIGUSR1 to a job's batch script at once, as ``--signal=B:USR1@60`` does a minute before the end."""
        call("scancel", "--batch", "--signal=USR1", job)

    def state(self, job: str) -> str:
        """The state of a job, of one that ended within the last minutes too."""
        found = re.search(r"JobState=(\w+)", call("scontrol", "show", "job", job))
        assert found is not None
        return found[1]

    def wait(self, *jobs: str, seconds: float = 60.0) -> None:
        """Until these jobs have ended."""
        until(lambda: not set(jobs) & set(self.jobs()), seconds, every=0.2)

    @contextlib.contextmanager
    def drained(self, node: str) -> Iterator[None]:
        """No job starts on a node; those that run there go on."""
        call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        try:
            yield
        finally:
            call("scontrol", "update", f"nodename={node}", "state=resume")

    def setting(self, name: str) -> str:
        """Of slurm.conf, as the controller has it."""
        found = re.search(rf"^{name} *= *(.*)$", call("scontrol", "show", "config"), re.MULTILINE)
        assert found is not None, name
        return found[1].strip()


class Torque(Slurm):
    """A Slurm, with PBS's commands in front of it."""

    def cancel(self, *jobs: str) -> None:
        """By qdel."""
        call("qdel", *jobs)


class GridEngine:
    """The Grid Engine that SGE_ROOT names."""

    def jobs(self) -> dict[str, str]:
        """Everyone's jobs, and their states."""
        lines = [line.split() for line in call("qstat", "-u", "*").splitlines()[2:]]
        return {job: state for job, _, _, _, state, *_ in lines}

    def cancel(self, *jobs: str) -> None:
        """By qdel."""
        call("qdel", *jobs)
