"""Gap against time and pushes, from a trace: F at a few versions, and at those around each accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.trace import Trace

GRID = 30  #: versions of a run at which F is evaluated, twice, beside those that an accuracy needs

Gaps = Callable[[Sequence[Array]], Array]


class Reached(NamedTuple):
    """When the gap came under an accuracy and stayed there."""

    time: float
    pushes: float
    passes: float


class Curve(NamedTuple):
    """The true relative gap of some versions of z; arrays of equal length."""

    time: Array
    pushes: Array
    passes: Array
    gap: Array

    def reached(self, accuracy: float) -> Reached | None:
        """The first version from which on every known gap is at most this."""
        above = np.flatnonzero(~(self.gap <= accuracy))
        k = int(above[-1]) + 1 if len(above) else 0
        if k >= len(self.gap):
            return None
        return Reached(float(self.time[k]), float(self.pushes[k]), float(self.passes[k]))


def curve(trace: Trace, n_chunks: int, zero: float, accuracies: Sequence[float], gaps: Gaps, grid: int = GRID) -> Curve:
    """Of one run. ``gaps`` evaluates true relative gaps; times are since ``zero``."""
    known = _known(trace, accuracies, gaps, grid)
    at = np.array(sorted(known), dtype=int)
    gap = np.array([known[k] for k in sorted(known)])
    return Curve(trace.seconds[at] - zero, trace.pushes[at], trace.visits[at] / n_chunks, gap)


def _known(trace: Trace, accuracies: Sequence[float], gaps: Gaps, grid: int) -> dict[int, float]:
    """Gaps by version: of two grids, one dense at the start, and closer and closer to where an accuracy is reached."""
    m = len(trace.z)
    grids = (np.geomspace(1, m, min(grid, m)), np.linspace(1, m, min(grid, m))) if m else ()
    wanted = {int(k) - 1 for points in grids for k in points.round()}
    known: dict[int, float] = {}
    while wanted:
        order = sorted(wanted)
        known.update(zip(order, gaps([trace.z[k] for k in order]).tolist(), strict=True))
        wanted = {middle for accuracy in accuracies if (middle := _between(known, accuracy)) is not None}
    return known


def _between(known: dict[int, float], accuracy: float) -> int | None:
    """The version between the last that is known to be above and the next one; None where there is none."""
    above = max((k for k, gap in known.items() if not gap <= accuracy), default=None)
    if above is None:
        return None
    below = min((k for k in known if k > above), default=above)
    return (above + below) // 2 if below > above + 1 else None
