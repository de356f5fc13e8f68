"""What the server remembers for its readers: counts, staleness, and a thinned history."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from paramserver.messages import Outcome
from paramserver.views import History, Staleness

KEPT = 1000  #: history entries, at most twice as many
RECENT = 1024  #: pushes that staleness speaks of


@dataclass
class Record:
    """Counts and history of one run."""

    pushes: int = 0
    replayed: int = 0  #: of these, pushed again to a server that took over
    outcomes: Counter[str] = field(default_factory=Counter)
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _rows: list[tuple[float, ...]] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def push(self, outcome: Outcome) -> None:
        """Count a push by what became of it."""
        self.outcomes[outcome.value] += 1
        if outcome in (Outcome.ACCEPTED, Outcome.TOO_FAR):
            self.pushes += 1

    @property
    def refused(self) -> dict[str, int]:
        """Refused pushes by reason."""
        answers = (Outcome.ACCEPTED.value, Outcome.TOO_FAR.value)
        return {reason: n for reason, n in sorted(self.outcomes.items()) if reason not in answers}

    def stale(self, versions: float, seconds: float) -> None:
        """How old z was when a push computed with it arrived."""
        self._recent.append((versions, seconds * 1e3))

    def staleness(self) -> Staleness:
        """Median and 99th percentile over the recent pushes."""
        if not self._recent:
            return Staleness()
        (v50, m50), (v99, m99) = np.percentile(np.array(self._recent), (50, 99), axis=0)
        return Staleness(float(v50), float(v99), float(m50), float(m99))

    def version(self, row: tuple[float, ...], certified: bool) -> None:
        """A version was made; certified ones are always kept, others thinned."""
        self._seen += 1
        if certified or self._seen % self._stride == 0:
            self._rows.append(row)
        if len(self._rows) > 2 * KEPT:
            self._rows = [r for k, r in enumerate(self._rows) if k % 2 == 0 or not np.isnan(r[5])]
            self._stride *= 2

    def history(self) -> History:
        """Arrays of equal length."""
        table = np.array(self._rows, dtype=float).reshape(-1, 6)
        return History(*(table[:, k].copy() for k in range(6)))
