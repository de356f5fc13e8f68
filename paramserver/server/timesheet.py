"""Who spent how long at what, by the server's own clock: nothing here costs a call more than microseconds.

The server sees when a runner's call comes in and when it is answered, and the push says how long its
step took. What is neither at the server nor in a step is the exchange: no runner measures it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from paramserver.messages import Assignment, Outcome, Push, Reply, Stop, Task, worker_of
from paramserver.profile import WorkerTime
from paramserver.server.tracing import Tracer

Seconds = defaultdict[str, float]


def new() -> Seconds:
    """Nothing spent."""
    return defaultdict(float)


@dataclass
class _Runner:
    """One runner: either at the server, since ``came``, or away, since ``left``."""

    came: float | None = None
    left: float | None = None
    working: bool = False  #: away with an assignment
    busy: float = 0.0  #: the server's seconds at work when it came
    steps: Counter[str] = field(default_factory=Counter)
    by_task: Seconds = field(default_factory=new)
    spent: Seconds = field(default_factory=new)


@dataclass
class Timesheet:
    """The times of one run; every ``now`` is of one clock."""

    unit: str = "s"
    tracer: Tracer | None = None  #: where a trace was asked for
    server: Seconds = field(default_factory=new)
    stages: dict[str, float] = field(default_factory=dict)  #: name → when it was reached
    _busy: float = 0.0
    _runners: dict[str, _Runner] = field(default_factory=dict)
    _copied: dict[str, tuple[int, float]] = field(default_factory=dict)

    # -- runners ---------------------------------------------------------------------------------

    def came(self, name: str, push: object, now: float, looking: float = 0.0) -> None:
        """A runner's call is here, with a push or without; it looked for chunks for so long."""
        runner = self._runners.get(name)
        if runner is None:
            runner = self._runners[name] = _Runner()
        runner.spent["load"] += looking
        if runner.left is not None:
            stepped = self._stepped(runner, push) if isinstance(push, Push) else 0.0
            if self.tracer is not None and isinstance(push, Push) and push.trouble != "busy":
                self.tracer.step(name, push, runner.left)
            runner.spent["exchange"] += max(now - runner.left - looking - stepped, 0.0)
        runner.came, runner.left, runner.busy = now, None, self._busy

    @staticmethod
    def _stepped(runner: _Runner, push: Push) -> float:
        task = push.task.value
        if push.payload.get("every", 1) > 1:
            task += " on a sample"
        elif "H" in push.payload:
            task += " + Hessian"
        runner.spent["load"] += push.loading
        if push.trouble != "busy":
            runner.steps[task] += 1
            runner.by_task[task] += push.seconds - push.loading
        return push.seconds

    def answered(self, name: str, reply: Reply, now: float) -> None:
        """Its call was answered: with work, to come back, or for the last time."""
        runner = self._runners.get(name)
        if runner is not None and runner.came is not None:
            self._held(runner, runner.spent, now)
            runner.came, runner.left = None, None if isinstance(reply, Stop) else now
            runner.working = isinstance(reply, Assignment)

    def _held(self, runner: _Runner, spent: Seconds, now: float) -> None:
        assert runner.came is not None
        held = max(now - runner.came, 0.0)
        at_work = min(self._busy - runner.busy, held)
        spent["server"] += at_work
        spent["idle"] += held - at_work

    def copied(self, worker: str, copies: tuple[int, float]) -> None:
        """Chunks that a worker copied so far, and the seconds of it."""
        self._copied[worker] = copies

    def gone(self, worker: str, now: float) -> None:
        """A worker left: its runners' times stop here."""
        for name, runner in self._runners.items():
            if worker_of(name) == worker:
                runner.spent = self._until(runner, now)
                runner.came = runner.left = None

    # -- the run ---------------------------------------------------------------------------------

    def pushed(self, task: Task, outcome: Outcome, now: float) -> None:
        """A push was taken, or refused."""
        if outcome is Outcome.ACCEPTED:
            self.stages.setdefault("first push", now)
            if task is Task.SOLVE:
                self.stages["last solve"] = now

    # -- the server ------------------------------------------------------------------------------

    def at(self, what: str, seconds: float) -> None:
        """The server was at work on this."""
        self.server[what] += seconds
        self._busy += seconds

    # -- reading ---------------------------------------------------------------------------------

    def workers(self, now: float) -> tuple[WorkerTime, ...]:
        """A line a worker, in the order in which they came."""
        names = dict.fromkeys(map(worker_of, self._runners))
        return tuple(self._line(worker, [r for n, r in self._runners.items() if worker_of(n) == worker], now)
                     for worker in names)  # fmt: skip

    def _line(self, worker: str, runners: list[_Runner], now: float) -> WorkerTime:
        spent = _sum(self._until(runner, now) for runner in runners)
        by_task = _sum(runner.by_task for runner in runners)
        steps = sum((runner.steps for runner in runners), Counter[str]())
        seconds = sum(spent.values()) + sum(by_task.values())
        copies, copying = self._copied.get(worker, (0, 0.0))
        return WorkerTime(
            worker, len(runners), seconds, dict(steps), dict(by_task), spent["load"], spent["exchange"],
            spent["server"], spent["idle"], spent["under_way"], copies, copying,
        )  # fmt: skip

    def _until(self, runner: _Runner, now: float) -> Seconds:
        """What it spent outside finished steps, the time since its last call or answer included."""
        spent = runner.spent.copy()
        if runner.came is not None:
            self._held(runner, spent, now)
        elif runner.left is not None:
            spent["under_way" if runner.working else "exchange"] += max(now - runner.left, 0.0)
        return spent


def _sum(parts: Iterable[Mapping[str, float]]) -> Seconds:
    total = new()
    for part in parts:
        for what, seconds in part.items():
            total[what] += seconds
    return total
