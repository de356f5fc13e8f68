"""What of a server outlives it: an anchor that the supervisor keeps.

The supervisor is the only authority: what it refuses, because a later epoch has the run, tells this
server that it is stale. It changes nothing from then on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import cloudpickle

from paramserver.errors import ServerGone
from paramserver.server import checkpoint
from paramserver.server.core import Core
from paramserver.server.handle import Handle
from paramserver.server.spec import RunSpec

logger = logging.getLogger("paramserver")

EVERY = 2.0  #: seconds between anchors
SHARE = 50.0  #: times what an anchor took is the shortest wait for the next
LIMIT = 10.0  #: seconds for the supervisor to take one
FETCH_LIMIT = 120.0  #: seconds for a drained state to cross the wire

Source = bytes | Handle | None  #: where a server that takes over has its state from


def taken_over(spec: RunSpec, epoch: int, source: Source, worker: Any) -> Core:
    """The core of a new server: from nothing, from an anchor, or from a server that was drained."""
    state: bytes | None
    if isinstance(source, Handle):
        call = source.direct(worker.rpc, "fetch", timeout=FETCH_LIMIT)
        state = asyncio.run_coroutine_threadsafe(call, worker.loop.asyncio_loop).result(FETCH_LIMIT + 5.0)
    else:
        state = source
    now = time.monotonic()
    return Core(spec, epoch, now) if state is None else checkpoint.load(state, spec, epoch, now)


class Durable:
    """One server's anchors. ``superseded``: this server is none any more, or is being moved."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.superseded = False
        self._next = 0.0  #: the first as soon as there is a z, or a server that took over is of use
        self._kept: tuple[Any, ...] = self._news()  #: what the supervisor has
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._drained: dict[str, Any] | None = None

    def look(self) -> None:
        """Called a few times a second: an anchor, where one is due."""
        if self.server not in self.server.worker.state.actors.values():
            self.superseded = True  # released while this process was stopped, say
            return
        idle = self._task is None or self._task.done()
        if (
            idle
            and time.monotonic() >= self._next
            and self._news() != self._kept
            and self.server.core.params.z is not None
        ):
            self._task = asyncio.create_task(self.keep())

    def _news(self) -> tuple[Any, ...]:
        core = self.server.core
        return core.params.version, core.record.pushes, core.state, self.server.turns

    async def keep(self) -> None:
        """Hand an anchor to the supervisor. The caller may hold the server's lock: nothing here waits for it."""
        began, news, core = time.monotonic(), self._news(), self.server.core
        spec = core.spec if core.params.setup is None else replace(core.spec, penalty=core.params.bound.penalty)
        self._number += 1
        shot, number = checkpoint.snapshot(core, began, anchor=True), self._number
        try:
            blob = cloudpickle.dumps((spec, self.server.keys))
            state = await asyncio.to_thread(checkpoint.pack, shot)
            await self._hand_over(number, blob, state, core.record.pushes - core.record.replayed)
            self._kept = news
        except (OSError, asyncio.TimeoutError, KeyError, TypeError) as error:
            logger.warning("paramserver: the supervisor did not take an anchor of %s: %r", core.spec.name, error)
        finally:
            self._next = time.monotonic() + max(EVERY, SHARE * (time.monotonic() - began))

    async def _hand_over(self, number: int, blob: bytes, state: bytes, pushes: int) -> None:
        server = self.server
        call = server.worker.scheduler.paramserver(
            do="keep", run_id=server.run_id, epoch=server.epoch, number=number, blob=blob, state=state, pushes=pushes
        )
        reply = await asyncio.wait_for(call, LIMIT)
        self.superseded = self.superseded or not reply["result"]

    # -- moving ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """The state as it is now is the last."""
        self.superseded = True
        self._drained = checkpoint.snapshot(self.server.core, time.monotonic())

    async def drained(self) -> bytes:
        """The state after `drain`."""
        if self._drained is None:
            raise ServerGone(f"the server of run {self.server.run_id} was not drained: there is nothing to fetch")
        return await asyncio.to_thread(checkpoint.pack, self._drained)
