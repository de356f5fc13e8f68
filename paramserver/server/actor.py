"""The Dask actor: a thin asynchronous shell over `Core`.

All calls are ``async def``: they run on the worker's event loop and pay for no thread. Pushes that
arrive while a heavy step is under way (in a thread) wait in the inbox and are absorbed together;
one turn at a time touches the core. Readers get one published version, never a mixture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

import cloudpickle
from distributed import get_worker

from paramserver.ending import Ending
from paramserver.errors import InvalidInput, RunFailed, ServerGone, StepFailed
from paramserver.messages import Array, Assignment, Failure, Push, Reply, Request, Stop, Version, Wait
from paramserver.profile import Profile
from paramserver.server import reading
from paramserver.server.durable import Durable, Source, taken_over
from paramserver.server.handle import open_door, pack, unpack
from paramserver.views import ChunkValue, History, Params, Status

logger = logging.getLogger("paramserver")

TICK = 0.25  #: seconds between looks at limits and parked runners
HOLD = 0.5  #: seconds a runner without work is kept waiting for some
HEAVY = 0.003  #: a core step that took longer than this runs in a thread
STEPS = {"surveying": "null model", "running": "z", "verifying": "certificate"}  #: a core step's name by its state


class _Call(NamedTuple):
    runner: str
    push: Push | Failure | None
    have: Version | None
    roster: int
    since: float
    answer: asyncio.Future[Reply]


class Server:
    """One run's server on a worker; see `Core` for what it does."""

    def __init__(self, blob: bytes, run_id: str, epoch: int, source: Source = None) -> None:
        spec, keys = cloudpickle.loads(blob)
        self.keys: dict[int, tuple[Any, ...]] = dict(keys)
        self.worker = get_worker()
        open_door(self.worker)
        self.run_id, self.epoch = run_id, epoch
        self.core = taken_over(spec, epoch, source, self.worker)
        #: how often chunks came or went, more in every epoch; how many that left were crossed off
        self._roster, self._crossed = (epoch - 1) * 10**6, self.core.census.left
        self.core.memory_limit = self.worker.memory_manager.memory_limit
        self._setup = (spec.problem, spec.rule)
        self._inbox: list[_Call] = []
        self._parked: dict[str, _Call] = {}
        self._lock: asyncio.Lock | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._last = 0.0  #: seconds that a core step takes, lately
        self._announced = ""
        self._renewed = 0  #: chunks that had other data, as far as the supervisor was told that the run goes on
        self.turns = 0  #: changes by users: an end announced before one is no end after it
        self._runners: dict[str, float] = {}
        self.durable = Durable(self)

    # -- runners ---------------------------------------------------------------------------------

    async def hello(self, packed: Any) -> Any:
        """What a runner needs to begin: (problem, rule, keys of every chunk's parts, roster)."""
        self._mine()
        run_id = unpack(packed)
        if run_id != self.run_id:
            raise ServerGone(f"this is the server of run {self.run_id}, not of {run_id}")
        self._cross_off()
        seqs = {i: None if slot.fields is None else slot.seq for i, slot in enumerate(self.core.params.slots)}
        return self._setup[0], self.core.params.rule, self.keys, self._roster, seqs if self.epoch > 1 else {}

    async def replay(self, packed: Any) -> None:
        """What a runner pushed to the server before this one."""
        pushes: list[Push] = unpack(packed)
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
            worker = runner.rpartition("#")[0]
            self.core.dispatch.holds(worker, request.held)
            self.core.dispatch.copied[worker] = request.copied
            self.core.timesheet.copied(worker, request.copied)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        call = _Call(runner, request.push, request.have, request.roster, now, answer)
        self._inbox.append(call)
        if not lock.locked():
            if self._last <= HEAVY:
                self._work_now()  # without an await nobody comes in between: no need of the lock
            else:
                await self._turn()
        return await call.answer

    def _wake(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())
        return self._lock

    async def _turn(self) -> None:
        """Absorb the inbox, make what is due, answer; what came in meanwhile gets its own turn."""
        async with self._wake():
            await self._work()
        if self._inbox:
            self._later = asyncio.create_task(self._turn())

    async def _work(self) -> None:
        """Absorb, make what is due, answer; heavy steps in a thread. The caller holds the lock."""
        self._absorb()
        while self.core.due:
            if self._last > HEAVY:
                began, state = time.monotonic(), self.core.state
                await asyncio.to_thread(self.core.refresh, began)
                self._took(began, state)
            else:
                self._refresh_here()
        self._settle()

    def _work_now(self) -> None:
        """The same in one go, while steps are light."""
        self._absorb()
        while self.core.due:
            self._refresh_here()
        self._settle()

    def _absorb(self) -> None:
        calls, self._inbox = self._inbox, []
        now = began = time.monotonic()
        for call in calls:
            if call.push is not None:
                self.core.deliver(call.push, now)
            old = self._parked.pop(call.runner, None)
            if old is not None and not old.answer.done():
                old.answer.set_result(Wait())
            self._parked[call.runner] = call
        self._spent("pushes", began)

    def _refresh_here(self) -> None:
        began, state = time.monotonic(), self.core.state
        self.core.refresh(began)
        self._took(began, state)

    def _took(self, began: float, state: str) -> None:
        self._last += 0.3 * (self._spent(STEPS[state], began) - self._last)

    def _spent(self, what: str, began: float) -> float:
        seconds = time.monotonic() - began
        self.core.timesheet.at(what, seconds)
        return seconds

    def _settle(self) -> None:
        self._cross_off()
        self.durable.look()
        self._answer()
        if self.core.census.renewed > self._renewed:
            self._renewed = self.core.census.renewed
            self._resuming = asyncio.create_task(self._resumed())
        if self.core.over and self._announced != self._outcome_name():
            self._announced = self._outcome_name()
            self._telling = asyncio.create_task(self._announce())

    def _answer(self) -> None:
        now = began = time.monotonic()
        for runner, call in list(self._parked.items()):
            reply = self.core.assign(runner, call.have, now)
            knows = call.roster == self._roster
            if isinstance(reply, Wait) and reply.fetch is None and knows and now - call.since < HOLD:
                continue
            if self._roster and not isinstance(reply, Stop):
                reply = reply._replace(roster=self._roster)
            del self._parked[runner]
            self.core.timesheet.answered(runner, reply, time.monotonic())
            if not call.answer.done():
                call.answer.set_result(reply)
        self._spent("answers", began)

    # -- time ------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Limits, `until`, parked runners; ends with the run."""
        while self.core.state not in ("finished", "failed") and not self.durable.superseded:
            await asyncio.sleep(TICK)
            self.durable.look()
            try:
                await self._until()
                async with self._wake():
                    self.core.tick(time.monotonic())
                    await self._work()
            except Exception as error:  # nobody awaits this task: an error here must end the run
                logger.exception("paramserver: the server's clock failed")
                self.core.fail(StepFailed(f"on the server: {error!r}"), time.monotonic())

    async def _until(self) -> None:
        until = self.core.spec.until
        if until is None or self.core.over or self.core.params.z is None:
            return
        status = await self.status()
        try:
            enough = await asyncio.to_thread(until, status)  # the user's code: it may take its time
        except Exception as error:
            async with self._wake():  # a heavy step may be under way in a thread
                return self.core.fail(StepFailed(f"until raised {error!r}"), time.monotonic())
        if enough:
            async with self._wake():
                self.core.end("until", time.monotonic())

    def _outcome_name(self) -> str:
        return f"{self.core.state} {self.core.params.version} {self.core.reason}"

    async def _announce(self) -> None:
        """Tell the supervisor how it ended; it asks by itself should this not arrive."""
        if self.durable.superseded:
            return
        turn = self.turns
        for pause in (0.0, 0.2, 1.0, 5.0):
            await asyncio.sleep(pause)
            if turn != self.turns or not self.core.over:
                return  # it goes on since
            try:
                await self.worker.scheduler.paramserver(do="ended", **self.outcome())
                return
            except (OSError, RuntimeError):
                logger.warning("paramserver: cannot reach the scheduler to report the end of %s", self.run_id)

    def outcome(self) -> dict[str, Any]:
        """State, reason and the pickled `Ending` of a run that is over."""
        core = self.core
        value: Any = core.error if core.state == "failed" else reading.result(core)
        if value is None:
            value = RunFailed(f"the run ended ({core.reason}) before every chunk was read: it has no parameters")
        return {
            "run_id": self.run_id,
            "epoch": self.epoch,
            "turn": self.turns,
            "state": core.state,
            "reason": core.reason,
            "outcome": cloudpickle.dumps(Ending(value, self._status(), reading.profile(core, time.monotonic()))),
        }

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
            for runner in [r for r in self._runners if r.rpartition("#")[0] == worker]:
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

    def _status(self) -> Status:
        now = time.monotonic()
        runners: dict[str, int] = {}
        for runner, seen in self._runners.items():
            if now - seen < 60.0:
                worker = runner.rpartition("#")[0]
                runners[worker] = runners.get(worker, 0) + 1
        return reading.status(self.core, now, runners, self.worker.address)

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
        """A change was made: what was announced before is no longer so. The caller holds the lock."""
        await self._resumed()
        await self._work()
        await self.durable.keep()  # before it is acknowledged: a server that takes over must know of it

    async def _resumed(self) -> None:
        """Whoever waits for the end waits for another; which end, only the server that announced it knows."""
        self.turns += 1
        if self._announced or self.epoch > 1:
            self._announced = ""
            await self.worker.scheduler.paramserver(do="resumed", run_id=self.run_id, epoch=self.epoch, turn=self.turns)

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

    def _cross_off(self) -> None:
        """Forget the keys of chunks that left."""
        if self.core.census.left > self._crossed:
            slots, self._crossed = self.core.params.slots, self.core.census.left
            self.keys = {i: keys for i, keys in self.keys.items() if not slots[i].gone}
            self._roster += 1
