"""The article's two plots: primal residual and error against tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paramserver.comparison.canvas import LINES, canvas, grid, saved

if TYPE_CHECKING:
    from paramserver.comparison.article.report import Article

FLOOR = 1e-9  #: what is smaller is drawn here


def draw(article: Article, folder: Path) -> Path:
    """Two panels."""
    plt = canvas()
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.8), layout="constrained")
    labels = {"residual": "primal residual ‖(x_i − z)_i‖", "error": "‖z − z*‖∞"}
    for axis, what in zip(axes, labels, strict=True):
        grid(axis, f"tasks ({article.n_chunks} a pass)")
        axis.set(yscale="log", ylabel=labels[what], xlim=(0, 10 * article.n_chunks))
        for color, (name, variant) in zip(LINES[1:], article.published.items(), strict=False):
            _variant(axis, color, name, variant, what)
    _ours(axes[1], article)
    lines = {label: line for line, label in zip(*axes[1].get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return saved(plt, figure, folder / "article.png")


def _variant(axis: Any, color: str, name: str, variant: Any, what: str) -> None:
    low, middle, high = np.maximum(variant.band(what), FLOOR)
    marker = "o" if len(middle) <= 20 else None
    axis.plot(variant.tasks, middle, color=color, linewidth=1.4, marker=marker, markersize=3, label=f"2017, {name}")
    axis.fill_between(variant.tasks, low, high, color=color, alpha=0.18, linewidth=0)


def _ours(axis: Any, article: Article) -> None:
    for color, (label, course) in zip((LINES[0], LINES[4]), article.ours.items(), strict=False):
        on = course.tasks <= 10 * article.n_chunks
        error = np.maximum(course.error[on], FLOOR)
        axis.plot(course.tasks[on], error, color=color, linewidth=1.6, label=label)
    axis.axhline(1e-6, color="0.6", linewidth=0.8, linestyle=":")
