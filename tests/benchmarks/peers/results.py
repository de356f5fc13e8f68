"""What was measured: a row for each case and peer, raw, in a file of JSON lines; and what follows from a row."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Run(NamedTuple):
    """A z in hand: in which round, how it was asked for, after how many seconds, and its true gap."""

    round: int
    label: str
    target: float | None
    seconds: float
    gap: float


@dataclass
class Row:
    """A peer on a case."""

    case: str
    peer: str
    version: str = ""
    when: str = ""
    load: float = 0.0  #: of the machine when the case began
    problem: str = ""  #: why there is no more
    memory: int = 0  #: bytes, the peak of all its processes together
    processes: int = 0
    data: int = 0  #: bytes
    runs: list[Run] = field(default_factory=list)

    def label(self, target: float) -> str | None:
        """The setting that first got to a gap of at most ``target``, in the first round that did."""
        there = self._there(target)
        return min(there, key=lambda run: (run.round, run.seconds)).label if there else None

    def seconds(self, target: float) -> list[float]:
        """To a gap of at most ``target`` with that setting, one a round that got there."""
        label = self.label(target)
        mine = [run for run in self._there(target) if run.label == label]
        return [min(run.seconds for run in mine if run.round == k) for k in sorted({run.round for run in mine})]

    def _there(self, target: float) -> list[Run]:
        """A run that was asked for another gap does not count."""
        return [run for run in self.runs if run.gap <= target and run.target in (None, target)]

    def time(self, target: float) -> float | None:
        """Its median."""
        seconds = self.seconds(target)
        return median(seconds) if seconds else None

    @property
    def missed(self) -> int:
        """Runs that did not have the gap they were asked for."""
        return sum(run.target is not None and run.gap > run.target for run in self.runs)

    def best(self) -> float | None:
        """The smallest gap there was."""
        return min((run.gap for run in self.runs), default=None)

    def curve(self) -> list[tuple[float, float]]:
        """(seconds, smallest gap so far) of the first round's points on the way, or the medians of every setting."""
        first = [run for run in self.runs if run.round == min(r.round for r in self.runs)]
        if len(first) > len({run.label for run in first}):
            first.sort(key=lambda run: run.seconds)
            return [(run.seconds, min(r.gap for r in first[: k + 1])) for k, run in enumerate(first)]
        groups = [[run for run in self.runs if run.label == one.label] for one in first]
        return [(median(r.seconds for r in group), median(r.gap for r in group)) for group in groups]


def read(file: Path) -> dict[tuple[str, str], Row]:
    """Rows by case and peer."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [_row(json.loads(line)) for line in lines]
    return {(row.case, row.peer): row for row in rows}


def write(file: Path, rows: Iterable[Row]) -> None:
    """All rows, sorted by case and peer."""
    lines = [json.dumps(_plain(row), ensure_ascii=False) for row in sorted(rows, key=lambda row: (row.case, row.peer))]
    file.write_text("".join(f"{line}\n" for line in lines))


def _row(values: dict[str, Any]) -> Row:
    return Row(**{**values, "runs": [Run(*run) for run in values["runs"]]})


def _plain(row: Row) -> dict[str, Any]:
    runs = [(r.round, r.label, r.target, round(r.seconds, 4), float(f"{r.gap:.3g}")) for r in row.runs]
    return {**asdict(row), "runs": runs}
