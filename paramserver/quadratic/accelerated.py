"""For penalties that are known by their prox alone."""

from __future__ import annotations

import numpy as np

from paramserver.messages import Array
from paramserver.penalties import Bound
from paramserver.quadratic.factor import RIDGE, scale_of


def accelerated(B: Array, slope: Array, bound: Bound, start: Array, limit: int = 20_000) -> Array:
    """Accelerated proximal gradient with restarts (Beck & Teboulle 2009; O'Donoghue & Candès 2015).

    ``slope`` (p,) is the quadratic's gradient at ``start``. The metric is λmax of the scaled B times
    diag(B), whose largest entry serves a block that needs one step.
    """
    scale = _equal(scale_of(B), bound)
    steps = scale**2 / (np.linalg.norm(B * scale[:, None] * scale, 2) * (1 + 1e-9) + RIDGE)
    w = y = start
    momentum = 1.0
    for _ in range(limit):
        new = bound.prox(y - steps * (slope + B @ (y - start)), steps)
        move = new - w
        if float((move / scale) @ (move / scale)) <= 1e-28 * (1e-300 + float((new / scale) @ (new / scale))):
            return new
        if float(((y - new) / steps) @ move) > 0:
            momentum, y = 1.0, new
        else:
            following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
            y = new + (momentum - 1) / following * move
            momentum = following
        w = new
    return w


def _equal(scale: Array, bound: Bound) -> Array:
    blocks = bound.blocks()
    if blocks is None:
        return scale
    least = np.full(int(blocks.max(initial=-1)) + 1, np.inf)
    np.minimum.at(least, blocks, scale)
    return np.asarray(least[blocks])
