"""Which runner gets which chunk: the oldest at hand; and which worker copies which chunk.

A runner is only ever given a chunk whose data its worker holds. Where a chunk elsewhere waits much
longer than the worker's own do (its holder is slow, stopped or busy), the answer names it to be
copied meanwhile, in the background.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from paramserver.messages import Task, Version
from paramserver.server.slots import Lease, Slot

LEASE = 3.0  #: times the chunk's own expected time for that task
FIRST_LEASE = 30.0  #: seconds, while no step of that kind has been seen
GOLDEN = 0.6180339887498949
LONGER = 1.5  #: a chunk elsewhere is copied when it waits so much longer than the oldest at hand


@dataclass
class Dispatch:
    """Holders and leases.

    Parameters
    ----------
    slots : list of Slot
    floor : float
        Shortest lease and shortest wait before a chunk is copied, in the caller's unit of time.
    """

    slots: list[Slot]
    floor: float = 0.25
    asked_at: float = -math.inf  #: when what is wanted last changed altogether
    holders: dict[str, frozenset[int]] = field(default_factory=dict)
    hints: dict[int, float] = field(default_factory=dict)
    _rates: dict[Task, tuple[float, float]] = field(default_factory=dict)  #: when looked at, and the slowest then

    def holds(self, worker: str, chunks: Iterable[int]) -> None:
        """A worker says which chunks it has."""
        self.holders[worker] = frozenset(chunks)

    def gone(self, worker: str) -> None:
        """A worker left: its runners' leases end now."""
        self.holders.pop(worker, None)
        for slot in self.slots:
            if slot.lease is not None and slot.lease.runner.startswith(worker + "#"):
                slot.lease = None

    def recall(self, pending: Iterable[int]) -> None:
        """End the leases for questions about an objective that was; surveys still ``pending`` go on."""
        on = set(pending)
        for i, slot in enumerate(self.slots):
            lease = slot.lease
            if lease is not None and lease.task is not Task.SOLVE and not (lease.task is Task.SURVEY and i in on):
                slot.lease = None

    def nowhere(self) -> list[int]:
        """Chunks whose data no worker holds."""
        held = frozenset().union(*self.holders.values()) if self.holders else frozenset()
        return [i for i, slot in enumerate(self.slots) if i not in held and not slot.empty and not slot.gone]

    def choose(self, worker: str, wanted: Iterable[int], now: float) -> tuple[int | None, int | None]:
        """(the chunk to work on, the chunk to copy), of those wanted."""
        mine = self.holders.get(worker, frozenset())
        at_hand, elsewhere = [], []
        for i in wanted:
            if i not in mine:
                elsewhere.append(i)
            elif not self.slots[i].leased(now):
                at_hand.append(i)
        chunk = min(at_hand, key=self._turn, default=None)
        return chunk, self._to_copy(worker, chunk, elsewhere, now)

    def _turn(self, chunk: int) -> tuple[float, float]:
        """Oldest first; among equals not by index: neighbours in sorted data are alike."""
        return self.slots[chunk].served, chunk * GOLDEN % 1.0

    def _to_copy(self, worker: str, chunk: int | None, elsewhere: list[int], now: float) -> int | None:
        """The oldest chunk elsewhere, if it has waited long and nobody else copies it."""
        if not elsewhere:
            return None
        oldest = min(elsewhere, key=self._turn)
        patience = self.floor if chunk is None else LONGER * self._waited(chunk, now) + self.floor
        if self._waited(oldest, now) < patience:
            return None
        if now - self.hints.get(oldest, -math.inf) < 20 * self.floor:
            return None  # some worker was asked a moment ago
        self.hints[oldest] = now
        return oldest

    def _waited(self, chunk: int, now: float) -> float:
        return now - max(self.slots[chunk].served, self.asked_at)

    def lease(self, chunk: int, runner: str, task: Task, version: Version, now: float) -> None:
        """Give a chunk to a runner."""
        slot = self.slots[chunk]
        if slot.lease is not None:  # it ran out
            slot.grace *= 2.0
        seconds = max(LEASE * self._expected(chunk, task, now) * slot.grace, 4 * self.floor)
        slot.lease = Lease(runner, task, version, now, now + seconds)

    def _expected(self, chunk: int, task: Task, now: float) -> float:
        """A step's time: this chunk's own, else what others took by rows, else the first lease."""
        slot = self.slots[chunk]
        if task in slot.times:
            return slot.times[task]
        rate = self._slowest(task, now)
        return FIRST_LEASE / LEASE * self.floor * 4 if rate is None else rate * max(slot.rows, 1)

    def _slowest(self, task: Task, now: float) -> float | None:
        """Seconds a row, of the chunk that takes longest; looked up anew once a ``floor``, there may be thousands."""
        if task not in self._rates or now - self._rates[task][0] > self.floor:
            rates = [s.times[task] / max(s.rows, 1) for s in self.slots if task in s.times]
            if not rates:
                return None
            self._rates[task] = now, max(rates)
        return self._rates[task][1]
