"""The Dask actor: a thin asynchronous shell over `Core`.

All calls are ``async def``: they run on the worker's event loop and pay for no thread. Readers get
one published version, never a mixture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import cloudpickle
from distributed import get_worker

from paramserver.errors import InvalidInput, ServerGone
from paramserver.messages import Array, Assignment, Push, Reply, Request, Stop, Version, worker_of
from paramserver.profile import Profile
from paramserver.server import gate, reading
from paramserver.server.engine import HEAVY, Call, Engine
from paramserver.server.handle import open_door, pack, unpack
from paramserver.server.takeover import Source, taken_over
from paramserver.views import ChunkValue, History, Params, Status

logger = logging.getLogger("paramserver")


class Server(Engine):
    """One run's server on a worker; see `Core` for what it does."""

    def __init__(self, blob: bytes, run_id: str, epoch: int, source: Source = None, saved: str | None = None) -> None:
        spec, keys = cloudpickle.loads(blob)
        worker = get_worker()
        open_door(worker)
        core = taken_over(spec, epoch, source, saved, worker)
        core.memory_limit = worker.memory_manager.memory_limit
        super().__init__(core, run_id, epoch, worker, dict(keys))
        self._setup = (spec.problem, spec.rule)

    # -- runners ---------------------------------------------------------------------------------

    async def hello(self, packed: Any) -> Any:
        """What a runner needs to begin: (problem, rule, keys of every chunk's parts, roster, the slots' clocks)."""
        self._mine()
        run_id = unpack(packed)
        if run_id != self.run_id:
            raise ServerGone(f"this is the server of run {self.run_id}, not of {run_id}")
        self._cross_off()
        return self._setup[0], self.core.params.rule, self.keys, self._roster, self._seqs()

    def _seqs(self) -> dict[int, int | None]:
        """By what a runner knows what to push again: nothing to the first server."""
        slots = enumerate(self.core.params.slots) if self.epoch > 1 else ()
        return {i: None if slot.fields is None else slot.seq for i, slot in slots}

    async def replay(self, packed: Any) -> None:
        """What a runner pushed to the server before this one."""
        pushes: list[Push] = unpack(packed)
        if type(pushes) is not list:
            raise InvalidInput(f"pushes to be taken again must be a list, got {type(pushes).__name__}")
        async with self._mine():
            for push in pushes:
                self.core.replay(push, time.monotonic())
            await self._work()

    def _mine(self) -> asyncio.Lock:
        """The lock, for a call from outside."""
        self._check_current()
        return self._wake()

    def _check_current(self) -> None:
        """Another server has this run: whoever asks here must look for it."""
        if self.durable.superseded:
            raise ServerGone(f"epoch {self.epoch} of run {self.run_id} is over: another server has it")

    async def exchange(self, packed: Any) -> Any:
        """One step of a runner: its push in (a `Request`), its next assignment out (a `Reply`)."""
        began = time.monotonic()
        request = unpack(packed)
        gate.check(request)
        self._spent("messages", began)
        reply = await self._exchange(request)
        began = time.monotonic()
        if isinstance(reply, Assignment) and reply.setup is not None:
            reply = reply._replace(setup=cloudpickle.dumps(reply.setup))  # a user's class may be of a notebook
        out = pack(reply)
        self._spent("messages", began)
        return out

    async def _exchange(self, request: Request) -> Reply:
        runner = request.runner
        if (request.run_id, request.epoch) != (self.run_id, self.epoch):
            return Stop(f"this is epoch {self.epoch} of run {self.run_id}")
        self._check_current()
        lock = self._wake()
        now = time.monotonic()
        self._runners[runner] = now
        self.core.came(runner, request.push, now, request.looking)
        if request.held is not None:
            worker = worker_of(runner)
            self.core.dispatch.holds(worker, request.held)
            self.core.dispatch.copied[worker] = request.copied
            self.core.timesheet.copied(worker, request.copied)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        call = Call(runner, request.push, request.have, request.roster, now, answer, request.leaving)
        self._inbox.append(call)
        if not lock.locked():
            if self._last <= HEAVY:
                self._work_now()  # without an await nobody comes in between: no need of the lock
            else:
                await self._turn()
        return await call.answer

    # -- the supervisor --------------------------------------------------------------------------

    async def ping(self) -> frozenset[int]:
        """The chunks that there are, whose data the supervisor is to hold."""
        self._mine()
        self._cross_off()
        if self.core.over and self._announced:
            self._telling = asyncio.create_task(self._announce())
        return frozenset(self.keys)

    async def gone(self, worker: str) -> None:
        """A worker left the cluster."""
        async with self._mine():
            self.core.dispatch.gone(worker)
            self.core.timesheet.gone(worker, time.monotonic())
            for runner in [r for r in self._runners if worker_of(r) == worker]:
                del self._runners[runner]
                call = self._parked.pop(runner, None)
                if call is not None and not call.answer.done():
                    call.answer.set_result(Stop("its worker left"))

    async def fail(self, error: Exception) -> None:
        """The supervisor found that the run cannot go on."""
        async with self._mine():
            self.core.fail(error, time.monotonic())
            await self._work()

    async def drain(self) -> None:
        """Take nothing more: another server will `fetch` the state. Pushes that come too late are sent to that one."""
        async with self._mine():
            self.durable.drain()
            for call in [*self._parked.values(), *self._inbox]:
                if not call.answer.done():
                    call.answer.set_exception(ServerGone(f"the server of run {self.run_id} is being moved"))
            self._parked, self._inbox = {}, []

    async def fetch(self) -> bytes:
        """The drained state, whole."""
        return await self.durable.drained()

    async def park(self) -> tuple[bytes, bool]:
        """Drain, and hand over what the supervisor is to keep until there is a worker again."""
        if not self.durable.superseded:
            await self.drain()
        return await self.durable.parked()

    async def note(self, text: str) -> None:
        """Something that a reader of the status should know."""
        self.core.notes.say(text)

    # -- readers ---------------------------------------------------------------------------------

    async def params(self) -> Params | None:
        """Today's parameters."""
        self._check_current()
        return reading.params(self.core, time.monotonic())

    async def status(self) -> Status:
        """How the run is doing."""
        async with self._mine():
            return self._status()

    async def values(self, what: str, chunk: int | None) -> list[ChunkValue]:
        """Duals or local variables."""
        async with self._mine():
            return reading.values(self.core, what, chunk)

    async def slope(self) -> Array | None:
        """Σ y_i where the penalty acts."""
        async with self._mine():
            return reading.slope(self.core)

    async def profile(self) -> Profile:
        """Where the time went so far."""
        async with self._mine():
            return reading.profile(self.core, time.monotonic())

    async def history(self) -> History:
        """The thinned record so far."""
        async with self._mine():
            return self.core.record.history()

    # -- changes ---------------------------------------------------------------------------------

    async def stop(self, verify: bool) -> None:
        """End the run, with a certificate if ``verify``."""
        async with self._mine():
            self.core.end("stopped", time.monotonic(), verify)
            await self._work()

    async def update(self, penalty: Any, tol: float | None, settings: dict[str, Any]) -> Version:
        """Change a live run."""
        async with self._mine():
            version = self.core.update(penalty, tol, settings, time.monotonic())
            await self._resume()
            return version

    async def _resume(self) -> None:
        """A user's change was made. The caller holds the lock."""
        self.core.changes += 1
        await self._resumed()
        await self._work()
        await self.durable.keep()  # before it is acknowledged: a server that takes over must know of it

    async def about(self) -> tuple[Any, float]:
        """What a client needs to cut data alike: (problem, rows a chunk)."""
        rows = [slot.rows for slot in self.core.params.slots if slot.rows]
        return self._setup[0], sum(rows) / len(rows) if rows else 0.0

    async def add(self, keys: list[tuple[Any, ...]], columns: int | None, names: tuple[str, ...] | None) -> list[int]:
        """More chunks, whose keys the supervisor holds: their numbers."""
        async with self._mine():
            self._check_columns(columns, names)
            ids = self.core.add(len(keys), time.monotonic())
            self.keys = {**self.keys, **dict(zip(ids, keys, strict=True))}
            self._roster += 1
            await self._resume()
            return ids

    def _check_columns(self, columns: int | None, names: tuple[str, ...] | None) -> None:
        core, had = self.core, self.core.spec.feature_names
        if core.params.setup is not None and columns not in (None, d := int(core.params.survey[1])):
            raise InvalidInput(f"X has {columns} columns where the run's chunks have {d}: pass the same columns")
        if names is not None and had is not None and names != had:
            text = f"X has the columns {', '.join(names[:12])} where the run's are {', '.join(had[:12])}"
            raise InvalidInput(f"{text}: pass the same ones, in the same order")

    async def drop(self, chunks: list[int]) -> None:
        """These chunks leave the objective."""
        async with self._mine():
            self.core.drop(chunks)
            await self._resume()

    async def lost(self, found: dict[int, str]) -> str:
        """The supervisor found that these chunks cannot be had; why the run cannot go on without, if it cannot."""
        async with self._mine():
            left = self.core.census.left
            why = self.core.lost(found, time.monotonic())
            await (self._resume() if self.core.census.left > left else self._work())
            return why
