"""Jobs that ended come back while a run needs them; Dask's own clusters leave a hole where one was."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakSet, ref

import dask

from paramserver.asking import ask
from paramserver.errors import ParamServerError

logger = logging.getLogger("paramserver")

EVERY = 2.0  #: seconds between looks
LIMIT = 10.0  #: seconds for the scheduler to say whether a run is live
TIMEOUT = "distributed.deploy.lost-worker-timeout"
PATIENCE = {"15s": "2s"}  #: Dask's default waits for workers to come back, which they never do under their old name

_watched: WeakSet[Any] = WeakSet()


def replace_lost(cluster: Any) -> None:
    """Watch over a dask-jobqueue cluster that this process made, as long as a run is live on it.

    There are to be as many jobs as were asked for: one that ended (walltime, preemption, a node that failed) is
    submitted again, under the same name. A cluster that adapts sees to that itself.
    """
    if not hasattr(cluster, "job_cls") or cluster in _watched:
        return
    _watched.add(cluster)
    timeout = dask.config.get(TIMEOUT)
    dask.config.set({TIMEOUT: PATIENCE.get(timeout, timeout)})
    cluster.loop.add_callback(_watch, ref(cluster))


async def _watch(there: ref[Any]) -> None:
    while (cluster := there()) is not None and await _is_needed(cluster):
        lost = sorted(set(cluster.worker_spec) - set(cluster.workers))
        if lost and not _adapts(cluster):
            logger.info("paramserver: jobs that ended are submitted again: %s", ", ".join(map(str, lost)))
            cluster.scale(jobs=len(cluster.worker_spec))
        del cluster
        await asyncio.sleep(EVERY)
    if cluster is not None:
        _watched.discard(cluster)


async def _is_needed(cluster: Any) -> bool:
    if cluster.status.name != "running":
        return False
    try:
        return bool((await ask(cluster.scheduler_comm, "needs", timeout=LIMIT))["live"])
    except ParamServerError as error:
        logger.warning("paramserver: jobs that end are not replaced any more: %s", error)
        return False


def _adapts(cluster: Any) -> bool:
    adaptive = cluster._adaptive
    return adaptive is not None and adaptive.periodic_callback is not None
