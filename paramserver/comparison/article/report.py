"""What the article's experiment gave: a table, plain values, its two plots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paramserver.comparison.article.ours import Course
from paramserver.comparison.article.variants import Mark
from paramserver.messages import Array

SWEEPS = (1, 5, 10)  #: the table's rows of the asynchronous variants
ERRORS = (1e-2, 1e-6)  #: ‖z − z*‖∞ that our rules' tasks are counted to


@dataclass(frozen=True)
class Published:
    """One variant of the article's: the marks of each schedule, all at the same tasks."""

    runs: list[list[Mark]]

    @property
    def tasks(self) -> Array:
        return np.array([mark.tasks for mark in self.runs[0]], dtype=np.float64)

    def band(self, what: str) -> Array:
        """(3, marks): 5th percentile, median and 95th of "residual" or "error" over the schedules."""
        values = [[getattr(mark, what) for mark in run] for run in self.runs]
        return np.percentile(np.array(values), (5, 50, 95), axis=0)

    def at(self, tasks: int, what: str) -> float:
        """The median after so many."""
        return float(self.band(what)[1][np.searchsorted(self.tasks, tasks)])

    def until(self, error: float) -> int | None:
        """Tasks until the median error came under this, and stayed."""
        return Course(self.tasks, self.band("error")[1]).until(error)


@dataclass(frozen=True)
class Article:
    """The experiment; ``print(article)`` shows its table.

    Attributes
    ----------
    what : dict
        Sizes and constants.
    n_chunks, seeds : int
        Tasks in a pass, and schedules of the asynchronous variants.
    published : dict of str to Published
        "synchronous", "asynchronous", "batched".
    ours : dict of str to Course
        A rule of ours each.
    seconds : float
        All of it took.
    """

    what: dict[str, Any]
    n_chunks: int
    seeds: int
    published: dict[str, Published]
    ours: dict[str, Course]
    seconds: float

    def plot(self, path: str | os.PathLike[str]) -> list[Path]:
        """Draw article.png into this directory: the primal residual and the error against tasks."""
        from paramserver.comparison.article.plots import draw

        return [draw(self, Path(path))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        marks = [
            {
                "variant": name,
                "tasks": tasks,
                "residual": variant.at(tasks, "residual"),
                "error": variant.at(tasks, "error"),
            }
            for name, variant in self.published.items()
            for tasks in self._tasks(name)
        ]
        until = [{"rule": label, "error": error, "tasks": tasks} for label, error, tasks in self._until()]
        return {**self.what, "seeds": self.seeds, "marks": marks, "until": until, "seconds": self.seconds}

    def _tasks(self, name: str) -> list[int]:
        sweeps = range(1, 11) if name == "synchronous" else SWEEPS
        return [self.n_chunks * k for k in sweeps]

    def _until(self) -> list[tuple[str, float, int | None]]:
        sides: dict[str, Any] = {**self.published, **self.ours}
        return [(label, error, side.until(error)) for label, side in sides.items() for error in ERRORS]

    def __str__(self) -> str:
        what = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.what.items())
        lines = [f"{what}; {self.seeds} schedules; {self.seconds:.0f} s", ""]
        lines += [f"{'variant':<22}{'tasks':>8}{'passes':>8}{'primal residual':>17}{'‖z − z*‖∞':>12}"]
        for name, variant in self.published.items():
            for k, tasks in enumerate(self._tasks(name)):
                label = name if k == 0 else ""
                at = f"{variant.at(tasks, 'residual'):>17.4g}{variant.at(tasks, 'error'):>12.2g}"
                lines.append(f"{label:<22}{tasks:>8}{tasks / self.n_chunks:>8.1f}{at}")
        lines += ["", f"{'tasks until ‖z − z*‖∞ ≤':<30}" + "".join(f"{error:>10.0e}" for error in ERRORS)]
        rows: dict[str, list[int | None]] = {}
        for label, _, until in self._until():
            rows.setdefault(label, []).append(until)
        lines += [
            f"{label:<30}" + "".join(f"{'–' if n is None else n:>10}" for n in row) for label, row in rows.items()
        ]
        return "\n".join(lines)
