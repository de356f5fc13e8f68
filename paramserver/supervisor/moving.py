"""Servers that leave a worker which is to end, with all they have: to another worker, or to the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator

from paramserver.errors import CallTimeout, CheckpointError, InvalidInput, ParamServerError, RunFailed
from paramserver.server.handle import Handle
from paramserver.server.takeover import FETCH_LIMIT
from paramserver.supervisor.data import KEYS_LIMIT
from paramserver.supervisor.record import RunRecord
from paramserver.supervisor.servers import Servers

logger = logging.getLogger("paramserver")

LOOK = 0.05  #: seconds between looks at whether a worker still has something of a run


class Moving(Servers):
    """The part of `Keeper` that hears of workers before they end."""

    async def leave(self, records: Iterable[RunRecord], address: str, seconds: float) -> bool:
        """A worker is about to end: whether nothing of these runs is there any more, within so many seconds.

        No server and no runner comes to it from now on. Its runners were told by the worker itself.
        """
        limit = time.monotonic() + seconds
        self.places.leaving.add(address)
        if address not in self.scheduler.workers:
            self.places.leaving.discard(address)
            return True
        left = [self._left(record, address, limit) for record in records if record.live]
        return all(await asyncio.gather(*left))

    async def _left(self, record: RunRecord, address: str, limit: float) -> bool:
        while record.live and time.monotonic() < limit:
            if address in self.homes(record):
                await self._vacate(record, limit)
            elif not self.at_work(record, [address]):
                return True
            await asyncio.sleep(LOOK)
        return not record.live

    async def _vacate(self, record: RunRecord, limit: float) -> None:
        """What one look can do for a server whose worker is about to end."""
        if record.handle is None or record.moving:
            return  # one is being made: it comes up, and is moved then
        with contextlib.suppress(ParamServerError):  # lost meanwhile, perhaps: to be looked at again
            if self.places.here():
                await self.move(record, None)
            elif not self.at_work(record, self.places.leaving) or time.monotonic() > limit - FETCH_LIMIT / 10:
                await self.park(record)

    async def move(self, record: RunRecord, worker: str | None) -> str:
        """Drain the server, and let another on another worker take over all it has: its address."""
        old = record.handle
        if old is None or not record.live:
            raise InvalidInput(f"run {record.name!r} has no server to move: it is {record.state}")
        others = [address for address in self.places.here() if address != old.address]
        target = next((a for a in others if worker in (a, self.scheduler.workers[a].name)), "")
        if not others or (worker is not None and not target):
            there = ", ".join(f"{self.scheduler.workers[a].name}" for a in others) or "none"
            raise InvalidInput(f"the server cannot be moved to {worker or 'another worker'}: other workers are {there}")
        with self._moving(record):
            await self._move(record, target)
        if record.handle is None:
            raise CallTimeout(f"run {record.name!r} has no server yet, {KEYS_LIMIT:g} s after it was drained")
        return record.handle.address

    @contextlib.contextmanager
    def _moving(self, record: RunRecord) -> Iterator[None]:
        if record.moving:
            raise InvalidInput(f"the server of run {record.name!r} is being moved already")
        record.moving = True
        try:
            yield
        finally:
            record.moving = False

    async def _move(self, record: RunRecord, target: str) -> None:
        old, actor = record.handle, record.actor
        assert old is not None
        await self.ask(record, "drain", timeout=30.0)
        record.avoid.add(old.address)
        record.prefer, record.source, record.actor = target, old, None
        self.next_epoch(record, "")
        limit = time.monotonic() + KEYS_LIMIT
        while record.live and record.handle is None and time.monotonic() < limit:
            if self._nowhere(record):  # by now
                await self._take_in(record, old)
                break
            await asyncio.sleep(0.01)
        if actor is not None:
            actor.release()  # its state was fetched
        if record.handle is not None and record.source is old:
            record.source = record.anchor  # nobody has it any more
        record.avoid.discard(old.address)
        record.prefer = ""

    async def park(self, record: RunRecord) -> None:
        """Take all that the server has into this process, until there is a worker for another."""
        assert record.handle is not None
        with self._moving(record):
            await self._take_in(record, record.handle)
            self.next_epoch(record, record.why)

    async def _take_in(self, record: RunRecord, old: Handle) -> bool:
        """Whether the run's checkpoint has it too."""
        state, saved = await old.direct((await self.client()).rpc, "park", timeout=FETCH_LIMIT)
        record.source = record.anchor = state
        record.why = "every worker was about to end: the server waited for another"
        logger.info("paramserver: run %s has its state here, and no server", record.name)
        return bool(saved)

    async def suspend(self, record: RunRecord) -> None:
        """End a run so that `resume` can go on from its checkpoint, where it is now."""
        if record.handle is None or not record.live:
            raise InvalidInput(f"run {record.name!r} has no server to suspend: it is {record.state}")
        if record.checkpoint is None:
            raise InvalidInput(f"run {record.name!r} has no checkpoint= to be suspended to: launch it with one")
        with self._moving(record):
            saved = await self._take_in(record, record.handle)
        if not saved:
            self.next_epoch(record, f"it could not be suspended: no checkpoint was written to {record.checkpoint}")
            raise CheckpointError(f"run {record.name!r} goes on: no checkpoint was written to {record.checkpoint}")
        record.handle = None  # it takes nothing more
        text = f"run {record.name!r} was suspended: {record.way_on}"
        self.end(record, "failed", "suspended", RunFailed(text))
