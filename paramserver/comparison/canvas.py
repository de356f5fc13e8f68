"""matplotlib where it is installed, and what our pictures share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from paramserver.errors import InvalidInput

#: Okabe & Ito's colours: told apart in print and by most eyes
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c564b", "#7f7f7f")


def canvas() -> Any:
    """matplotlib.pyplot, without a screen."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise InvalidInput(
            f'plots need matplotlib ({error}); to install it: pip install "paramserver[plot]"'
        ) from error
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def grid(axis: Any, xlabel: str) -> None:
    """A quiet panel."""
    axis.grid(True, which="major", color="0.92", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.set_xlabel(xlabel, fontsize=9)


def logarithmic(axis: Any) -> None:
    """Times and counts: 0.5, 1, 2, 5 and so on, written out."""
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def saved(plt: Any, figure: Any, file: Path) -> Path:
    """Written, and its memory let go."""
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
