"""Gap against time, one panel a case: lower and further left is better."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from .cases import CASES, Case
from .registry import LIMIT, OURS
from .report import Rows
from .results import Row

COLUMNS = 5
FLOOR = 1e-10  #: what is smaller is drawn here: rounding of F is not far
#: colour and marker; families share a colour
LOOKS = {
    OURS: ("#d62728", "o"),
    "scikit-learn lbfgs": ("#1f77b4", "s"),
    "scikit-learn newton-cholesky": ("#1f77b4", "^"),
    "scikit-learn saga": ("#1f77b4", "v"),
    "scikit-learn liblinear": ("#1f77b4", "D"),
    "scikit-learn lasso": ("#1f77b4", "P"),
    "glum": ("#2ca02c", "s"),
    "skglm": ("#ff7f0e", "s"),
    "celer": ("#bcbd22", "s"),
    "snapml": ("#8c564b", "s"),
    "dask-glm admm": ("#9467bd", "s"),
    "dask-glm lbfgs": ("#9467bd", "^"),
    "dask-glm newton": ("#9467bd", "v"),
    "dask-ml admm": ("#e377c2", "s"),
    "dask-ml lbfgs": ("#e377c2", "^"),
    "dask-ml newton": ("#e377c2", "v"),
    "Spark MLlib": ("#17becf", "s"),
    "2017 driver loop": ("#7f7f7f", "x"),
    "Ray server": ("#000000", "+"),
}


def draw(file: Path, rows: Rows) -> None:
    """All cases that were measured, and a legend below."""
    cases = [case for case in CASES if case.fastest and (case.name, OURS) in rows]
    if not cases:
        return
    columns = min(COLUMNS, len(cases))
    lines = -(-len(cases) // columns)
    size = (max(3.2 * columns, 8.0), 2.5 * lines + 1.3)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
    flat = axes.ravel()
    for panel, case in zip(flat, cases, strict=False):
        _panel(panel, case, rows)
    for panel in flat[len(cases) :]:
        panel.axis("off")
    for panel in flat[max(0, len(cases) - columns) : len(cases)]:
        panel.set_xlabel("seconds", fontsize=9)
    figure.supylabel("true relative gap (F − F*) / F(null model)", fontsize=10)
    _legend(figure, rows)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _panel(panel: Any, case: Case, rows: Rows) -> None:
    panel.set(xscale="log", yscale="log", ylim=(FLOOR / 3, 1.0))
    panel.set_title(case.what, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(True, which="major", color="0.92", linewidth=0.7)
    panel.axhline(1e-6, color="0.6", linewidth=0.8, linestyle=":")
    passes = rows.get((case.name, LIMIT))
    if passes and passes.runs:
        panel.axvline(median(run.seconds for run in passes.runs), color="0.6", linewidth=0.8, linestyle="--")
    for name in LOOKS:
        row = rows.get((case.name, name))
        if row and row.runs:
            _line(panel, row)


def _line(panel: Any, row: Row) -> None:
    color, marker = LOOKS[row.peer]
    seconds, gaps = zip(*row.curve(), strict=True)
    many = len(seconds) > 8
    panel.plot(
        seconds, [max(gap, FLOOR) for gap in gaps], color=color, marker=None if many else marker, markersize=4,
        linewidth=2.2 if row.peer == OURS else 1.1, zorder=3 if row.peer == OURS else 2,
    )  # fmt: skip


def _legend(figure: Any, rows: Rows) -> None:
    shown = [name for name in LOOKS if any(row.peer == name and row.runs for row in rows.values())]
    made = [
        plt.Line2D([], [], color=LOOKS[n][0], marker=LOOKS[n][1], markersize=4, linewidth=2.2 if n == OURS else 1.1)
        for n in shown
    ]
    made.append(plt.Line2D([], [], color="0.6", linewidth=0.8, linestyle="--"))
    labels = [*shown, "one Hessian, two gradient passes"]
    figure.legend(made, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
