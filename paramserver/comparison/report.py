"""What came of a comparison: a table, plain values, pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramserver.comparison.curves import Curve, Reached
from paramserver.errors import InvalidInput
from paramserver.messages import Array
from paramserver.trace import Step

COLUMNS = ("time", "pushes", "passes")


@dataclass(frozen=True)
class Fitted:
    """One rule's run.

    Attributes
    ----------
    label : str
        What the rule is called in the table.
    rule : str
        The rule with its settings.
    slow : bool
        Whether there was a straggler.
    ended : str
        `Result.reason`, or why there was no run.
    curve : Curve or None
        None where there was no run.
    reached : dict of accuracy to Reached or None
        Medians, where runs were repeated.
    residuals : (k, 4) float64 or None
        Time, pushes, primal, dual.
    steps : sequence of Step
    """

    label: str
    rule: str
    slow: bool
    ended: str
    curve: Curve | None = None
    reached: dict[float, Reached | None] = field(default_factory=dict)
    residuals: Array | None = field(default=None, repr=False)
    steps: Sequence[Step] = field(default=(), repr=False)

    @property
    def gap(self) -> float | None:
        """The last z's true relative gap."""
        return None if self.curve is None else float(self.curve.gap[-1])

    def __str__(self) -> str:
        return self.ended if self.gap is None else f"{self.ended}, {self.gap:.0e}"


@dataclass(frozen=True)
class Comparison:
    """Rules on the same data and workers; made by `compare`, ``print(comparison)`` shows a table.

    Attributes
    ----------
    what : str
        The problem, the penalty, the data and the workers.
    objective, null : float
        F*, the lowest that was found, and F(null model), which gaps are relative to.
    accuracy : tuple of float
        Relative gaps, falling.
    unit : str
        Of times: "s", or "passes" over a chunk in virtual time.
    straggler : str
        What the slow runs had; empty where there were none.
    runs : list of Fitted
        A rule's run without stragglers, then its slow one.
    """

    what: str
    objective: float
    null: float
    accuracy: tuple[float, ...]
    unit: str
    straggler: str
    runs: list[Fitted]

    def run(self, label: str, slow: bool = False) -> Fitted:
        """A rule's run."""
        found = next((run for run in self.runs if (run.label, run.slow) == (label, slow)), None)
        if found is None:
            how = "with the straggler" if slow else "without a straggler"
            raise InvalidInput(f"there is no run of {label!r} {how}; compared were {', '.join(self.labels)}")
        return found

    @property
    def labels(self) -> list[str]:
        """The rules, in order."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def slowdown(self, label: str, accuracy: float) -> float | None:
        """How many times longer a rule took with the straggler; None where either run did not get there."""
        times = [run.reached.get(accuracy) for run in self.runs if run.label == label]
        if len(times) < 2 or any(found is None for found in times):
            return None
        even, slow = (found.time for found in times if found is not None)
        return slow / even if even > 0 else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a rule and accuracy: plain values."""
        return [self._row(label, accuracy) for label in self.labels for accuracy in self.accuracy]

    def _row(self, label: str, accuracy: float) -> dict[str, Any]:
        runs = [run for run in self.runs if run.label == label]
        row: dict[str, Any] = {"rule": label, "accuracy": accuracy, **_figures(runs[0], accuracy)}
        row.update(ended=runs[0].ended, final_gap=runs[0].gap)
        if len(runs) > 1:
            slow = {f"{name}_straggler": value for name, value in _figures(runs[1], accuracy).items()}
            row.update(slow, slowdown=self.slowdown(label, accuracy), ended_straggler=runs[1].ended)
            row["final_gap_straggler"] = runs[1].gap
        return row

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        runs = [
            {
                "rule": run.label, "settings": run.rule, "straggler": run.slow, "ended": run.ended,
                "curve": {} if run.curve is None else {k: v.tolist() for k, v in run.curve._asdict().items()},
            }
            for run in self.runs
        ]  # fmt: skip
        return {
            "what": self.what, "objective": self.objective, "null": self.null, "accuracy": list(self.accuracy),
            "unit": self.unit, "straggler": self.straggler, "rows": self.rows, "runs": runs,
        }  # fmt: skip

    def plot(self, path: str | os.PathLike[str]) -> list[Path]:
        """Draw gap.png, tasks.png and, where a rule has residuals, residuals.png into this directory: their paths.

        Raises
        ------
        InvalidInput
            matplotlib is not installed.
        """
        from paramserver.comparison.plots import draw

        return draw(self, Path(path))

    def __str__(self) -> str:
        return "\n".join([self.what, *self._notes(), "", *self._table()])

    def _notes(self) -> list[str]:
        time = "seconds since the data were there" if self.unit == "s" else "virtual, in gradient passes over a chunk"
        lines = [
            f"time: {time}; pushes: answers of any kind; passes: visits of every chunk",
            "until the true gap, (F(z) − F*)/F(null model), stays under; "
            f"F* = {self.objective:.10g}, F(null model) = {self.null:.6g}",
        ]
        return [*lines, f"straggler: {self.straggler}"] if self.straggler else lines

    def _table(self) -> list[str]:
        width = max(8, *map(len, self.labels))
        many = any(run.slow for run in self.runs)
        head = f"{'rule':<{width}} {'gap':>6}" + _HEAD + (f"  |{_HEAD} slowdown" if many else "")
        above = [f"{'with the straggler':>{len(head) - 9}}".rstrip()] if many else []
        lines, before = [*above, f"{head}  ended, at the gap"], ""
        for row in self.rows:
            label = row["rule"] if row["rule"] != before else ""
            line = f"{label:<{width}} {row['accuracy']:>6.0e}" + _cells(row, "")
            if many:
                slowdown = row.get("slowdown")
                line += "  |" + _cells(row, "_straggler") + ("        –" if slowdown is None else f"{slowdown:9.2f}")
            lines.append(f"{line}  {self._end(label)}".rstrip() if label else line.rstrip())
            before = row["rule"]
        return lines

    def _end(self, label: str) -> str:
        """Why each of a rule's runs ended, and how near; once where they say the same."""
        return " | ".join(dict.fromkeys(str(run) for run in self.runs if run.label == label))


_HEAD = f"{'time':>9}{'pushes':>8}{'passes':>8}"


def _figures(run: Fitted, accuracy: float) -> dict[str, float | None]:
    found = run.reached.get(accuracy)
    return dict.fromkeys(COLUMNS) if found is None else dict(found._asdict())


def _cells(row: dict[str, Any], suffix: str) -> str:
    time, pushes, passes = (row.get(f"{name}{suffix}") for name in COLUMNS)
    if time is None:
        return f"{'–':>9}{'–':>8}{'–':>8}"
    return f"{time:>9.3g}{pushes:>8.0f}{passes:>8.1f}"
