"""One case: peers and paramserver in turn, so many rounds, each answer judged from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .base import Point
from .cases import TARGETS, Case, Setting
from .data import Store
from .measure import Failed, Process, alone
from .objective import Judge
from .registry import LIMIT, OURS, PEERS
from .results import Row, Run

T = TypeVar("T")

AT_ONCE = 5  #: peers whose processes hold their data at the same time
POINTS = 40  #: of those on a run's way that are judged


class Plan(NamedTuple):
    """What the caller asks of every case."""

    folder: Path
    rounds: int
    limit: float  #: seconds a run
    lock: Path | None


class Contestant:
    """A peer on a case: its process, and what it has shown so far."""

    def __init__(self, name: str, case: Case, judge: Judge, plan: Plan) -> None:
        self.name, self.case, self.judge, self.plan = name, case, judge, plan
        self.peer = PEERS[name]()
        when, load = time.strftime("%Y-%m-%d %H:%M"), round(os.getloadavg()[0], 1)
        self.row = Row(case.name, name, _version(self.peer.package), when, load)
        self.row.problem = _hindered(name, case)
        self.process: Process | None = None

    def begin(self) -> None:
        """Start it, if it can fit the case at all."""
        if not self.row.problem:
            self.process = Process(self.name, self.peer, self.case, self.plan.folder)

    def settle(self) -> None:
        """Wait until it has its data and is warm."""
        if self.process:
            self._try(self.process.ready)

    def turn(self, k: int) -> None:
        """Round k: all settings in the first, until the last target is met; then those that were first to one."""
        for setting in self._settings(k):
            if not self._try(self._run, k, setting):
                return
            if setting.target is None and k == 0 and (self._long() or self.row.label(TARGETS[-1])):
                return

    def _long(self) -> bool:
        """Whether a tighter setting would be beyond the limit; a run that shows its way always ends there."""
        last = [run for run in self.row.runs if run.label == self.row.runs[-1].label]
        return len(last) == 1 and last[0].seconds > self.plan.limit / 2

    def weigh(self) -> None:
        """The memory of one more run."""
        for setting in self._settings(1)[-1:]:
            self._try(self._weigh, setting)

    def stop(self) -> None:
        """End the process."""
        if self.process:
            self.process.stop()
            self.process = None

    def _settings(self, k: int) -> list[Setting]:
        if self.row.problem:
            return []
        chosen = {self.row.label(target) for target in TARGETS}
        return [s for s in self.peer.settings(self.case) if k == 0 or s.target is not None or s.label in chosen]

    def _run(self, k: int, setting: Setting) -> None:
        for point in _some(self._ask(Process.run, setting)):
            self.row.runs.append(Run(k, setting.label, setting.target, point.seconds, self.judge.gap(point.z)))
        last = self.row.runs[-1]
        print(f"  {k} {self.name:28} {setting.label:20} {last.seconds:8.2f} s   gap {last.gap:8.1e}", flush=True)

    def _weigh(self, setting: Setting) -> None:
        self.row.memory, self.row.processes = self._ask(Process.memory, setting)

    def _ask(self, what: Callable[[Process, Setting, float], T], setting: Setting) -> T:
        """Its process is started again where a run that took too long ended it."""
        if self.process is None:
            self.process = Process(self.name, self.peer, self.case, self.plan.folder)
            self.process.ready()
        with alone(self.plan.lock):
            return what(self.process, setting, self._limit(setting))

    def _limit(self, setting: Setting) -> float:
        """A run that shows its way ends soon after the last target that it met in the first round."""
        shown = sum(run.label == setting.label and run.round == 0 for run in self.row.runs)
        met = [seconds for target in TARGETS if (seconds := self.row.time(target)) is not None]
        return min(self.plan.limit, 1.5 * max(met) + 1.0) if met and shown > 1 else self.plan.limit

    def _try(self, what: Callable[..., None], *args: Any) -> bool:
        try:
            what(*args)
        except Failed as failure:
            print(f"  - {self.name:28} {failure}", flush=True)
            self.row.problem = "" if self.row.runs else str(failure)
            self.stop()
            return False
        return True


def measure(case: Case, names: list[str], judge: Judge, plan: Plan) -> list[Row]:
    """Rows of all, groups of a few at a time, paramserver in each group."""
    rows: dict[str, Row] = {}
    others = [name for name in names if name not in (OURS, LIMIT)]
    able = [name for name in others if not _hindered(name, case)]
    groups = [able[k : k + AT_ONCE] for k in range(0, len(able), AT_ONCE)] or [[]]
    groups[-1] += [name for name in others if name not in able]  # to be told of
    data = Store(plan.folder, case.data).nbytes
    for number, group in enumerate(groups):
        here = [LIMIT, OURS, *group] if number == 0 else [OURS, *group]
        for row in _group(case, here, judge, plan):
            row.data = data
            if row.peer in rows:
                _join(rows[row.peer], row, plan.rounds * number)
            else:
                rows[row.peer] = row
    return list(rows.values())


def _group(case: Case, names: list[str], judge: Judge, plan: Plan) -> list[Row]:
    contestants = [Contestant(name, case, judge, plan) for name in names]
    try:
        for one in contestants:
            one.begin()
        for one in contestants:
            one.settle()
        for k in range(plan.rounds):
            for one in contestants:
                one.turn(k)
        for one in contestants:
            one.weigh()
    finally:
        for one in contestants:
            one.stop()
    return [one.row for one in contestants]


def _hindered(name: str, case: Case) -> str:
    peer = PEERS[name]()
    return peer.lacks(case) or peer.missing()


def _join(row: Row, later: Row, rounds: int) -> None:
    """The same peer beside another group: more rounds of it."""
    row.runs += [run._replace(round=run.round + rounds) for run in later.runs]
    row.memory = max(row.memory, later.memory)


def _some(points: list[Point]) -> list[Point]:
    """So many of them, ever sparser, the last among them."""
    if len(points) <= POINTS:
        return points
    return [points[k] for k in np.unique(np.geomspace(1, len(points), POINTS).astype(int) - 1)]


def _version(package: str) -> str:
    if not package:
        return ""
    with suppress(PackageNotFoundError):
        return version({"sklearn": "scikit-learn"}.get(package, package).replace("_", "-"))
    return ""
