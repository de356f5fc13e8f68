"""Residual balancing: which rho makes the primal residual fall as fast as the dual one."""

from __future__ import annotations

import numpy as np

CHANGES = 20  #: of rho by balancing
STEEPEST = 5.0  #: times, a change
WORTH = 2.0  #: times, from which a change is made
ROUNDING = 1e-20  #: of the squares of relative residuals: so small, their ratio says nothing


def correction(r: float, s: float) -> float:
    """What to multiply rho by, (r/s)^¼ for the squares of relative residuals; 1 where a change is not worth it."""
    if min(r, s) <= ROUNDING:
        return 1.0
    factor = float(np.clip((r / s) ** 0.25, 1.0 / STEEPEST, STEEPEST))
    return 1.0 if 1.0 / WORTH < factor < WORTH else factor
