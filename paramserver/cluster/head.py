"""A fit that needs nobody's login: a small job runs scheduler and server, and submits its successor before it ends.

All that belongs to it is in one folder, which every machine sees: the job's script and output, where its scheduler
is now, checkpoints, and in the end the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paramserver.cluster import schedulerfile
from paramserver.cluster.credentials import Credentials
from paramserver.cluster.jobs import build, check_here
from paramserver.cluster.preload import SIGNALS
from paramserver.cluster.request import Request
from paramserver.cluster.submissions import Submissions, said
from paramserver.cluster.systems import cluster_class, look
from paramserver.errors import InvalidInput, JobRefused, NoWorkers

logger = logging.getLogger("paramserver")

LOOK = 2.0  #: seconds between looks at a job that was submitted
PATIENCE = 7 * 86400.0  #: seconds that a head job waits for workers: its walltime is shorter
LEAVES = 10.0  #: seconds for the worker of the server to end


class Folder:
    """What there is of one detached fit."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        self.script, self.result = self.path / "head.sh", self.path / schedulerfile.RESULT
        self.scheduler, self.checkpoint = self.path / "scheduler.json", self.path / "checkpoint"

    def make(self) -> None:
        """A new one, which holds no other fit."""
        if self.script.exists():
            over = f"its result is in {self.result}" if self.result.exists() else f"it goes on with {self.script}"
            raise InvalidInput(f"{self.path} is another detached fit's, {over}: pass another, --detach DIR, or --name")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"{self.path} cannot be made ({error.strerror}): --detach DIR, a directory of yours that every machine "
                "sees"
            ) from None

    def unmake(self) -> None:
        """Nothing was begun."""
        self.script.unlink()
        with contextlib.suppress(OSError):  # something else is in it
            self.path.rmdir()

    def says(self) -> str:
        """The scheduler's file, while there is one; else nothing."""
        return str(self.scheduler) if self.scheduler.exists() else ""

    @contextlib.contextmanager
    def announced(self, address: str, tls: Credentials | None) -> Iterator[None]:
        """The scheduler is there, until the end of the block."""
        aside = self.path / f"scheduler-{os.getpid()}.json"
        schedulerfile.save(str(aside), address, tls)
        os.replace(aside, self.scheduler)
        try:
            yield
        finally:
            if self.says() and json.loads(self.scheduler.read_text())["address"] == address:  # no successor's
                self.scheduler.unlink()

    def conclude(self, result: dict[str, Any]) -> None:
        """Write the result, whole or not at all."""
        aside = self.result.with_suffix(".tmp")
        aside.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, self.result)


# -- the job -----------------------------------------------------------------------------------------


def write_script(folder: Folder, request: Request, words: Sequence[str]) -> None:
    """The job's script: the command ``words`` in a job as large as ``request.head`` says."""
    folder.script.write_text(asyncio.run(_script(folder, request, words)), encoding="utf-8")


async def _script(folder: Folder, request: Request, words: Sequence[str]) -> str:
    own = {"processes": 1, "log_directory": str(folder.path), "job_name": folder.path.name}
    keywords = {**request.keywords, **own, **request.head}
    cluster = build(dataclasses.replace(request, keywords=keywords), None, Submissions(), asynchronous=True)
    try:
        job = cluster._dummy_job
        job._command_template = shlex.join([*shlex.split(cluster._job_kwargs["python"]), "-m", "paramserver", *words])
        script: str = job.job_script()
    finally:
        await cluster.close()
    lines = script.splitlines(keepends=True)  # directives come first, or are none
    first = next(k for k, text in enumerate(lines) if text.strip() and not text.startswith("#"))
    return "".join([*lines[:first], f"cd {shlex.quote(os.getcwd())}\n", *lines[first:]])


def submit(folder: Folder, request: Request) -> str:
    """Submit the script: the job's id."""
    return asyncio.run(_submit(folder, request))


async def _submit(folder: Folder, request: Request) -> str:
    check_here(request, cluster_class(request.system).job_cls.submit_command.split()[0])
    cluster = build(request, None, Submissions(), asynchronous=True)
    try:
        job = cluster._dummy_job
        return str(job._job_id_from_submit_output(await job._submit_job(str(folder.script))))
    except (OSError, RuntimeError, ValueError) as error:
        raise JobRefused(f"{request.system} refuses the job {folder.script}: {said(error)}") from None
    finally:
        await cluster.close()


def wait(folder: Folder, request: Request, job: str, say: Callable[[str], None]) -> bool:
    """Whether the job's scheduler came up within ``request.wait`` seconds; not: it is pending.

    Raises
    ------
    NoWorkers
        The job ended before.
    """
    limit, absent = time.monotonic() + request.wait, 0
    while not folder.says():
        jobs = look(request.system, [job])
        absent = absent + 1 if jobs == {} else 0
        if absent == 2 and not folder.says():  # a job may take a moment to be listed
            raise NoWorkers(f"job {job} ended before its run began; what it wrote is in {folder.path}{_output(folder)}")
        if time.monotonic() > limit:
            return False
        for seen in (jobs or {}).values():
            say(f"job {job} {f'is pending ({seen.reason or seen.state})' if seen.pending else 'runs: it begins'}")
        time.sleep(LOOK)
    return True


def _output(folder: Folder) -> str:
    """The last line of the newest output."""
    outputs = [path for path in folder.path.iterdir() if path.suffix not in (".sh", ".json", ".tmp") and path.is_file()]
    for path in sorted(outputs, key=lambda path: path.stat().st_mtime, reverse=True):
        lines = path.read_text(errors="replace").strip().splitlines()
        if lines:
            return f"; {path.name} ends: {lines[-1].strip()}"
    return ""


# -- within it ---------------------------------------------------------------------------------------


def warned() -> threading.Event:
    """Set when this job is told that it is about to end. For the main thread."""
    event = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: event.set())
    return event


@contextlib.contextmanager
def worker(address: str, tls: Credentials | None) -> Iterator[str]:
    """A worker for servers in this job: its name."""
    name = f"head-{os.getpid()}"
    words = ["--name", name, "--nthreads", "1", "--resources", "paramserver=1", "--dashboard-address", "127.0.0.1:0"]
    if tls is not None:
        words += ["--tls-ca-file", tls.ca_file, "--tls-cert", tls.cert, "--tls-key", tls.key]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--death-timeout", "60", *words]
    process = subprocess.Popen(command, start_new_session=True)  # a signal to the group is for this process
    try:
        yield name
    finally:
        process.terminate()
        try:
            process.wait(LEAVES)
        except subprocess.TimeoutExpired:
            process.kill()
