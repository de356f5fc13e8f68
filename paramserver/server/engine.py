"""A server's turns: pushes in, what is due, answers out; and its clock.

Pushes that arrive while a heavy step is under way (in a thread) wait in the inbox and are absorbed
together; one turn at a time touches the core.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

import cloudpickle

from paramserver.ending import Ending
from paramserver.errors import RunFailed, StepFailed
from paramserver.messages import Failure, Push, Reply, Stop, Version, Wait, worker_of
from paramserver.server import reading
from paramserver.server.core import Core
from paramserver.server.durable import Durable
from paramserver.views import Status

logger = logging.getLogger("paramserver")

TICK = 0.25  #: seconds between looks at limits and parked runners
HOLD = 0.5  #: seconds a runner without work is kept waiting for some
HEAVY = 0.003  #: a core step that took longer than this runs in a thread
STEPS = {"surveying": "null model", "running": "z", "verifying": "certificate"}  #: a core step's name by its state


class Call(NamedTuple):
    """A runner's call, until it is answered."""

    runner: str
    push: Push | Failure | None
    have: Version | None
    roster: int
    since: float
    answer: asyncio.Future[Reply]
    leaving: bool = False


class Engine:
    """What drives one core on a worker's event loop."""

    def __init__(self, core: Core, run_id: str, epoch: int, worker: Any, keys: dict[int, tuple[Any, ...]]) -> None:
        self.core, self.run_id, self.epoch, self.worker, self.keys = core, run_id, epoch, worker, keys
        #: how often chunks came or went, more in every epoch; how many that left were crossed off
        self._roster, self._crossed = (epoch - 1) * 10**6, core.census.left
        self._inbox: list[Call] = []
        self._parked: dict[str, Call] = {}
        self._lock: asyncio.Lock | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._last = 0.0  #: seconds that a core step takes, lately
        self._announced = ""
        self._renewed = 0  #: chunks that had other data, as far as the supervisor was told that the run goes on
        self.turns = 0  #: changes by users: an end announced before one is no end after it
        self._runners: dict[str, float] = {}
        self.durable = Durable(self)

    # -- turns -----------------------------------------------------------------------------------

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
        if self.core.timesheet.tracer is not None:
            self.core.timesheet.tracer.look(self.core, time.monotonic())

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
            reply = Stop("its worker leaves") if call.leaving else self.core.assign(runner, call.have, now)
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
        async with self._wake():
            status = self._status()
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
        await self.durable.last()
        for pause in (0.0, 0.2, 1.0, 5.0):
            await asyncio.sleep(pause)
            if turn != self.turns or not self.core.over:
                return  # it goes on since
            try:
                await self.worker.scheduler.paramserver(do="ended", **self.outcome())
                return
            except (OSError, RuntimeError):
                logger.warning("paramserver: cannot reach the scheduler to report the end of %s", self.run_id)

    async def _resumed(self) -> None:
        """Whoever waits for the end waits for another; which end, only the server that announced it knows."""
        self.turns += 1
        if self._announced or self.epoch > 1:
            self._announced = ""
            await self.worker.scheduler.paramserver(do="resumed", run_id=self.run_id, epoch=self.epoch, turn=self.turns)

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

    def _status(self) -> Status:
        now = time.monotonic()
        runners: dict[str, int] = {}
        for runner, seen in self._runners.items():
            if now - seen < 60.0:
                worker = worker_of(runner)
                runners[worker] = runners.get(worker, 0) + 1
        return reading.status(self.core, now, runners, self.worker.address)

    def _cross_off(self) -> None:
        """Forget the keys of chunks that left."""
        if self.core.census.left > self._crossed:
            slots, self._crossed = self.core.params.slots, self.core.census.left
            self.keys = {i: keys for i, keys in self.keys.items() if not slots[i].gone}
            self._roster += 1
