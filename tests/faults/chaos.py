"""Random faults on four workers, run after run, each to its certificate.

    python -m tests.faults.chaos --minutes 5 --seed 0

Prints what was done, how long runs stood still for it, and what became of every push; ends with 1 where an answer is
wrong, something of ours is left, or a run makes no progress for 30 s beyond what the faults in force explain.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster.helpers import Processes, Slow, processes

import paramserver as ps
from paramserver import errors
from tests.faults.faults import Fault, Scene, inject
from tests.faults.helpers import EXACT, PENALTY, lazy, leftovers

WORKERS = 4
STILL = 30.0  #: seconds without progress, beyond what a fault explains
LOOK = 0.1


class Wrong(Exception):
    """What a run must never do."""


@dataclass
class Tally:
    """What was seen."""

    faults: Counter[str] = field(default_factory=Counter)
    outages: list[float] = field(default_factory=list)
    pushes: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    takeovers: int = 0

    def report(self, seconds: float) -> str:
        """A page."""
        faults = sum(self.faults.values())
        lines = [f"{self.runs} runs in {seconds:.0f} s, {self.takeovers} takeovers, {faults} faults:"]
        lines += [f"    {count:4d}  {name}" for name, count in self.faults.most_common()]
        if self.outages:
            lines.append(f"outages: median {median(self.outages):.2f} s, longest {max(self.outages):.2f} s")
        lines.append("pushes: " + ", ".join(f"{n} {what}" for what, n in self.pushes.items()))
        return "\n".join(lines)


class Chaos:
    """One scheduler, and what is done to its workers."""

    def __init__(self, own: Processes, client: Any, seed: int) -> None:
        self.own, self.client, self.rng, self.tally = own, client, np.random.default_rng(seed), Tally()
        self.numbers, self.began = itertools.count(), time.monotonic()

    def name(self) -> str:
        """Of the next worker."""
        return f"w{next(self.numbers)}"

    def fill(self) -> None:
        """Four workers, whatever became of those before."""
        for name in [name for name, worker in self.own.workers.items() if worker.process.poll() is not None]:
            del self.own.workers[name]
        for name in list(self.own.workers)[WORKERS:]:
            self.own.workers.pop(name).kill()
        new = [self.name() for _ in range(WORKERS - len(self.own.workers))]
        self.own.add(*new)
        self.own.wait_for(self.client, *new)

    def one(self, end: float) -> None:
        """A run with faults in it, to its certificate."""
        self.fill()
        rule = ["newton", "newton", "admm", "active"][self.rng.integers(4)]
        problem = Slow(delay=float(self.rng.uniform(0.05, 0.2)))
        run = ps.launch(problem, *lazy(), penalty=PENALTY, consensus=rule, tol=1e-8, client=self.client)
        self.suffer(run, end)
        result = run.result(timeout=60)
        gap = EXACT.gap(result.z)
        if not (result.converged and -1e-13 <= gap <= result.gap + 1e-13 and result.gap <= 1e-8):
            raise Wrong(f"a wrong answer: true gap {gap:.1e}, said {result}")
        status = run.status()
        self.tally.runs += 1
        self.tally.takeovers += status.epoch - 1
        self.tally.pushes.update({"taken": status.pushes, "replayed": status.replayed, **status.refused})
        ps.forget(run.name, self.client)

    def suffer(self, run: Any, end: float) -> None:
        """Faults at random moments; watch for progress in between."""
        scene = Scene(self.own, self.client, run, self.name)
        strike, excused, seen, moved, struck = self._next(), 0.0, None, time.monotonic(), -1
        while not run.done():
            now = time.monotonic()
            state = self._progress(run)
            if state != seen:
                if now - moved > 1.0:
                    self.tally.outages.append(now - moved)
                seen, moved = state, now
            if now - max(moved, excused) > STILL:
                raise Wrong(f"no progress for {now - moved:.0f} s: {run.status()}")
            if now > strike and now < end and self._may(run, struck):
                fault = list(Fault)[self.rng.integers(len(Fault))]
                excused, strike, struck = now + self._do(fault, scene), self._next(), run.status().pushes
            time.sleep(LOOK)

    @staticmethod
    def _may(run: Any, struck: int) -> bool:
        """Five servers lost without a push in between may end a run: there is one between any two faults here."""
        return run.status().pushes > struck

    def _do(self, fault: Fault, scene: Scene) -> float:
        try:
            excuse = inject(fault, scene)
        except (errors.InvalidInput, errors.RunFailed) as error:
            if not scene.run.done() and "no server" not in str(error) and "not read" not in str(error):
                raise
            return 5.0
        print(f"{time.monotonic() - self.began:7.1f} s  {fault.value}", file=sys.stderr, flush=True)
        self.tally.faults[fault.value] += 1
        return excuse

    def _next(self) -> float:
        return time.monotonic() + float(self.rng.exponential(2.5))

    @staticmethod
    def _progress(run: Any) -> tuple[Any, ...]:
        status = run.status()
        return status.pushes, status.version, status.state, status.doing, status.epoch

    def nothing_left(self) -> None:
        """On the scheduler, some seconds after the last run."""
        limit = time.monotonic() + 20
        while left := self.client.run_on_scheduler(leftovers):
            if time.monotonic() > limit:
                raise Wrong(f"left behind: {left}")
            time.sleep(0.2)


def inside(dask_scheduler: Any) -> str:
    """What the supervisor is at, for whoever looks for the cause."""
    supervisor = dask_scheduler.plugins["paramserver"]
    lines = [f"workers {[(ws.name, ws.status.name, address) for address, ws in dask_scheduler.workers.items()]}"]
    for record in supervisor.runs.values():
        if record.live:
            task = dask_scheduler.tasks.get(f"paramserver-server-{record.run_id}-{record.epoch}")
            fields = {k: v for k, v in vars(record).items() if k not in ("blob", "anchor", "source", "keys", "runners")}
            lines += [str(fields), f"task {task} {task and (task.state, task.processing_on, task.who_has)}"]
    for work in supervisor.keeper._background:
        lines += [str(work), *(f"    {frame}" for frame in work.get_stack(limit=3))]
    return "\n".join(lines)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    end = began + 60 * given.minutes
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        processes(Path(folder)) as own,
        own.client(set_as_default=False) as client,
    ):
        chaos, wrong = Chaos(own, client, given.seed), ""
        try:
            while time.monotonic() < end:
                chaos.one(end)
            chaos.nothing_left()
        except (Wrong, errors.ParamServerError, AssertionError) as error:
            wrong = f"WRONG: {type(error).__name__}: {error}\n{client.run_on_scheduler(inside)}"
        print(chaos.tally.report(time.monotonic() - began))
        print(wrong or "no wrong answer, no leak, no hang")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
