"""How long steps take, by kind, and how slow each worker is beside the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from paramserver.messages import Push, Task

NEWEST = 0.3  #: weight of the newest step in an average
WINDOW = 40.0  #: times ``trust``: what a worker's steps took longer ago hardly counts

Kind = tuple[Task, bool, int]


class _Worker(NamedTuple):
    """What a worker's steps took lately, and what they usually take."""

    took: float
    usual: float


@dataclass
class Pace:
    """A step takes what its kind usually takes a row, times its worker's slowness.

    Only the product means something: what is usual is learnt from whoever came, each corrected by its slowness so far.

    Parameters
    ----------
    trust : float
        Seconds: a worker counts as fast as the others until its steps took some multiples of it.
    """

    trust: float
    _usual: dict[Kind, float] = field(default_factory=dict)  #: seconds a row by kind of step
    _lately: dict[Task, float] = field(default_factory=dict)  #: the same of the newest kind: what comes next
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def took(self, worker: str, push: Push, rows: int) -> None:
        """Learn from a step of a worker, its data at hand."""
        every = int(push.payload.get("every", 1))
        kind = (push.task, "H" in push.payload, every)
        weight = self.weight(push.task, rows) / every
        seconds = push.seconds - push.loading
        if seconds <= 0:
            return
        usual = self._usual.get(kind, seconds / weight / self.slowness(worker))
        self._learn(worker, seconds, usual * weight)
        usual += NEWEST * (seconds / weight / self.slowness(worker) - usual)
        self._usual[kind] = self._lately[push.task] = usual

    def _learn(self, worker: str, took: float, usual: float) -> None:
        old = self._workers.get(worker, _Worker(0.0, 0.0))
        keep = max(1 - NEWEST, math.exp(-usual / (WINDOW * self.trust)))
        self._workers[worker] = _Worker(keep * old.took + took, keep * old.usual + usual)

    def gone(self, worker: str) -> None:
        """Its address may come again as another machine's."""
        self._workers.pop(worker, None)

    def slowness(self, worker: str) -> float:
        """1 where nothing is known."""
        took, usual = self._workers.get(worker, (0.0, 0.0))
        return (self.trust + took) / (self.trust + usual)

    def seconds(self, worker: str, task: Task, rows: int) -> float | None:
        """What a worker will need for a step; None while no such step has been seen."""
        lately = self._lately.get(task)
        return None if lately is None else lately * self.slowness(worker) * self.weight(task, rows)

    @staticmethod
    def weight(task: Task, rows: int) -> int:
        """By what a step's time grows; before a survey the rows are not known."""
        return 1 if task is Task.SURVEY else max(rows, 1)
