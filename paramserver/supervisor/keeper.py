"""Keeping one scheduler's runs going: servers, runners and data, as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import cloudpickle
from distributed import Client, Future
from distributed.security import Security

from paramserver.ending import Ending
from paramserver.errors import (
    CallTimeout,
    ChunkLost,
    ClusterRestarted,
    InvalidInput,
    ParamServerError,
    RunFailed,
    ServerGone,
    ServerLost,
    StepFailed,
)
from paramserver.server.actor import Server
from paramserver.server.durable import FETCH_LIMIT
from paramserver.server.handle import Handle
from paramserver.supervisor.crew import Crew
from paramserver.supervisor.data import KEYS_LIMIT, Holder
from paramserver.supervisor.places import Places
from paramserver.supervisor.record import RunRecord

logger = logging.getLogger("paramserver")

PING = 2.0  #: seconds for a server to answer
MISSES = 3  #: pings in a row without an answer before another server takes over
START = 15.0  #: seconds for a worker to start a server
DEATHS = 5  #: servers lost without a push kept since: there is no use in another
DISMISS = 2.0  #: seconds that runners get to hear of the end before their tasks are released


class Keeper:
    """What the plug-in does for a run. ``on_end`` hears of every run that is over."""

    def __init__(self, scheduler: Any, on_end: Callable[[RunRecord], None]) -> None:
        self.scheduler, self.on_end = scheduler, on_end
        self.data, self.places = Holder(scheduler), Places(scheduler)
        self.crew = Crew(scheduler, self.places, self._say_failed)
        self._client: Client | None = None
        self._client_lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """The scheduler closes."""
        for task in self._background:
            task.cancel()
        if self._client is not None:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._client.close(), 5.0)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run in the background; the loop itself keeps only weak references to tasks."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def client(self) -> Client:
        """A client of our own scheduler."""
        async with self._client_lock:
            if self._client is None:
                address, security = self.scheduler.address, _client_security(self.scheduler.security)
                self._client = await Client(address, asynchronous=True, set_as_default=False, security=security)
        return self._client

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

    # -- the server ------------------------------------------------------------------------------

    async def serve(self, record: RunRecord) -> None:
        """Create this epoch's server as soon as a worker can hold it, then its runners."""
        epoch = record.epoch
        try:
            handle = await self._create(record, epoch)
            if not record.live:
                self.release(record)  # it ended meanwhile, and let go of what there was then
            if record.epoch != epoch or not record.live:
                return
            record.handle, record.heard, record.misses = handle, time.monotonic(), 0
            if record.state == "waiting":
                record.state = "live"
            record.reached("server up")
            await self._begin(record)
        except Exception as error:
            if record.live and record.epoch == epoch:
                await self._not_served(record, error)

    async def _create(self, record: RunRecord, epoch: int) -> Handle:
        client = await self.client()
        key = f"paramserver-server-{record.run_id}-{epoch}"
        where = await self.places.server(record, client)
        actor = client.submit(
            Server, record.blob, record.run_id, epoch, record.source, actor=True, key=key, priority=1000, **where
        )
        record.actor = actor
        await self._started(record, actor, key)
        (worker,) = self.scheduler.tasks[key].who_has
        return Handle(key, worker.address, record.run_id, epoch)

    async def _started(self, record: RunRecord, actor: Future, key: str) -> None:
        """It may wait for a worker as long as there is none, but not on a worker that does not start it."""
        result = asyncio.ensure_future(_result(actor))
        limit = START + (FETCH_LIMIT if isinstance(record.source, Handle) else 0.0)
        begun: dict[str, float] = {}
        try:
            while not (await asyncio.wait([result], timeout=1.0))[0]:
                task = self.scheduler.tasks.get(key)
                on = None if task is None or task.processing_on is None else task.processing_on.address
                if on is not None and time.monotonic() - begun.setdefault(on, time.monotonic()) > limit:
                    record.avoid.add(on)
                    raise ServerGone(f"the worker at {on} did not start it within {limit:g} s")
        finally:
            result.cancel()
        if result.cancelled():  # an error that is no Exception
            raise ServerGone("its task was cancelled: was the cluster restarted?")
        result.result()

    async def _begin(self, record: RunRecord) -> None:
        """Runners; and what a server that took over cannot know."""
        await self.start_runners(record)
        for text in (record.why, self.places.fragile(record), record.warning):
            if text:
                await self.tell(record, "note", text)
        if record.stopping is not None:
            await self.tell(record, "stop", record.stopping)

    async def _not_served(self, record: RunRecord, error: Exception) -> None:
        """The first server cannot be created: the run fails. A later one may find another worker."""
        logger.warning("paramserver: run %s has no server: %r", record.name, error)
        if record.epoch == 1 and record.source is None and not _of_worker(error):
            self.end(record, "failed", str(error), _as_failure(record, error))
        else:
            await asyncio.sleep(0.5)
            self.lost_server(record, f"it could not be created: {error}")

    def lost_server(self, record: RunRecord, why: str) -> None:
        """Another takes over from the last anchor, under a new epoch; after too many in vain the run ends."""
        if not record.live:
            return
        record.deaths += 1
        where = "" if record.handle is None else f" at {record.handle.address}"
        text = f"the server of run {record.name!r}{where} was lost ({why})"
        if record.deaths >= DEATHS:
            error = f"{text}, the {DEATHS}th in a row without a push kept since: {record.way_on}"
            return self.end(record, "failed", "server lost", ServerLost(error))
        logger.warning("paramserver: %s; another takes over", text)
        if isinstance(record.source, Handle):  # it was lost before it was asked for its state
            record.source = record.anchor
        self._next_epoch(record, text)

    def _next_epoch(self, record: RunRecord, why: str) -> None:
        record.epoch, record.turn, record.why = record.epoch + 1, 0, why
        record.handle, actor = None, record.actor
        if actor is not None:
            actor.release()
        self.spawn(self.serve(record))

    async def move(self, record: RunRecord, worker: str | None) -> str:
        """Drain the server, and let another on another worker take over all it has: its address."""
        old, actor = record.handle, record.actor
        if old is None or not record.live:
            raise InvalidInput(f"run {record.name!r} has no server to move: it is {record.state}")
        others = [address for address in self.scheduler.workers if address != old.address]
        target = next((a for a in others if worker in (a, self.scheduler.workers[a].name)), "")
        if not others or (worker is not None and not target):
            there = ", ".join(f"{self.scheduler.workers[a].name}" for a in others) or "none"
            raise InvalidInput(f"the server cannot be moved to {worker or 'another worker'}: other workers are {there}")
        await self.ask(record, "drain", timeout=30.0)
        record.avoid.add(old.address)
        record.prefer, record.source, record.actor = target, old, None
        self._next_epoch(record, "")
        limit = time.monotonic() + KEYS_LIMIT
        while record.live and record.handle is None and time.monotonic() < limit:
            await asyncio.sleep(0.01)
        if actor is not None:
            actor.release()  # its state was fetched
        record.avoid.discard(old.address)
        record.prefer = ""
        if record.handle is None:
            raise CallTimeout(f"run {record.name!r} has no server yet, {KEYS_LIMIT:g} s after it was drained")
        return record.handle.address

    def keep(self, record: RunRecord, epoch: int, number: int, blob: bytes, state: bytes, pushes: int) -> bool:
        """Take a server's anchor; False where another has the run by now."""
        if epoch != record.epoch or not record.live:
            return False
        if (epoch, number) > record.kept:
            if pushes > record.pushes:
                record.deaths = 0
            record.kept, record.pushes, record.blob, record.anchor = (epoch, number), pushes, blob, state
            record.source = state
        return True

    def waits_for(self, record: RunRecord) -> str:
        """Why a run has no server yet, in words."""
        if not record.held:
            return "for its data's graph to reach the scheduler"
        return "for its server to start" if self.scheduler.workers else "for a worker: there are none"

    async def tell(self, record: RunRecord, method: str, *args: Any, timeout: float = 5.0) -> None:
        """A call to the run's server whose failure changes nothing."""
        with contextlib.suppress(ParamServerError):
            await self.ask(record, method, *args, timeout=timeout)

    async def ask(self, record: RunRecord, method: str, *args: Any, timeout: float) -> Any:
        """A call to the run's server."""
        assert record.handle is not None
        client = await self.client()
        return await record.handle.direct(client.rpc, method, *args, timeout=timeout)

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
        record.heard, record.misses = time.monotonic(), 0
        record.avoid.clear()
        return True


async def _result(future: Future) -> None:
    await future


def _of_worker(error: Exception) -> bool:
    """Whether the worker was at fault, not what it was asked to do."""
    return isinstance(error, (OSError, ServerGone)) or "lost" in str(error).lower()


def _as_failure(record: RunRecord, error: Exception) -> ParamServerError:
    if isinstance(error, ParamServerError):
        return error
    return StepFailed(f"the server of run {record.name!r} could not be created: {type(error).__name__}: {error}")


def _client_security(security: Any) -> Any:
    """The scheduler's security, its own certificate standing in where it has none for clients."""
    if security is None or not getattr(security, "require_encryption", False):
        return security
    return Security(
        require_encryption=True,
        tls_ca_file=security.tls_ca_file,
        tls_client_cert=security.tls_client_cert or security.tls_scheduler_cert,
        tls_client_key=security.tls_client_key or security.tls_scheduler_key,
    )
