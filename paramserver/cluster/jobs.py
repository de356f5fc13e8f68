"""A cluster of a batch system's jobs for one command: started, waited for, and ended, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distributed.core import Status

from paramserver.cluster import credentials, keywords, schedulerfile
from paramserver.cluster.adaptive import Adaptive
from paramserver.cluster.request import Request
from paramserver.cluster.submissions import Submissions, recorded
from paramserver.cluster.systems import SYSTEMS, call, cluster_class, look
from paramserver.cluster.waiting import wait
from paramserver.errors import InvalidInput

CLOSE = 20.0  #: seconds for Dask to end its jobs
GONE = 30.0  #: seconds for what is cancelled to leave the queue
NOWHERE = "<insert-scheduler-address-here>"  #: dask-jobqueue's


class Started(NamedTuple):
    """A cluster with a worker at least."""

    cluster: Any
    scheduler_file: str | None  #: of a scheduler that lets in only who has what it names


def script(request: Request) -> str:
    """The job script of a request, nothing submitted."""
    return asyncio.run(_script(request))


async def _script(request: Request) -> str:
    tls = credentials.within(os.path.join(_shared(request), ".paramserver-tls-…")) if request.tls else None
    cluster = build(request, tls, Submissions(), asynchronous=True)
    try:
        text: str = cluster.job_script()
    finally:
        await cluster.close()
    return text.replace(f"tcp://{NOWHERE}", f"tls://{NOWHERE}") if request.tls else text


@contextlib.contextmanager
def started(request: Request, say: Callable[[str], None]) -> Iterator[Started]:
    """The cluster, as soon as it has a worker; at the end its jobs are cancelled and looked up.

    Parameters
    ----------
    request : Request
    say : callable of str
        Is told how it goes.

    Raises
    ------
    InvalidInput
        The request cannot be met as it is.
    JobRefused
        The batch system takes none of the jobs.
    NoWorkers
        None came within ``request.wait`` seconds, or the jobs ended before.
    """
    submissions = Submissions()
    with contextlib.ExitStack() as stack:
        # A closed terminal or a kill leaves no jobs behind either
        stack.enter_context(_handling(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP))
        directory, tls = stack.enter_context(credentials.made(_shared(request))) if request.tls else (None, None)
        cluster = build(request, tls, submissions)
        try:
            cluster.scale(jobs=request.least)
            wait(request, cluster, submissions, say)
            if request.adapt is not None:
                cluster.adapt(Adaptive=Adaptive, minimum_jobs=request.least, maximum_jobs=request.most)
            file = None if directory is None else os.path.join(directory, "scheduler.json")
            if file is not None:
                schedulerfile.save(file, cluster.scheduler_address, tls)
            yield Started(cluster, file)
        finally:
            with (
                _handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
                _quiet("paramserver", "distributed"),
            ):
                _end(request.system, cluster, submissions, say)


def _shared(request: Request) -> str:
    """A directory that every machine sees, as far as anyone says."""
    given = keywords.Given(request.system, request.keywords)
    return os.path.expanduser(os.path.expandvars(given("shared_temp_directory") or Path.cwd()))


def build(
    request: Request, tls: credentials.Credentials | None, submissions: Submissions, asynchronous: bool = False
) -> Any:
    """dask-jobqueue's cluster, without a job yet; asynchronous: for its script alone."""
    made = cluster_class(request.system)
    if "security" in request.keywords:
        raise InvalidInput(f"{request.lines.get('security', '')}security is tls here: --tls, or tls: true")
    keywords.check(request.system, request.keywords, request.lines)
    given = keywords.settings(request.system, warning=request.warning, **request.keywords)
    if not asynchronous:
        check_here(request, made.job_cls.submit_command)
    security = {} if tls is None else {"security": tls.security()}
    cluster = made.__new__(made)
    try:
        cluster.__init__(job_cls=recorded(made.job_cls, submissions), asynchronous=asynchronous, **security, **given)
        return cluster
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        cluster.status = Status.closed  # or Dask warns of one that was never there
        raise InvalidInput(f"{request.lines.get('system', '')}{made.__name__} says: {error}") from error


def check_here(request: Request, submit: str) -> None:
    """Refuse to submit where the system's command lacks, or the jobs' output has no place."""
    if shutil.which(submit) is None:
        raise InvalidInput(
            f"{submit} is not on this machine's PATH: run this where jobs are submitted, or try --dry-run"
        )
    logs = keywords.Given(request.system, request.keywords)("log_directory")
    if logs is None and not os.access(Path.cwd(), os.W_OK):
        raise InvalidInput(
            f"jobs write their output to the working directory, and {Path.cwd()} cannot be written to: run this from "
            "a directory of your own that every machine sees, or set log_directory to one"
        )


@contextlib.contextmanager
def _handling(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """Signals handled so for a while, but for those that nohup or the like has turned off."""
    before = {number: signal.getsignal(number) for number in signals}
    on = [number for number in signals if before[number] != signal.SIG_IGN]
    for number in on:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in on:
            signal.signal(number, before[number])


# -- the end ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Nothing is logged of runs that lose their servers, and connections that break, because the cluster ends."""
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _end(name: str, cluster: Any, submissions: Submissions, say: Callable[[str], None]) -> None:
    """Cancel the jobs and see that they are gone; name those that are not."""
    if submissions.accepted:
        say("cancelling the jobs")
    with contextlib.suppress(Exception):  # whatever Dask says of it, the queue has the last word
        cluster.close(timeout=CLOSE)
    cancel = cluster.job_cls.cancel_command
    limit = time.monotonic() + GONE
    left = look(name, submissions.accepted)
    for job in left or ():
        call(f"{cancel} {job}")
    while left and time.monotonic() < limit:
        time.sleep(0.5)
        left = look(name, submissions.accepted)
    if left is None and submissions.accepted:
        asked = SYSTEMS[name].look.split()[0]
        say(f"{asked} does not answer: see whether the jobs {' '.join(submissions.accepted)} are gone")
    elif left:
        say(f"still in the queue: {', '.join(left)}; to cancel them: {cancel} {' '.join(left)}")
