"""Residual balancing: which rho makes the primal residual fall as fast as the dual one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from paramserver.messages import Array, Fields

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


def balanced(
    rule: Any, state: Any, slots: Mapping[int, Fields], z: Array,
    square: Callable[[Fields, str, Array], float], whole: Callable[[Array], float],
) -> tuple[Any, Any]:  # fmt: skip
    """`Consensus.tuned`: √(r/s) times rho, for r = ‖x − z‖/max(‖x‖, ‖z‖) and s = ‖z − z_before‖/‖u‖.

    ``square`` is ‖field − centre‖² of a slot's field, ``whole`` that of a z, both in the metric without rho.
    """
    before, state = state.before, replace(state, before=z)
    if before is None or not rule.balance or state.changes >= CHANGES:
        return rule, state
    apart, x, u = (
        sum(square(slot, name, centre) for slot in slots.values())
        for name, centre in (("x", z), ("x", state.ref), ("w", z))
    )
    scale = max(x, whole(z - state.ref))
    if not (u > 0 and scale > 0):
        return rule, state
    factor = correction(apart / scale, whole(z - before) / u)
    return (rule if factor == 1.0 else replace(rule, rho=rule.rho * factor)), state
