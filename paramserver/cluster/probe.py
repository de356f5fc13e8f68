"""What each process of a cluster says of itself: one question each, at the same time, with a limit."""

from __future__ import annotations

import asyncio
import platform
from typing import Any, NamedTuple

import dask
import distributed
from dask.utils import parse_timedelta

from paramserver._version import __version__
from paramserver.cluster.adaptive import Adaptive
from paramserver.environment import CHECK_LIMIT, BySource
from paramserver.errors import CallTimeout, NoScheduler

Answer = dict[str, Any]


class Deployed(NamedTuple):
    """The cluster object of this process, if its client was made from one."""

    kind: str = ""  #: "local", "jobqueue", or "" for any other and for none
    jobs: int = 0  #: that it keeps
    grouped: bool = False  #: whether one of them is several workers
    adaptive: str = ""  #: "ours", "other", or "" where it does not adapt
    lost_after: float = 0.0  #: seconds until a lost worker's job is given up


class Facts(NamedTuple):
    """What was found; by address, what `describe` answers there."""

    here: Answer
    address: str  #: the scheduler's
    scheduler: Answer
    workers: dict[str, Answer]
    nannies: dict[str, Answer]  #: by the address of their worker
    silent: dict[str, str]  #: address of a worker → why it did not answer
    deployed: Deployed


def describe(dask_worker: Any) -> dict[str, Any]:
    """What a process imports, where it runs and how it was started; travels as text.

    By that name Dask passes whatever server it is: worker, nanny or scheduler.
    """
    import contextlib
    import importlib
    import importlib.util
    import os
    import platform

    import distributed

    ours: Any = None
    with contextlib.suppress(ImportError):
        ours = importlib.util.find_spec("paramserver") and importlib.import_module("paramserver._version")
    marks = {
        "slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID", "lsf": "LSB_JOBID", "oar": "OAR_JOB_ID",
        "sge": "JOB_ID" if "SGE_ROOT" in os.environ or "SGE_TASK_ID" in os.environ else "",
    }  # fmt: skip
    blas = 0
    with contextlib.suppress(ImportError):
        importlib.import_module("numpy")  # which loads the BLAS that a run would use
        pools = importlib.import_module("threadpoolctl").threadpool_info()
        blas = max([pool["num_threads"] for pool in pools if pool["user_api"] == "blas"], default=0)
    sockets = getattr(getattr(dask_worker, "http_server", None), "_sockets", {})
    answer = {
        "paramserver": str(getattr(ours, "__version__", "")),
        "python": platform.python_version(),
        "distributed": distributed.__version__,
        "host": platform.node(),
        "job": next(((system, os.environ[mark]) for system, mark in marks.items() if mark in os.environ), None),
        "blas": blas,
        "http": sorted({socket.getsockname()[0] for socket in sockets.values()}),
        "preloads": [preload.name for preload in getattr(dask_worker, "preloads", ())],
        "lifetime": getattr(dask_worker, "lifetime", None),
    }
    if hasattr(dask_worker, "allowed_failures"):  # the scheduler
        answer["allowed_failures"] = dask_worker.allowed_failures
        answer["listens"] = [str(listener.contact_address) for listener in dask_worker.listeners]
        answer["workers"] = {
            address: {"nanny": ws.nanny, "threads": ws.nthreads, "reserved": "paramserver" in ws.resources}
            for address, ws in dask_worker.workers.items()
        }
    return answer


async def collect(client: Any, limit: float = CHECK_LIMIT) -> Facts:
    """Ask the scheduler, then all workers and nannies at once; a worker that stays silent is one of the facts.

    Raises
    ------
    CallTimeout, NoScheduler
        The scheduler did not answer within ``limit``, or not at all.
    """
    until = asyncio.get_running_loop().time() + limit
    try:
        scheduler = await asyncio.wait_for(client.run_on_scheduler(BySource(describe)), limit)
    except asyncio.TimeoutError:
        raise CallTimeout(f"no answer within {limit:g} s from the scheduler, asked how it was started") from None
    except OSError as error:
        raise NoScheduler(f"the scheduler cannot be reached: {error}") from error
    there = scheduler.pop("workers")
    asked = {(address, False): asyncio.ensure_future(_ask(client, address, False)) for address in there}
    for address, worker in there.items():
        if worker["nanny"] is not None:
            asked[address, True] = asyncio.ensure_future(_ask(client, address, True))
    if asked:
        await asyncio.wait(asked.values(), timeout=max(until - asyncio.get_running_loop().time(), 0.0))
    facts = Facts(_here(), client.scheduler.address, scheduler, {}, {}, {}, deployed(client))
    for (address, nanny), future in asked.items():
        if not future.done():
            future.cancel()
            facts.silent[address] = f"did not answer within {limit:g} s"
        elif isinstance(answer := future.result(), dict):
            (facts.nannies if nanny else facts.workers)[address] = {**answer, **there[address]}
        elif not isinstance(answer, OSError):  # that one left just now
            facts.silent[address] = f"could not answer: {answer!r}"
    return facts


async def _ask(client: Any, address: str, nanny: bool) -> Answer | Exception:
    try:
        answers = await client.run(BySource(describe), workers=[address], nanny=nanny, on_error="return")
    except Exception as error:  # the scheduler knows it no more
        return error if isinstance(error, OSError) else OSError(str(error))
    answer: Answer | Exception = answers.get(address, OSError("gone"))
    return answer


def _here() -> Answer:
    return {
        "paramserver": __version__, "python": platform.python_version(), "distributed": distributed.__version__,
        "host": platform.node(),
    }  # fmt: skip


def deployed(client: Any) -> Deployed:
    """What this process knows of the cluster that it made."""
    cluster = getattr(client, "cluster", None)
    if cluster is None:
        return Deployed()
    modules = {base.__module__.partition(".")[0] for base in type(cluster).__mro__}
    jobqueue, local = "dask_jobqueue" in modules, isinstance(cluster, distributed.LocalCluster)
    specs = getattr(cluster, "worker_spec", {}).values()
    adaptive = getattr(cluster, "_adaptive", None)
    running = getattr(adaptive, "periodic_callback", None) is not None  # it stays there when it has ended
    return Deployed(
        "jobqueue" if jobqueue else "local" if local else "",
        len(specs),
        any(len(spec.get("group", ())) > 1 for spec in specs),
        ("ours" if isinstance(adaptive, Adaptive) else "other") if running else "",
        float(parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout", 0))),
    )
