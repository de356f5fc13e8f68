"""The wait for a cluster's first worker, and why it does not come."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from paramserver.cluster.request import Request
from paramserver.cluster.submissions import Submissions
from paramserver.cluster.systems import SYSTEMS, Job, look
from paramserver.errors import JobRefused, NoWorkers

LOOK = 3.0  #: seconds between two looks at the queue


def wait(request: Request, cluster: Any, submissions: Submissions, say: Callable[[str], None]) -> None:
    """Return when there is a worker; raise `JobRefused` or `NoWorkers` when there will be none."""
    limit, next_look, absent = time.monotonic() + request.wait, 0.0, 0
    jobs: dict[str, Job] | None = {}
    while not cluster.scheduler_info["workers"]:
        _check_refused(request, submissions)
        now = time.monotonic()
        if now >= min(next_look, limit) and submissions.accepted:
            next_look, jobs = now + LOOK, look(request.system, submissions.accepted)
            absent = absent + 1 if jobs == {} else 0
            say(f"waiting for the first worker: {_described(request, jobs)}")
        if absent == 2:  # a job may take a moment to be listed
            raise NoWorkers(f"{_named(submissions.accepted)} ended before a worker came{_output(cluster, submissions)}")
        if now >= limit:
            raise NoWorkers(_why(request, cluster, submissions, jobs))
        time.sleep(0.1)


def _check_refused(request: Request, submissions: Submissions) -> None:
    if submissions.refused and len(submissions.refused) >= request.least:
        raise JobRefused(f"{request.system} refuses the job: {submissions.refused[-1]} (--dry-run shows the script)")


def _described(request: Request, jobs: dict[str, Job] | None) -> str:
    """``2 pending (Resources), 1 running``."""
    if jobs is None:
        return f"{SYSTEMS[request.system].look.split()[0]} does not answer"
    kinds = Counter(f"pending ({job.reason or job.state})" if job.pending else "running" for job in jobs.values())
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no job in the queue"


def _why(request: Request, cluster: Any, submissions: Submissions, jobs: dict[str, Job] | None) -> str:
    begin = f"no worker within {request.wait:g} s: {_described(request, jobs)}"
    running = [job for job, seen in (jobs or {}).items() if not seen.pending]
    if running:
        return (
            f"{begin}; {_named(running)} did not reach the scheduler at {cluster.scheduler_address}: is this machine "
            f"to be reached from there (interface:), and paramserver installed?{_output(cluster, submissions)}"
        )
    return f"{begin}; wait for longer (--wait S), or ask for less: cores, memory, walltime, another queue"


def _named(jobs: Iterable[str]) -> str:
    ids = list(jobs)
    return f"job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(ids)}"


def _output(cluster: Any, submissions: Submissions) -> str:
    """The last line that one of them wrote, if its file can be found by the usual names."""
    directory = Path(cluster._dummy_job.log_directory or ".")
    ids = "|".join(map(re.escape, submissions.accepted))
    for path in sorted(directory.iterdir()):
        if re.search(rf"[-.][oe]?({ids})(\.out|\.err)?$", path.name) and path.is_file():
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"; {path} ends: {lines[-1].strip()}"
    return (
        f"; nothing that they wrote is in {directory.absolute()}: do all machines see it? log_directory: names another"
    )
