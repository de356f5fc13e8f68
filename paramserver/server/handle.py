"""Calls to a run's server that cannot hang: always a limit, always one of our errors.

Dask's own actor proxy waits for ever after an unserialisable argument, a freed actor or a stopped
worker, and an actor passed as a task argument becomes a dependency. A `Handle` is plain data.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from distributed.protocol import to_serialize

from paramserver.errors import CallTimeout, ServerGone


class Handle(NamedTuple):
    """Where a run's server is: the actor's key, its worker, and which run and epoch it must be."""

    key: str
    address: str
    run_id: str
    epoch: int

    def message(self, method: str, args: tuple[Any, ...]) -> dict[str, Any]:
        """The worker's ``actor_execute`` call."""
        return {"actor": self.key, "function": method, "args": [to_serialize(a) for a in args], "kwargs": {}}

    async def direct(self, rpc: Any, method: str, *args: Any, timeout: float = 30.0) -> Any:
        """Call over ``rpc``, a worker's or client's connection pool, straight to the server's worker."""
        return await self._answer(rpc(self.address).actor_execute(**self.message(method, args)), method, timeout)

    async def through(self, scheduler: Any, method: str, *args: Any, timeout: float = 30.0) -> Any:
        """Call through the scheduler: all that the caller needs to reach is the scheduler's port."""
        msg = {"op": "actor_execute", **self.message(method, args)}
        return await self._answer(scheduler.proxy(worker=self.address, msg=msg), method, timeout)

    async def _answer(self, call: Any, method: str, timeout: float) -> Any:
        try:
            reply = await asyncio.wait_for(call, timeout)
        except asyncio.TimeoutError:
            text = f"the server of run {self.run_id} at {self.address} did not answer {method} within {timeout:g} s"
            raise CallTimeout(text) from None
        except (OSError, KeyError, RuntimeError) as error:  # CommClosedError is an OSError
            text = f"the server of run {self.run_id} at {self.address} cannot be reached: {error!r}"
            raise ServerGone(text) from error
        if reply["status"] != "OK":
            raise reply["exception"]
        return reply["result"]
