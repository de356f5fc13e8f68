"""Records a `Trace` as a run goes: references and numbers, never a pass over anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.messages import Array, Push, worker_of
from paramserver.trace import Step, Trace

VERSIONS = 1000  #: kept, at most twice as many; fewer where they are large
BYTES = 32 << 20  #: of all versions kept
STEPS = 20_000  #: kept


class Thinned:
    """The rows of a record that may become long: the first half of what is kept, every so many, and the last."""

    def __init__(self, kept: int) -> None:
        self.kept, self.rows, self._stride, self._seen = kept, [], 1, 0  # type: ignore[var-annotated]
        self._head = kept // 2  #: rules that are soon done are not the only ones that begin
        self._last: Any = None

    def add(self, row: Any) -> None:
        """One more."""
        self._last = row
        if self._seen < self._head or (self._seen - self._head) % self._stride == 0:
            self.rows.append(row)
        self._seen += 1
        if len(self.rows) > 2 * self.kept:
            self.rows = self.rows[: self._head] + self.rows[self._head :: 2]
            self._stride *= 2

    def all(self) -> list[Any]:
        """Those kept."""
        on = not self.rows or self.rows[-1] is self._last
        return list(self.rows) if on else [*self.rows, self._last]


class Tracer:
    """One run's."""

    def __init__(self) -> None:
        self._versions: Thinned | None = None
        self._residuals = Thinned(VERSIONS)
        self._steps: list[Step] = []
        self._visits = 0.0
        self._seen: tuple[Any, Any] = (None, None)  #: the version and the residuals that were recorded last

    def step(self, runner: str, push: Push, start: float) -> None:
        """A runner's step is done; it was asked for at ``start``."""
        self._visits += 1.0 / max(float(push.payload.get("every", 1)), 1.0)
        if len(self._steps) < STEPS:
            self._steps.append(Step(worker_of(runner), push.chunk, push.task.value, start, start + push.seconds))

    def look(self, core: Any, now: float) -> None:
        """Whether the core has another z, or looked at its residuals anew."""
        version, z, _ = core.params.published
        counts, (before, residuals) = (now, float(core.record.pushes)), self._seen
        if z is not None and version != before:
            if self._versions is None:
                self._versions = Thinned(min(VERSIONS, max(BYTES // (16 * z.size), 4)))
            self._versions.add((z, *counts, self._visits))
        if core.residuals is not residuals:
            self._residuals.add((*counts, *core.residuals[:3]))
        self._seen = version if z is not None else None, core.residuals

    def trace(self, started: float) -> Trace:
        """All of it, in times since ``started``."""
        rows = [] if self._versions is None else self._versions.all()
        numbers = _table([row[1:] for row in rows], 3)
        residuals = _table(self._residuals.all(), 5)
        numbers[:, 0] -= started
        residuals[:, 0] -= started
        steps = [step._replace(start=step.start - started, end=step.end - started) for step in self._steps]
        z = np.array([row[0] for row in rows]) if rows else np.empty((0, 0))
        seconds, pushes, visits = (column.copy() for column in numbers.T)
        return Trace(z, seconds, pushes, visits, residuals, steps)


def _table(rows: list[Any], columns: int) -> Array:
    return np.array(rows, dtype=np.float64).reshape(-1, columns)
