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
from paramserver.errors import CallTimeout, ChunkLost, InvalidInput, ParamServerError, RunFailed, ServerLost, StepFailed
from paramserver.server.actor import Server
from paramserver.server.handle import Handle
from paramserver.supervisor.record import RunRecord
from paramserver.workers import runner

logger = logging.getLogger("paramserver")

SILENCE = 60.0  #: seconds without an answer before the server is given up
DISMISS = 2.0  #: seconds that runners get to hear of the end before their tasks are released
SHARED_UP_TO = 4  #: workers up to which the server's worker gets runners too
RESTART = 2.0  #: seconds before a runner that ended by itself is started again
KEYS_LIMIT = 120.0  #: seconds for the chunks' keys to appear on the scheduler
TRIES = 5  #: failures of a worker's runners in a row before it is left alone


class Keeper:
    """What the plug-in does for a run. ``on_end`` hears of every run that is over."""

    def __init__(self, scheduler: Any, on_end: Callable[[RunRecord], None]) -> None:
        self.scheduler, self.on_end = scheduler, on_end
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
        """Hold the run's keys; their graph may still be under way on the client's stream."""
        await self._hold(record, _data(record.keys.values()))
        record.held = True
        record.reached("data held")

    async def _hold(self, record: RunRecord, keys: set[Any]) -> None:
        limit = time.monotonic() + KEYS_LIMIT
        while not all(key in self.scheduler.tasks for key in keys):
            if time.monotonic() > limit:
                missing = [key for key in keys if key not in self.scheduler.tasks]
                raise ChunkLost(
                    f"{len(missing)} of {len(keys)} chunk keys did not reach the scheduler within "
                    f"{KEYS_LIMIT:g} s, for instance {missing[0]!r}"
                )
            await asyncio.sleep(0.005)
        self.scheduler.client_desires_keys(list(keys), record.holder)

    async def add(
        self, record: RunRecord, keys: list[tuple[Any, ...]], columns: int | None, names: tuple[str, ...] | None
    ) -> list[int]:
        """More chunks: held as a launch holds its own, then the server's."""
        limit = time.monotonic() + KEYS_LIMIT
        while record.live and record.handle is None and time.monotonic() < limit:
            await asyncio.sleep(0.02)
        if record.handle is None or not record.live:
            raise InvalidInput(f"run {record.name!r} has no server yet: it waits {self.waits_for(record)}")
        await self._hold(record, _data(keys))
        try:
            ids: list[int] = await self.ask(record, "add", keys, columns, names, timeout=60.0)
        except ParamServerError as error:
            if not isinstance(error, CallTimeout):  # then they may have been taken all the same
                self._let_go(record, _data(keys))
            raise
        record.keys.update(zip(ids, keys, strict=True))
        return ids

    def _let_go(self, record: RunRecord, keys: set[Any]) -> None:
        """Release these keys, as far as no chunk of the run has them."""
        self.scheduler.client_releases_keys(list(keys - _data(record.keys.values())), record.holder)

    def _cross_off(self, record: RunRecord, there: frozenset[int], asked: set[int]) -> None:
        """Chunks that left since: the server has them no more."""
        left = [record.keys.pop(chunk) for chunk in asked - there if chunk in record.keys]
        if left:
            self._let_go(record, _data(left))

    def release(self, record: RunRecord) -> None:
        """Let go of the run's data, runners and server; a future out of scope is released."""
        record.runners.clear()
        if record.actor is not None:
            record.actor.release()  # `serve` may still wait for it, and hold it
        record.actor = None
        record.blob = b""
        if record.holder in self.scheduler.clients:
            self.scheduler.client_releases_keys(list(_data(record.keys.values())), record.holder)
            self.scheduler.clients.pop(record.holder, None)

    async def _check_chunks(self, record: RunRecord) -> None:
        """A chunk that cannot be had ends the run, unless it was added and does not count yet."""
        for i, parts in list(record.keys.items()):
            why = self._lost(i, parts)
            if why and not (record.handle is not None and await self._refused(record, i, why)):
                return self.fail(record, ChunkLost(why))

    def _lost(self, chunk: int, parts: tuple[Any, ...]) -> str:
        for key in (key for key in parts if key is not None):
            task = self.scheduler.tasks.get(key)
            if task is None or task.state == "forgotten":
                return (
                    f"chunk {chunk} is gone: the worker that held it left and it cannot be computed again "
                    "(scattered data?); pass lazy or persisted collections instead"
                )
            if task.state == "erred":
                why = (task.exception_blame or task).exception_text or "its task failed"
                return f"chunk {chunk} cannot be computed: {why}"
        return ""

    async def _refused(self, record: RunRecord, chunk: int, why: str) -> bool:
        """Whether its server goes on without this chunk; where it does not answer, the next look asks again."""
        with contextlib.suppress(ParamServerError):
            return bool(await self.ask(record, "refuse", chunk, why, timeout=5.0))
        return True

    # -- the server ------------------------------------------------------------------------------

    async def serve(self, record: RunRecord) -> None:
        """Create the server as soon as a worker can hold it, then its runners."""
        try:
            client = await self.client()
            key = f"paramserver-server-{record.run_id}-{record.epoch}"
            apart = {"resources": {"paramserver": 1}} if self._reserved() else {}
            record.actor = client.submit(
                Server, record.blob, record.run_id, record.epoch, actor=True, key=key, priority=1000, **apart
            )
            await record.actor
            if not record.live:
                return
            (worker,) = self.scheduler.tasks[key].who_has
            record.handle = Handle(key, worker.address, record.run_id, record.epoch)
            record.heard = time.monotonic()
            record.state = "live"
            record.reached("server up")
            await self.start_runners(record)
        except Exception as error:
            if record.live:
                logger.exception("paramserver: run %s has no server", record.name)
                self.end(record, "failed", str(error), _as_failure(record, error))

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

    def lost_server(self, record: RunRecord, why: str = "its worker left the cluster") -> None:
        """The run ends with its server."""
        assert record.handle is not None
        text = (
            f"the server of run {record.name!r} at {record.handle.address} is lost: {why}; launch again "
            "with z0= the last parameters read, on a worker that lives longer"
        )
        self.end(record, "failed", "server lost", ServerLost(text))

    # -- runners ---------------------------------------------------------------------------------

    async def start_runners(self, record: RunRecord) -> None:
        """A runner for every thread of every worker that has none."""
        client = await self.client()
        for address in self._hosts(record):
            if not self._wants_runners(record, address):
                continue
            record.started[address] = time.monotonic()
            count = record.runners_per_worker or self.scheduler.workers[address].nthreads
            stamp = f"{record.run_id}-{address}-{time.monotonic_ns()}"
            record.runners[address] = [
                client.submit(
                    runner.run, record.handle, k, key=f"paramserver-runner-{stamp}-{k}", workers=[address],
                    priority=500, pure=False, retries=0,
                )
                for k in range(count)
            ]  # fmt: skip

    def _wants_runners(self, record: RunRecord, address: str) -> bool:
        """None there, or ended by themselves a while ago and not failing for ever."""
        futures = record.runners.get(address)
        if futures is None:
            return True
        if not all(future.done() for future in futures):
            return False
        if time.monotonic() - record.started[address] < RESTART or record.failures.get(address, 0) >= TRIES:
            return False
        if all(future.status == "error" for future in futures):
            record.failures[address] = count = record.failures.get(address, 0) + 1
            if count == 1 or count == TRIES:
                self.spawn(self._note(record, address, futures[0], last=count == TRIES))
        else:
            record.failures.pop(address, None)
        return record.failures.get(address, 0) < TRIES

    async def _note(self, record: RunRecord, address: str, future: Future, last: bool) -> None:
        error = await future.exception()
        left = "; it is left alone from now on" if last else ""
        await self.tell(record, "note", f"runners on {address} failed: {type(error).__name__}: {error}{left}")

    def _reserved(self) -> list[str]:
        return [address for address, ws in self.scheduler.workers.items() if "paramserver" in ws.resources]

    def _hosts(self, record: RunRecord) -> list[str]:
        """Workers that should run the run's steps."""
        assert record.handle is not None
        workers = self.scheduler.workers.items()
        everyone = [address for address, ws in workers if ws.status.name in ("running", "paused")]
        reserved = set(self._reserved())
        if len(everyone) > SHARED_UP_TO:
            reserved.add(record.handle.address)
        return [address for address in everyone if address not in reserved] or everyone

    # -- the end ---------------------------------------------------------------------------------

    def fail(self, record: RunRecord, error: RunFailed) -> None:
        """End a run from here; its server, if it lives, is told so that its runners hear of it."""
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

    async def _dismiss(self, record: RunRecord) -> None:
        """Runners hear of the end from the server; then everything is released."""
        await asyncio.sleep(DISMISS if record.handle is not None else 0.0)
        self.release(record)

    # -- what should be --------------------------------------------------------------------------

    async def look_after(self, record: RunRecord) -> None:
        """One look at one live run: single events may be missed."""
        if not record.held:
            return  # being launched: its graph may take the scheduler seconds to read
        await self._check_chunks(record)
        if record.handle is None or not record.live:
            return
        if record.handle.address not in self.scheduler.workers:
            self.lost_server(record)
            return
        try:
            asked = set(record.keys)
            self._cross_off(record, await self.ask(record, "ping", timeout=2.0), asked)
            record.heard = time.monotonic()
        except ParamServerError as error:
            if record.live and time.monotonic() - record.heard > SILENCE:
                self.lost_server(record, str(error))
            return
        if record.live:
            await self.start_runners(record)


def _data(chunks: Iterable[tuple[Any, ...]]) -> set[Any]:
    """The keys of all parts of these chunks."""
    return {key for parts in chunks for key in parts if key is not None}


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
