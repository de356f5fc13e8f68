"""What the server keeps of each chunk."""

from __future__ import annotations

from dataclasses import dataclass, field

from paramserver.messages import Array, Fields, Task, Version


@dataclass
class Lease:
    """Who is at a chunk. Its end only lets another runner try; it invalidates nothing."""

    runner: str
    task: Task
    version: Version
    since: float
    until: float


@dataclass
class Slot:
    """One chunk: its clock, its local model, and how long it takes.

    ``fields`` belong to the rule and are replaced whole, never changed in place. ``times`` are
    moving averages of a step's seconds by task; ``grace`` doubles each time a lease runs out.
    """

    seq: int = 0  #: of the last accepted push
    version: Version | None = None  #: of the z that push was computed with
    fields: Fields | None = None
    survey: Array | None = None
    fingerprint: tuple[float, ...] | None = None
    edition: int = 0  #: how often the data became others
    served: float = 0.0  #: when the last push was accepted, else when the run started
    pushes: int = 0
    lease: Lease | None = None
    grace: float = 1.0
    times: dict[Task, float] = field(default_factory=dict)
    gone: bool = False  #: dropped; its number is not given again

    @property
    def rows(self) -> int:
        return 0 if self.survey is None else int(self.survey[0])

    @property
    def empty(self) -> bool:
        """Surveyed, and without rows: skipped from then on."""
        return self.survey is not None and self.rows == 0

    @property
    def unread(self) -> bool:
        """There, and not surveyed yet."""
        return self.survey is None and not self.gone

    def leased(self, now: float) -> bool:
        """Whether some runner is at it, within its time."""
        return self.lease is not None and now < self.lease.until

    def took(self, task: Task, seconds: float) -> None:
        """Learn a step's time."""
        old = self.times.get(task, seconds)
        self.times[task] = 0.7 * old + 0.3 * seconds
        self.grace = 1.0
