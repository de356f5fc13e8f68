"""`Adaptive`: scaling that knows where the servers of runs are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import distributed.deploy

from paramserver.asking import ask
from paramserver.errors import UnknownRun

LIMIT = 10.0  #: seconds for the scheduler to say what its runs need


class Adaptive(distributed.deploy.Adaptive):  # type: ignore[misc]
    """Dask's own, which takes no worker from under a run's server, and leaves a live run one worker at least.

    ``cluster.adapt(Adaptive=paramserver.cluster.Adaptive, minimum=0, maximum=40)``; options are those of
    `distributed.deploy.Adaptive`.

    Notes
    -----
    A server looks idle and empty to Dask, which makes its worker the preferred victim. The supervisor
    on the scheduler keeps it off the list of any `adapt`, but a cluster that starts several workers a
    job (dask-jobqueue with ``processes=``) ends the whole job for one of them: here all of a server's
    job are spared, and a worker that gets a server between the choice and the end of it.
    """

    async def target(self) -> int:
        """As many workers as Dask wants, and one at least while a run is live."""
        wanted: int = await super().target()
        return max(wanted, 1) if (await self._needs())["live"] else wanted

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
            return {"live": 0, "servers": []}
