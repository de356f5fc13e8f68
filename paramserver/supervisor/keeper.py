"""Keeping one scheduler's runs going: servers, runners and data, as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle
from distributed import Future

from paramserver.ending import Ending
from paramserver.errors import (
    CallTimeout,
    ChunkLost,
    ClusterRestarted,
    InvalidInput,
    ParamServerError,
    RunFailed,
)
from paramserver.supervisor.crew import Crew
from paramserver.supervisor.data import KEYS_LIMIT, Holder
from paramserver.supervisor.moving import Moving
from paramserver.supervisor.record import RunRecord

logger = logging.getLogger("paramserver")

PING = 2.0  #: seconds for a server to answer
MISSES = 3  #: pings in a row without an answer before another server takes over
DISMISS = 2.0  #: seconds that runners get to hear of the end before their tasks are released


class Keeper(Moving):
    """What the plug-in does for a run. ``on_end`` hears of every run that is over."""

    def __init__(self, scheduler: Any, on_end: Callable[[RunRecord], None]) -> None:
        super().__init__(scheduler)
        self.on_end, self.data = on_end, Holder(scheduler)
        self.crew = Crew(scheduler, self.places, self._say_failed)

    # -- data ------------------------------------------------------------------------------------

    async def hold(self, record: RunRecord) -> None:
        """Hold the run's data."""
        await self.data.hold(record, record.keys.values())
        record.held = True
        self._look_at_lineage(record, record.keys.values())
        record.reached("data held")

    async def add(
        self, record: RunRecord, keys: list[tuple[Any, ...]], columns: int | None, names: tuple[str, ...] | None
    ) -> list[int]:
        """More chunks: held as a launch holds its own, then the server's."""
        limit = time.monotonic() + KEYS_LIMIT
        while record.live and record.handle is None and time.monotonic() < limit:
            await asyncio.sleep(0.02)
        if record.handle is None or not record.live:
            raise InvalidInput(f"run {record.name!r} has no server yet: it waits {self.waits_for(record)}")
        await self.data.hold(record, keys)
        if not record.live:
            raise InvalidInput(f"run {record.name!r} ended meanwhile ({record.reason}): launch a new one")
        try:
            ids: list[int] = await self.ask(record, "add", keys, columns, names, timeout=60.0)
        except ParamServerError as error:
            if not isinstance(error, CallTimeout):  # then they may have been taken all the same
                self.data.let_go(record, keys)
            raise
        record.keys.update(zip(ids, keys, strict=True))
        self._look_at_lineage(record, keys)
        if record.warning:
            await self.tell(record, "note", record.warning)
        return ids

    def _look_at_lineage(self, record: RunRecord, chunks: Iterable[tuple[Any, ...]]) -> None:
        """Who said what is to become of lost chunks need not be told that some may be lost."""
        if record.on_chunk_loss == "fail":
            record.perishable += self.data.perishable(chunks)

    async def _check_chunks(self, record: RunRecord) -> None:
        """Chunks that cannot be had end the run, unless it goes on without them."""
        looked = {i: self.data.lost(i, parts) for i, parts in list(record.keys.items())}
        found = {i: why for i, why in looked.items() if why}
        why = await self._missed(record, found) if found else ""
        if why:
            advice = '; on_chunk_loss="drop" goes on without it' if record.on_chunk_loss == "fail" else ""
            self.fail(record, ChunkLost(why + advice))

    async def _missed(self, record: RunRecord, found: dict[int, str]) -> str:
        """Why the run cannot go on without these chunks; nothing where it can, or where the next look is to ask again.

        Which of them count only a server knows. Where they may be left out it is waited for; but not for one that
        never comes, because the worker of all chunks was the only one.
        """
        if record.handle is None:
            waits = record.on_chunk_loss == "drop" and len(found) < len(record.keys)
            return "" if waits else found[min(found)]
        with contextlib.suppress(ParamServerError):
            return str(await self.ask(record, "lost", found, timeout=15.0))
        return ""

    # -- runners ---------------------------------------------------------------------------------

    async def start_runners(self, record: RunRecord) -> None:
        """Where there are none, and should be."""
        client = await self.client()
        if record.live and record.handle is not None:
            self.crew.start(record, client)

    def _say_failed(self, record: RunRecord, address: str, future: Future, last: bool) -> None:
        self.spawn(self._note(record, address, future, last))

    async def _note(self, record: RunRecord, address: str, future: Future, last: bool) -> None:
        error = await future.exception()
        left = "; it is left alone from now on" if last else ""
        await self.tell(record, "note", f"runners on {address} failed: {type(error).__name__}: {error}{left}")

    # -- the end ---------------------------------------------------------------------------------

    def fail(self, record: RunRecord, error: RunFailed) -> None:
        """End a run from here; its server, if it lives, is told so that its runners hear of it."""
        if not record.live:
            return  # it ended while this was found out
        self.end(record, "failed", str(error), error)
        if record.handle is not None:
            self.spawn(self.tell(record, "fail", error))

    def end(self, record: RunRecord, state: str, reason: str, error: Exception | None = None) -> None:
        """Record first, then let go."""
        if error is not None:
            record.outcome = cloudpickle.dumps(Ending(error))
        record.state, record.reason, record.ended = state, reason, time.monotonic()
        record.reached("end known")
        record.over.set()
        self.spawn(self._dismiss(record))
        self.on_end(record)

    def restarted(self, record: RunRecord) -> None:
        """The scheduler forgot every task, and restarts every worker: the run's server, runners and data are gone."""
        record.handle = None  # nobody is left to hear of the end
        if record.state == "converged":  # what was certified stands; it is only kept live no longer
            return self.end(record, "finished", "the cluster was restarted")
        text = f"the cluster was restarted while run {record.name!r} was {record.state}: its data and its server went"
        self.end(record, "failed", "the cluster was restarted", ClusterRestarted(f"{text}; {record.way_on}"))

    async def _dismiss(self, record: RunRecord) -> None:
        """Runners hear of the end from the server; then everything is released."""
        await asyncio.sleep(DISMISS if record.handle is not None else 0.0)
        self.release(record)

    def release(self, record: RunRecord) -> None:
        """Let go of the run's data, runners and server; a future out of scope is released."""
        record.runners.clear()
        if record.actor is not None:
            record.actor.release()  # `serve` may still wait for it, and hold it
        record.actor = record.source = record.anchor = None
        record.blob = b""
        self.data.release(record)

    # -- what should be --------------------------------------------------------------------------

    async def look_after(self, record: RunRecord) -> None:
        """One look at one live run: single events may be missed."""
        if not record.held:
            return  # being launched: its graph may take the scheduler seconds to read
        await self._check_chunks(record)
        if record.handle is None or not record.live:
            return
        if record.handle.address not in self.scheduler.workers:
            return self.lost_server(record, "its worker left the cluster")
        if await self._answers(record) and record.live:
            await self.start_runners(record)

    async def _answers(self, record: RunRecord) -> bool:
        """Whether the server does; where it did not for long, another takes over."""
        assert record.handle is not None
        asked, epoch, address = set(record.keys), record.epoch, record.handle.address
        try:
            there = await self.ask(record, "ping", timeout=PING)
        except ParamServerError as error:
            if record.epoch != epoch:
                return False
            record.misses += 1
            if record.misses >= MISSES:
                record.avoid.add(address)  # it may look alive to the scheduler
                self.lost_server(record, f"{MISSES} times in a row: {error}")
            return False
        if record.epoch != epoch:
            return False
        self.data.cross_off(record, there, asked)
        record.misses = 0
        record.avoid.clear()
        return True
