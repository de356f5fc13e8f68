"""`Adaptive`: scaling that knows what runs need, and where their servers are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import distributed.deploy

from paramserver.asking import ask
from paramserver.errors import UnknownRun

LIMIT = 10.0  #: seconds for the scheduler to say what its runs need


class Adaptive(distributed.deploy.Adaptive):  # type: ignore[misc]
    """Dask's own, which asks for workers while runs can use them, and takes none from under a run's server.

    ``cluster.adapt(Adaptive=paramserver.cluster.Adaptive, minimum=0, maximum=40)``; options are those of
    `distributed.deploy.Adaptive`. With ``minimum`` = ``maximum`` it keeps so many: jobs that end come back.

    Notes
    -----
    A run can use a thread for each of its chunks, and needs one worker at least as long as it is live. To Dask its
    runners are a few long tasks, for which it would never ask for more.

    A server looks idle and empty to Dask, which makes its worker the preferred victim. The supervisor
    on the scheduler keeps it off the list of any `adapt`, but a cluster that starts several workers a
    job (dask-jobqueue with ``processes=``) ends the whole job for one of them: here all of a server's
    job are spared, and a worker that gets a server between the choice and the end of it.
    """

    async def target(self) -> int:
        """As many workers as Dask wants, or the runs can use: one at least while a run is live."""
        wanted, needs = await super().target(), await self._needs()
        of_use = math.ceil(needs["runners"] / (needs["threads"] or self._threads()))
        return int(max(wanted, min(needs["live"], 1), of_use))

    def _threads(self) -> float:
        """Of a worker to come."""
        options = getattr(self.cluster, "new_spec", {}).get("options", {})
        cores = next((options[name] for name in ("nthreads", "cores") if options.get(name)), 1)
        return float(cores) / (options.get("processes") or 1)

    async def workers_to_close(self, target: int) -> list[Any]:
        """Dask's choice, but for those that share a job with a server."""
        return await self._spare(await super().workers_to_close(target=target))

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """End these workers, as far as no server came to one since they were chosen."""
        await super().scale_down(await self._spare(workers))

    async def _spare(self, workers: Iterable[Any]) -> list[Any]:
        needed = {self._job(name) for name in (await self._needs())["servers"]}
        return [name for name in workers if self._job(name) not in needed]

    def _job(self, worker: Any) -> Any:
        """The name under which the cluster started a worker, alone or in a group."""
        for name, spec in getattr(self.cluster, "worker_spec", {}).items():
            if worker in (name, str(name)) or any(worker == f"{name}{suffix}" for suffix in spec.get("group", ())):
                return name
        return worker

    async def _needs(self) -> dict[str, Any]:
        """What the runs need; where none was ever launched, nothing."""
        try:
            return dict(await ask(self.scheduler, "needs", timeout=LIMIT))
        except UnknownRun:
            return {"live": 0, "runners": 0, "servers": [], "threads": 0.0}
