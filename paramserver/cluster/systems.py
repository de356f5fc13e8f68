"""The batch systems: their classes in dask-jobqueue, how they warn a job of its end, and what they say of jobs."""

from __future__ import annotations

import getpass
import importlib
import re
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paramserver.errors import InvalidInput
from paramserver.plugins import nearest

ANSWER = 10.0  #: seconds for a batch system's command
ASKED = 3  #: pending jobs that it is asked about one by one


@dataclass(frozen=True)
class System:
    """A batch system; the regular expressions read what its commands print."""

    cluster: str  #: the class in dask_jobqueue
    look: str  #: lists the user's jobs, one a line
    line: str  #: of that list: id, state, and reason where the list has it
    pending: Collection[str]  #: states
    over: Collection[str] = ()  #: states of jobs that are listed though they have ended
    why: str = ""  #: says more of one job
    reason: str = ""  #: within that
    #: directives, warning a job in {seconds} or {minutes} → the user's own in whose place they are not given
    warn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    always: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_PBS: dict[str, Any] = {
    "look": "qstat",
    "line": r"(?P<id>\d+)\S*\s+\S+\s+\S+\s+\S+\s+(?P<state>[A-Z])\s",
    "pending": "QHW",
    "over": "CFX",
    "why": "qstat -f {id}",
    "reason": r"comment = (.*)",
}
SYSTEMS = {
    "htcondor": System(
        "HTCondorCluster",
        look="condor_q -af ClusterId ProcId JobStatus HoldReason",
        line=r"(?P<id>\d+ \d+) (?P<state>\d) (?P<reason>.*)",
        pending="15",
        over="34",
    ),
    "lsf": System(
        "LSFCluster",
        look="bjobs -w",
        line=r"(?P<id>\d+)\s+\S+\s+(?P<state>[A-Z]+)\s",
        pending=("PEND", "PSUSP"),
        over=("DONE", "EXIT"),
        why="bjobs -p {id}",
        reason=r"\n\s*\d+ .*\n\s*(.*)",
        warn={"-wa USR1": ("-wa",), "-wt {minutes}": ("-wt",)},
    ),
    "moab": System("MoabCluster", **_PBS),
    "oar": System(
        "OARCluster",
        look="oarstat -u",
        line=r"(?P<id>\d+)\s+(?:.*\s)?(?P<state>[A-Z])\s",
        pending="WHt",
        over="TE",
        why="oarstat -fj {id}",
        reason=r"message = (.*)",
        warn={"--checkpoint {seconds}": ("--checkpoint",)},
    ),
    "pbs": System("PBSCluster", **_PBS),
    "sge": System(
        "SGECluster",
        look="qstat -u {user}",
        line=r"(?P<id>\d+)\s+\S+\s+\S+\s+\S+\s+(?P<state>\w+)\s",
        pending=("qw", "hqw", "Eqw"),
        why="qstat -j {id}",
        reason=r"(?:scheduling info|error reason\s+\d+):\s*(.*)",
        warn={"-notify": ("-notify",)},
    ),
    "slurm": System(
        "SLURMCluster",
        look="squeue --noheader --user={user} --format='%A %t %r'",
        line=r"(?P<id>\d+) (?P<state>\w+) (?P<reason>.*)",
        pending=("PD", "CF"),
        warn={"--signal=B:USR1@{seconds}": ("--signal",)},
        always={"--no-requeue": ("--requeue", "--no-requeue")},
    ),
}


class Job(NamedTuple):
    """A job that a batch system has."""

    pending: bool
    state: str
    reason: str


def system(name: str) -> System:
    """The batch system of that name."""
    if name not in SYSTEMS:
        raise InvalidInput(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}{nearest(name, SYSTEMS)}")
    return SYSTEMS[name]


def cluster_class(name: str) -> Any:
    """Its class in dask-jobqueue."""
    made = system(name).cluster
    interrupts = signal.getsignal(signal.SIGINT)
    try:
        return getattr(importlib.import_module("dask_jobqueue"), made)
    except ImportError as error:
        raise InvalidInput(
            f'{made} is of dask-jobqueue, which cannot be imported ({error}): pip install "paramserver[jobqueue]"'
        ) from error
    finally:
        if signal.getsignal(signal.SIGINT) is not interrupts:  # its import makes a silent exit of every Ctrl-C
            signal.signal(signal.SIGINT, interrupts)


def look(name: str, ids: Collection[str]) -> dict[str, Job] | None:
    """Those of these jobs that have not ended, by their ids; None where the batch system does not say."""
    asked = SYSTEMS[name]
    said = call(asked.look.format(user=getpass.getuser()))
    if said is None:
        return None
    found = listed(asked, said, ids)
    for job in [job for job, seen in found.items() if seen.pending and asked.why][:ASKED]:
        found[job] = found[job]._replace(reason=reason(asked, call(asked.why.format(id=job)) or ""))
    return found


def listed(asked: System, text: str, ids: Collection[str]) -> dict[str, Job]:
    """Those of these jobs that are in its list and have not ended."""
    found = {}
    for match in filter(None, (re.match(asked.line, line.strip() + " ") for line in text.splitlines())):
        job, state = match["id"].replace(" ", "."), match["state"]
        if job in ids and state not in asked.over:
            found[job] = Job(state in asked.pending, state, match.groupdict().get("reason", "").strip())
    return found


def reason(asked: System, text: str) -> str:
    """Why a job is pending, by what it says of this one."""
    found = re.search(asked.reason, text)
    return "" if found is None else found[1].strip()


def call(command: str) -> str | None:
    """What a command prints; None where it fails or takes too long."""
    try:
        # A session of its own: Ctrl-C is for us, who then still have jobs to cancel
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=ANSWER, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
