"""The servers of one scheduler's runs: made, moved, and replaced where they are lost."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable
from typing import Any

from distributed import Client, Future

from paramserver.errors import ParamServerError, ServerGone, ServerLost, StepFailed
from paramserver.server.actor import Server
from paramserver.server.handle import Handle
from paramserver.server.takeover import FETCH_LIMIT
from paramserver.supervisor.places import Places
from paramserver.supervisor.record import RunRecord

logger = logging.getLogger("paramserver")

START = 15.0  #: seconds for a worker to start a server
DEATHS = 5  #: servers lost without a push kept since: there is no use in another


class Servers(ABC):
    """The part of `Keeper` that makes servers, and talks to them."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.places = scheduler, Places(scheduler)
        self._client: Client | None = None
        self._client_lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def start_runners(self, record: RunRecord) -> None:
        """See `Keeper`, as the next two."""

    @abstractmethod
    def end(self, record: RunRecord, state: str, reason: str, error: Exception | None = None) -> None: ...

    @abstractmethod
    def release(self, record: RunRecord) -> None: ...

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
            record.handle, record.misses = handle, 0
            if record.state == "waiting":
                record.state = "live"
            record.reached("server up")
            await self._begin(record)
        except _Displaced:
            if record.live and record.epoch == epoch:
                self.next_epoch(record, record.why)
        except Exception as error:
            if record.live and record.epoch == epoch:
                await self._not_served(record, error)

    async def _create(self, record: RunRecord, epoch: int) -> Handle:
        client = await self.client()
        key = f"paramserver-server-{record.run_id}-{epoch}"
        while self._nowhere(record) and record.epoch == epoch and record.live:
            await asyncio.sleep(0.05)
        where = await self.places.server(record, client)
        if record.epoch != epoch or not record.live:
            raise ServerGone("the run ended meanwhile")  # and nobody would release what is submitted now
        actor = client.submit(
            Server, record.blob, record.run_id, epoch, record.source, record.saved, actor=True, key=key, priority=1000,
            **where,
        )  # fmt: skip
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
                if isinstance(record.source, Handle) and record.source.address not in self.scheduler.workers:
                    raise ServerGone(
                        f"the worker at {record.source.address} left before its server's state was fetched"
                    )
                task = self.scheduler.tasks.get(key)
                if task is not None and task.state == "no-worker" and task.worker_restrictions:
                    raise _Displaced  # Dask lets it wait for the workers it was meant for, though others would do
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
        if record.state == "waiting" and record.source is None and not _of_worker(error):
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
        self.next_epoch(record, text)

    def next_epoch(self, record: RunRecord, why: str) -> None:
        """Whatever server there is is stale from now on; another is made, as soon as there is a worker for it."""
        record.epoch, record.turn, record.why = record.epoch + 1, 0, why
        record.handle, actor = None, record.actor
        if actor is not None:
            actor.release()
        self.spawn(self.serve(record))

    def homes(self, record: RunRecord) -> set[str]:
        """Where the run's server is, or is being started; and where one is whose state the next is to fetch."""
        there = {handle.address for handle in (record.handle, record.source) if isinstance(handle, Handle)}
        task = None if record.actor is None else self.scheduler.tasks.get(record.actor.key)
        if task is not None:
            there.update(worker.address for worker in (task.processing_on, *(task.who_has or ())) if worker is not None)
        return there

    def keep(self, record: RunRecord, epoch: int, number: int, taken: int, blob: bytes | None, state: bytes) -> bool:
        """Take a server's anchor, and that it took so many pushes; False where another has the run by now."""
        if epoch != record.epoch or not record.live:
            return False
        if (epoch, number) > record.kept:
            record.deaths = 0 if taken else record.deaths
            record.kept, record.anchor, record.source = (epoch, number), state, state
            record.blob = record.blob if blob is None else blob
        return True

    def _nowhere(self, record: RunRecord) -> bool:
        """Whether Dask could put a server only on workers that are about to end, and no runner has a push for it."""
        return self.places.ending() and not self.at_work(record, self.places.leaving)

    def at_work(self, record: RunRecord, addresses: Iterable[str]) -> bool:
        """Whether runners there have not ended yet."""
        runners = (future for address in addresses for future in record.runners.get(address, ()))
        return any(not future.done() for future in runners)

    def waits_for(self, record: RunRecord) -> str:
        """Why a run has no server yet, in words."""
        if not record.held:
            return "for its data's graph to reach the scheduler"
        if self.places.ending():
            return "for a worker: those there are about to end"
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


class _Displaced(Exception):
    """The workers that a server was meant for are gone."""


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
    if security is None or security.tls_client_cert or not security.tls_scheduler_cert:
        return security
    own = copy.copy(security)
    own.tls_client_cert, own.tls_client_key = security.tls_scheduler_cert, security.tls_scheduler_key
    return own
