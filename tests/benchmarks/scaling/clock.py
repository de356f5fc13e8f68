"""One server as a single queue, in virtual time: the real core, the actor's turns, and measured costs.

The event loop does one thing at a time: takes a message, absorbs, answers. A step of the core that
has been slow lately runs beside it in a thread, and what comes in meanwhile is absorbed together
afterwards, as `paramserver.server.actor` has it. Workers only take their time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from paramserver.messages import Assignment, Fields, Push, Reply, Stop, Task, Version, Wait
from paramserver.penalties import NoPenalty
from paramserver.server.core import Core
from paramserver.server.dispatch import GOLDEN
from paramserver.server.engine import HEAVY, HOLD, TICK
from paramserver.server.spec import RunSpec

from .blank import Blank, Charged, Meter
from .costs import Costs

NO_DRIFT = np.array([1.0, 0.0])
#: Answers that say nothing.
WITH_HESSIAN: Fields = {"H": np.float64(0)}
SURVEYED: Fields = {"survey": np.ones(2)}
VERIFIED: Fields = {"f": np.float64(1), "g": np.zeros(1), "H": np.eye(1), "reach": np.ones(1), "drift": NO_DRIFT}
FOREVER = 1e9  #: seconds: nobody dies here, so no lease runs out and no chunk is copied


@dataclass(frozen=True)
class Form:
    """How the run is set up.

    Parameters
    ----------
    workers, chunks : int
        One runner a worker; so many chunks on each.
    sync : bool
        A z from all chunks, not from every push.
    coalesce : str
        "heavy": pushes are absorbed together while a slow z-step is under way, as the actor does;
        "never": a z-step for every push; "always": whatever waits is absorbed before a z is made.
    wake : str
        "all": every turn asks again for every runner without work; "news": only where z has changed.
    """

    workers: int
    chunks: int = 4
    sync: bool = False
    coalesce: str = "heavy"
    wake: str = "all"


class Timing(NamedTuple):
    """How a run went."""

    seconds: float
    pushes: int
    versions: int
    busy: float  #: share of the time that the server's event loop was busy
    computing: float  #: share of the time that workers computed


class _Call(NamedTuple):
    worker: int
    push: Push | None
    have: Version | None
    since: float


class _Core(Core):
    """The same answers, of a look at the asking worker's chunks alone: none is copied here. The price is charged."""

    _mine: frozenset[int] = frozenset()

    def assign(self, runner: str, have: Version | None, now: float) -> Reply:
        self._mine = self.dispatch.holders[runner.rpartition("#")[0]]
        return super().assign(runner, have, now)

    def _wanted(self) -> list[int]:
        gather, params = self.verifier.gather, self.params
        if gather is not None:
            return [i for i in self._mine if i in gather.pending]
        return [i for i in self._mine if i not in params.fresh and params.slots[i].version != params.version]

    @property
    def n_wanted(self) -> int:
        """Of all chunks."""
        gather = self.verifier.gather
        return len(self.params.slots) - len(self.params.fresh) if gather is None else len(gather.pending)


@dataclass
class _World:
    """The clock, the server's event loop, and the workers around it."""

    core: _Core
    costs: Costs
    form: Form
    meter: Meter
    rng: np.random.Generator
    now: float = 0.0
    events: list[Any] = field(default_factory=list)
    jobs: deque[Callable[[], list[tuple[int, Any]]]] = field(default_factory=deque)
    inbox: deque[_Call] = field(default_factory=deque)
    parked: dict[int, _Call] = field(default_factory=dict)
    came: set[int] = field(default_factory=set)  #: of those, who was not asked yet
    have: dict[int, Version] = field(default_factory=dict)
    loop_busy: bool = False
    locked: bool = False  #: a turn is under way
    last: float = 0.0  #: seconds that a core step takes, lately
    asked: Any = None  #: what the parked runners were last asked about
    served: float = 0.0
    computed: float = 0.0
    count: int = 0

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, args))

    def run(self) -> None:
        for worker in range(self.form.workers):
            self._send(worker, None)
        self.at(TICK, self._tick)
        while self.events and not self.core.over:
            self.now, _, what, args = heapq.heappop(self.events)
            what(*args)

    # -- the event loop --------------------------------------------------------------------------

    def _job(self, job: Callable[[], list[tuple[int, Any]]]) -> None:
        self.jobs.append(job)
        if not self.loop_busy:
            self._next()

    def _next(self) -> None:
        if self.jobs:
            self.loop_busy, self.meter.seconds = True, 0.0
            replies = self.jobs.popleft()()
            seconds = self.meter.read()
            self.served += seconds
            self.at(self.now + seconds, self._done, replies)

    def _done(self, replies: list[tuple[int, Any]]) -> None:
        self.loop_busy = False
        for worker, reply in replies:
            self.at(self.now + self.costs.latency / 2, self._receive, worker, reply)
        self._next()

    def _tick(self) -> None:
        self.at(self.now + TICK, self._tick)
        if not self.locked:
            self._job(self._work)

    # -- the actor's turns -----------------------------------------------------------------------

    def _exchange(self, call: _Call) -> list[tuple[int, Any]]:
        self.meter.seconds += self.costs.message + self.costs.byte * self._bytes(call.push)
        self.inbox.append(call)
        if self.locked or (self.form.coalesce == "always" and self.jobs):
            return []
        return self._work()

    def _work(self) -> list[tuple[int, Any]]:
        """Absorb, make what is due here or in a thread, answer."""
        if self.locked:
            return []
        for _ in range(min(1, len(self.inbox)) if self.form.coalesce == "never" else len(self.inbox)):
            call = self.inbox.popleft()
            if call.push is not None:
                self.core.deliver(call.push, self.now)
            self.parked[call.worker] = call
            self.came.add(call.worker)
        return self._refreshed()

    def _refreshed(self) -> list[tuple[int, Any]]:
        while self.core.due:
            seconds = self._refresh()
            if self.last > HEAVY and self.form.coalesce != "never":
                self.locked = True
                self.at(self.now + self.meter.seconds + seconds, self._job, self._unlocked)
                return []
            self.meter.seconds += seconds
        self.core.tick(self.now)
        return self._answer()

    def _unlocked(self) -> list[tuple[int, Any]]:
        self.locked = False
        replies = self._refreshed()
        if self.inbox and not self.locked:
            self.jobs.append(self._work)
        return replies

    def _refresh(self) -> float:
        before = self.meter.read()
        self.core.refresh(self.now)
        seconds, self.meter.seconds = self.meter.seconds, before
        self.last += 0.3 * (seconds - self.last)
        return seconds

    def _answer(self) -> list[tuple[int, Any]]:
        """Where z and the question are as they were, runners that had no work have none still: it only costs."""
        gather = self.core.verifier.gather
        about = (self.core.params.version, None if gather is None else gather.number)
        news, self.asked = about != self.asked, about
        price = self._price()
        replies: list[tuple[int, Any]] = []
        for worker, call in list(self.parked.items()):
            fresh = news or worker in self.came
            if fresh or self.form.wake == "all":
                self.meter.seconds += price
            reply = self.core.assign(f"w{worker}#0", call.have, self.now) if fresh else Wait()
            if not isinstance(reply, Wait) or self.now - call.since >= HOLD:
                del self.parked[worker]
                self.meter.seconds += self.costs.send * (getattr(reply, "z", None) is not None)
                replies.append((worker, reply))
        self.came.clear()
        return replies

    def _price(self) -> float:
        """Of one question to the dispatch."""
        costs, core = self.costs, self.core
        return costs.choose + costs.choose_live * len(core.params.slots) + costs.choose_wanted * core.n_wanted

    # -- the workers -----------------------------------------------------------------------------

    def _receive(self, worker: int, reply: Any) -> None:
        if isinstance(reply, Stop):
            return
        push, seconds = None, 0.0
        if isinstance(reply, Assignment):
            if reply.z is not None:
                self.have[worker] = reply.version
            push, seconds = self._step(reply)
        self.at(self.now + seconds + self.costs.latency / 2, self._send, worker, push)

    def _step(self, work: Assignment) -> tuple[Push, float]:
        costs = self.costs
        hessian = self._brings_hessian(work)
        payload, seconds = {
            Task.SURVEY: (SURVEYED, costs.survey),
            Task.VERIFY: (VERIFIED, costs.verify),
            Task.SOLVE: (WITH_HESSIAN if hessian or work.whole else {}, costs.step + costs.hessian * hessian),
        }[work.task]
        seconds *= max(0.1, 1.0 + costs.spread * float(self.rng.standard_normal()))
        self.computed += seconds
        base = None if work.whole else work.seq - 1
        return Push(work.chunk, work.seq, work.task, work.version, payload, base, seconds), seconds

    def _brings_hessian(self, work: Assignment) -> bool:
        """A chunk's first steps do; of 1.5, the second of every other chunk."""
        hessians = self.costs.hessians_sync if self.form.sync else self.costs.hessians
        return bool(work.seq <= hessians + work.chunk * GOLDEN % 1.0)

    def _send(self, worker: int, push: Push | None) -> None:
        call = _Call(worker, push, self.have.get(worker), self.now)
        self._job(partial(self._exchange, call))

    def _bytes(self, push: Push | None) -> float:
        if push is None or push.task is Task.SURVEY:
            return 0.0
        return self.costs.push + self.costs.push_hessian * ("H" in push.payload)


def timing(costs: Costs, form: Form, *, seed: int = 0, sweeps: float | None = None) -> Timing:
    """Survey, so many steps a chunk, a verification: how long it takes, and who was busy."""
    meter, n = Meter(), form.workers * form.chunks
    rule = Charged(costs=costs, meter=meter, min_fresh=n if form.sync else 1)
    steps = sweeps or (costs.sweeps_sync if form.sync else costs.sweeps)
    spec = RunSpec(
        Blank(costs, meter), NoPenalty(), rule, n, max_pushes=round(n * (1 + steps)), patience=FOREVER, silence=FOREVER
    )
    world = _World(_Core(spec, 0, 0.0), costs, form, meter, np.random.default_rng(seed))
    for worker in range(form.workers):
        world.core.dispatch.holds(f"w{worker}", range(worker, n, form.workers))
    world.run()
    if world.core.error is not None:
        raise world.core.error
    pushes, versions, end = world.core.record.pushes, world.core.params.version.n, world.now
    return Timing(end, pushes, versions, world.served / end, world.computed / end / form.workers)
