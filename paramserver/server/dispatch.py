"""Which runner gets which chunk: the oldest at hand; and which worker copies which chunk.

A runner is only ever given a chunk whose data its worker holds. Where a chunk elsewhere would be done
sooner here, its copying included (its holder is slow, stopped or busy), the answer names it to be
copied meanwhile, in the background. A slow worker begins with what only it holds, and an idle one
takes over what a slow one is at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from paramserver.messages import Task, Version, worker_of
from paramserver.server.pace import Pace
from paramserver.server.slots import Lease, Slot

LEASE = 3.0  #: times the chunk's own expected time for that task
FIRST_LEASE = 30.0  #: seconds, while no step of that kind has been seen
GOLDEN = 0.6180339887498949
LONGER = 1.5  #: times what is right that a wait, or a step, or a worker may take before others step in
SOONER = 1.2  #: a copy must be done so many times sooner, beside what it costs: estimates are rough
AGAIN = 20.0  #: floors until a copy that did not come about is asked for again


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
    pace: Pace = field(init=False)
    holders: dict[str, frozenset[int]] = field(default_factory=dict)
    hints: dict[int, float] = field(default_factory=dict)  #: chunk → when some worker was asked to copy it
    copied: dict[str, tuple[int, float]] = field(default_factory=dict)  #: worker → how many so far, and the seconds
    _held: dict[int, list[str]] = field(default_factory=dict)  #: chunk → who holds it
    _copying: dict[str, tuple[int, float]] = field(default_factory=dict)  #: worker → the chunk, and since when
    _looked: dict[str, float] = field(default_factory=dict)  #: worker → when others' queues were last compared
    _rates: dict[Task, tuple[float, float]] = field(default_factory=dict)  #: when looked at, and the slowest then

    def __post_init__(self) -> None:
        self.pace = Pace(self.floor / 20)

    def holds(self, worker: str, chunks: Iterable[int]) -> None:
        """A worker says which chunks it has."""
        before, after = self.holders.get(worker, frozenset()), frozenset(chunks)
        self.holders[worker] = after
        for i in before - after:
            self._held[i].remove(worker)
        for i in after - before:
            self._held.setdefault(i, []).append(worker)

    def gone(self, worker: str) -> None:
        """A worker left: its runners' leases end now."""
        self.holds(worker, ())
        for known in (self.holders, self.copied, self._copying, self._looked):
            known.pop(worker, None)
        self.pace.gone(worker)
        for slot in self.slots:
            if slot.lease is not None and slot.lease.runner.startswith(worker + "#"):
                slot.lease = None

    def renewed(self, chunk: int) -> None:
        """Its data are others: whoever copied it lets go of that, and may copy it, or another, at once."""
        self.hints.pop(chunk, None)
        self._copying = {worker: copy for worker, copy in self._copying.items() if copy[0] != chunk}

    def recall(self, pending: Iterable[int]) -> None:
        """End the leases for questions about an objective that was; surveys still ``pending`` go on."""
        on = set(pending)
        for i, slot in enumerate(self.slots):
            lease = slot.lease
            if lease is not None and lease.task is not Task.SOLVE and not (lease.task is Task.SURVEY and i in on):
                slot.lease = None

    def nowhere(self) -> list[int]:
        """Chunks whose data no worker holds."""
        return [i for i, slot in enumerate(self.slots) if not (self._held.get(i) or slot.empty or slot.gone)]

    def choose(self, worker: str, task: Task, wanted: Iterable[int], now: float) -> tuple[int | None, int | None]:
        """(the chunk to work on, the chunk to copy), of those wanted."""
        mine = self.holders.get(worker, frozenset())
        free: list[int] = []
        taken: list[int] = []
        elsewhere: list[int] = []
        for i in wanted:
            if i not in mine:
                elsewhere.append(i)
            else:
                (taken if self.slots[i].leased(now) else free).append(i)
        chunk = min(free, key=lambda i: (self._better_off(i, worker), self._turn(i)), default=None)
        if chunk is None:
            chunk = self._to_take_over(worker, task, taken, now)
        return chunk, self._to_copy(worker, task, free, elsewhere, now)

    def _turn(self, chunk: int) -> tuple[float, float]:
        """Oldest first; among equals not by index: neighbours in sorted data are alike."""
        return self.slots[chunk].served, chunk * GOLDEN % 1.0

    def _better_off(self, chunk: int, worker: str) -> bool:
        """Whether a much faster worker holds it too."""
        holders, slow = self._held[chunk], self.pace.slowness(worker)
        return len(holders) > 1 and any(LONGER * self.pace.slowness(other) < slow for other in holders)

    # -- another worker's work -------------------------------------------------------------------

    def _to_take_over(self, worker: str, task: Task, taken: list[int], now: float) -> int | None:
        """A chunk that this idle worker has done long before whoever is at it; the first answer counts."""
        late = max(taken, key=lambda i: self._left(i, now), default=None)
        if late is None:
            return None
        own = self.pace.seconds(worker, task, self.slots[late].rows)
        return late if own is not None and self._left(late, now) > LONGER * own else None

    def _left(self, chunk: int, now: float) -> float:
        """What a step under way will still take; once it is late, as long as it took so far."""
        slot, lease = self.slots[chunk], self.slots[chunk].lease
        if lease is None:
            return 0.0
        whole = self.pace.seconds(worker_of(lease.runner), lease.task, slot.rows)
        gone = now - lease.since
        return gone if whole is None or gone > whole else whole - gone

    def _to_copy(self, worker: str, task: Task, free: list[int], elsewhere: list[int], now: float) -> int | None:
        """A chunk elsewhere that would be done sooner here, if this worker copies none already."""
        if not elsewhere or not self._may_copy(worker, now):
            return None
        self._looked[worker] = now
        open_ones = [i for i in elsewhere if now - self.hints.get(i, -math.inf) >= AGAIN * self.floor]
        chunk = self._overdue(free, open_ones, now)
        if chunk is None:
            chunk = self._behind(worker, task, free, open_ones, now)
        if chunk is not None:
            self.hints[chunk] = now
            self._copying[worker] = chunk, now
        return chunk

    def _may_copy(self, worker: str, now: float) -> bool:
        """One copy at a time; and with thousands of chunks a look at all of them is not for every step."""
        if now - self._looked.get(worker, -math.inf) < self.floor * len(self.slots) / 4000:
            return False
        chunk, since = self._copying.get(worker, (-1, -math.inf))
        return chunk in self.holders.get(worker, ()) or now - since >= AGAIN * self.floor

    def _overdue(self, free: list[int], elsewhere: list[int], now: float) -> int | None:
        """One that waits, and nobody knows what for: its holder does not ask, or takes much longer than it should."""
        oldest = min(elsewhere, key=self._turn, default=None)
        if oldest is None:
            return None
        patience = 4 * self.floor if self._held.get(oldest) else self.floor
        if free:
            patience += LONGER * max(self._waited(i, now) for i in free)
        return oldest if self._waited(oldest, now) >= patience else None

    def _waited(self, chunk: int, now: float) -> float:
        return now - max(self.slots[chunk].served, self.asked_at)

    def _behind(self, worker: str, task: Task, free: list[int], elsewhere: list[int], now: float) -> int | None:
        """The last that the worker with most before it will come to, if a copy is done much sooner here."""
        step = self.pace.seconds(worker, task, 1)
        if step is None:
            return None
        queues = self._queues(task, elsewhere, now)
        latest = max(queues, key=queues.__getitem__, default=None)
        if latest is None:
            return None
        chunk = max((i for i in elsewhere if latest in self._held.get(i, ())), key=self._turn)
        own = step * sum(self.pace.weight(task, self.slots[i].rows) for i in (*free, chunk))
        return chunk if queues[latest] > SOONER * own + self._copy_seconds else None

    @property
    def _copy_seconds(self) -> float:
        """Of one copy: what copies took, and before there were any a quarter of a floor."""
        count, seconds = map(sum, zip(*self.copied.values(), strict=True)) if self.copied else (0, 0.0)
        return (self.floor / 4 + seconds) / (1 + count)

    def _queues(self, task: Task, chunks: list[int], now: float) -> dict[str, float]:
        """Seconds of work before each holder of these chunks; what several hold is shared."""
        queues: dict[str, float] = {}
        for i in chunks:
            holders, slot = self._held.get(i, ()), self.slots[i]
            for worker in holders:
                seconds = self.pace.seconds(worker, task, slot.rows) or 0.0
                queues[worker] = queues.get(worker, 0.0) + seconds / len(holders)
        return queues

    def lease(self, chunk: int, runner: str, task: Task, version: Version, now: float) -> None:
        """Give a chunk to a runner."""
        slot = self.slots[chunk]
        if slot.lease is not None and not slot.leased(now):  # it ran out
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
