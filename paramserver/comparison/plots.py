"""A comparison's pictures: gap, residuals, and what each worker did when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paramserver.comparison.canvas import LINES, canvas, grid, logarithmic, saved
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from paramserver.comparison.report import Comparison, Fitted

FLOOR = 1e-12  #: what is smaller is drawn here: rounding of F is not far
TASKS = {"survey": "#9e9e9e", "null": "#9e9e9e", "solve": "#1f77b4", "verify": "#ff7f0e", "line": "#d62728"}
OTHER = "#8c564b"
SHOWN = 24  #: workers in a task stream


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """All of them that there is something to draw for."""
    runs = [run for run in comparison.runs if run.curve is not None]
    if not runs:
        raise InvalidInput("there is nothing to plot: no rule could be run")
    plt = canvas()
    colors = {label: LINES[k % len(LINES)] for k, label in enumerate(comparison.labels)}
    folder.mkdir(parents=True, exist_ok=True)
    made = [saved(plt, _gaps(plt, comparison, runs, colors), folder / "gap.png")]
    if any(_has_residuals(run) for run in runs):
        made.append(saved(plt, _residuals(plt, comparison, runs, colors), folder / "residuals.png"))
    if any(run.steps for run in runs):
        made.append(saved(plt, _tasks(plt, comparison, runs), folder / "tasks.png"))
    return made


def _time(comparison: Comparison) -> str:
    return "time, s" if comparison.unit == "s" else "virtual time, passes over a chunk"


def _label(run: Fitted) -> str:
    return f"{run.label}, straggler" if run.slow else run.label


def _look(run: Fitted, colors: dict[str, str]) -> dict[str, Any]:
    style = {"linestyle": "--", "marker": None} if run.slow else {"linestyle": "-", "marker": "o"}
    return {"color": colors[run.label], "linewidth": 1.4, "markersize": 2.5, **style}


def _gaps(plt: Any, comparison: Comparison, runs: list[Fitted], colors: dict[str, str]) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.8), sharey=True, layout="constrained")
    for axis, what, label in zip(axes, ("time", "pushes"), (_time(comparison), "pushes"), strict=True):
        grid(axis, label)
        axis.set_yscale("log")
        logarithmic(axis)
        for run in runs:
            assert run.curve is not None
            at = getattr(run.curve, what)
            on = at > 0
            axis.plot(at[on], np.maximum(run.curve.gap[on], FLOOR), label=_label(run), **_look(run, colors))
        for accuracy in comparison.accuracy:
            axis.axhline(accuracy, color="0.6", linewidth=0.8, linestyle=":")
    axes[0].set_ylabel("true relative gap (F(z) − F*) / F(null)")
    _legend(figure, axes[0])
    return figure


def _has_residuals(run: Fitted) -> bool:
    return run.residuals is not None and bool(np.isfinite(run.residuals[:, 2:]).any())


def _residuals(plt: Any, comparison: Comparison, runs: list[Fitted], colors: dict[str, str]) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.8), layout="constrained")
    for axis, column, what in zip(axes, (2, 3), ("primal", "dual"), strict=True):
        grid(axis, _time(comparison))
        axis.set(yscale="log", ylabel=f"{what} residual")
        logarithmic(axis)
        for run in filter(_has_residuals, runs):
            assert run.residuals is not None
            on = np.isfinite(run.residuals[:, column]) & (run.residuals[:, column] > 0) & (run.residuals[:, 0] > 0)
            if on.any():
                axis.plot(*run.residuals[on][:, [0, column]].T, label=_label(run), **_look(run, colors))
    _legend(figure, *axes)
    return figure


def _tasks(plt: Any, comparison: Comparison, runs: list[Fitted]) -> Any:
    """A panel a run, a line a worker, a bar a step."""
    shown = [run for run in runs if run.steps]
    workers = {id(run): sorted({step.worker for step in run.steps})[:SHOWN] for run in shown}
    heights = [0.55 + 0.16 * len(workers[id(run)]) for run in shown]
    size = (8.5, sum(heights) + 0.5 * len(shown) + 0.8)
    figure, axes = plt.subplots(
        len(shown), 1, figsize=size, squeeze=False, sharex=True, layout="constrained", height_ratios=heights
    )
    longest = max(_shown_until(run, comparison) for run in shown)
    seen: set[str] = set()
    for axis, run in zip(axes[:, 0], shown, strict=True):
        grid(axis, "")
        seen |= _stream(axis, run, workers[id(run)])
        axis.set_title(_label(run), fontsize=9, loc="left")
        axis.set(xlim=(0.0, longest), yticks=[])
        axis.set_ylabel(f"{len(workers[id(run)])} workers", fontsize=8)
    axes[-1, 0].set_xlabel(_time(comparison))
    names = sorted(seen, key=lambda task: [*TASKS, task].index(task))
    patches = [plt.Rectangle((0, 0), 1, 1, color=TASKS.get(task, OTHER)) for task in names]
    figure.legend(patches, names, loc="outside lower center", ncols=len(seen), fontsize=8, frameon=False)
    return figure


def _stream(axis: Any, run: Fitted, workers: list[str]) -> set[str]:
    """The bars; which tasks there are."""
    seen = set()
    for line, worker in enumerate(workers):
        for task in sorted({step.task for step in run.steps if step.worker == worker}):
            bars = [(s.start, s.end - s.start) for s in run.steps if (s.worker, s.task) == (worker, task)]
            axis.broken_barh(bars, (line + 0.1, 0.8), color=TASKS.get(task, OTHER), edgecolor="white", linewidth=0.3)
            seen.add(task)
    return seen


def _shown_until(run: Fitted, comparison: Comparison) -> float:
    """When the run was as near as was asked, and a little; a run that never was does not make all others small."""
    found = [at.time for at in run.reached.values() if at is not None]
    last = max(step.end for step in run.steps)
    return min(last, 1.3 * max(found)) if found else last / 10.0


def _legend(figure: Any, *axes: Any) -> None:
    """One for all panels, below."""
    lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 4), fontsize=8, frameon=False
    )
