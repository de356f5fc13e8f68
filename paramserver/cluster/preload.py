"""Early warnings from a batch system: what a worker does when its job is about to end.

    dask worker ... --preload paramserver.cluster.preload --preload-nanny paramserver.cluster.preload

A job that is sent SIGUSR1 or SIGUSR2 some time before it is killed (Slurm: ``--signal=B:USR1@60``; SGE: ``-notify``)
leaves in order: servers of runs move to other workers, or to the scheduler where there is none; runners push what
they are at; Dask moves the data that nobody else has; the worker closes, and the job with it. Both preloads are needed:
the signal reaches the nanny, and the worker acts on it. ``PARAMSERVER_WARNING`` in the job's environment says how many
seconds before its end the warning comes (60).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import Any
from weakref import WeakSet

from distributed import Nanny
from distributed.core import Status

from paramserver.asking import ask
from paramserver.errors import ParamServerError
from paramserver.workers import runner

logger = logging.getLogger("paramserver")

WARNING = "PARAMSERVER_WARNING"
SECONDS = 60.0  #: from the warning to the end, where nobody says
HEARD = 1.0  #: seconds for the scheduler's word to arrive, after its answer
REASON = "paramserver-early-warning"
SIGNALS = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]

_here: WeakSet[Any] = WeakSet()  #: the nannies or workers of this process: a job may have several
_under_way: set[asyncio.Task[None]] = set()


async def dask_setup(server: Any) -> None:
    """Called by Dask in every nanny and every worker."""
    _here.add(server)
    loop = asyncio.get_running_loop()
    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, _warned)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        logger.warning("paramserver: %s hears no early warnings: %s", type(server).__name__, error)


def _warned() -> None:
    for server in _here:
        if isinstance(server, Nanny):
            _pass_on(server)
        else:
            task = asyncio.ensure_future(leave(server, warning() / 2))
            _under_way.add(task)
            task.add_done_callback(_under_way.discard)


def _pass_on(nanny: Any) -> None:
    """To its worker, once that is one: before, the signal would kill it."""
    process = nanny.process
    if nanny.status == Status.running and process is not None and process.status == Status.running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGUSR1)


def warning() -> float:
    """Seconds from an early warning to the end of the job."""
    try:
        return max(float(os.environ.get(WARNING, SECONDS)), 1.0)
    except ValueError:
        logger.warning("paramserver: %s must be seconds, got %r", WARNING, os.environ[WARNING])
        return SECONDS


async def leave(worker: Any, seconds: float) -> None:
    """End a worker in order: within so many seconds nothing of a run is there any more; then Dask's own retirement."""
    if not runner.leave(worker):
        return
    while worker.status in (Status.undefined, Status.created, Status.starting, Status.init):
        await asyncio.sleep(0.05)  # warned while it joins, whose own limit is Dask's death timeout
    logger.info("paramserver: the worker at %s was warned, and leaves", worker.address)
    try:
        await ask(worker.scheduler, "leave", address=worker.address, seconds=seconds, timeout=seconds + 5.0)
    except ParamServerError as error:  # no run was ever launched here, or the scheduler is gone
        logger.info("paramserver: %s", error)
    try:
        await asyncio.wait_for(_retire(worker), seconds)
    except (asyncio.TimeoutError, OSError):
        await worker.close(nanny=True, reason=REASON)


async def _retire(worker: Any) -> None:
    """As `Worker.close_gracefully`, which may overtake what the scheduler says of it: then it closes twice.

    Two closes at once wait for each other, up to Dask's limit of 30 s.
    """
    stimulus = f"{REASON}-{time.time()}"
    await worker.scheduler.retire_workers(
        workers=[worker.address], close_workers=False, remove=True, stimulus_id=stimulus
    )
    limit = time.monotonic() + HEARD
    while worker.status not in (Status.closing, Status.closed, Status.failed) and time.monotonic() < limit:
        await asyncio.sleep(0.02)  # removed, the worker closes by itself
    await worker.close(nanny=True, reason=REASON)
