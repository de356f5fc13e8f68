"""What rules that minimise the chunks' summed quadratic models share.

Anchors are points with exact values to which a line search goes back, so that F along anchors
never rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.certificate import Model
from paramserver.consensus.base import Consensus, Line
from paramserver.messages import Array, Fields
from paramserver.workers.problems.base import Problem
from paramserver.workers.solvers import curvature_at, drifted

SIGMA_MAX = 1e8
BAD_PREDICTION = 0.3


@dataclass(kw_only=True)
class Anchored:
    """The part of a rule's state that `AnchoredNewton.judge` goes by."""

    anchor: Array | None = None  #: z at which exact values were gathered
    anchor_step: Array | None = None
    anchor_objective: float = np.inf
    anchor_decrease: float = 0.0
    cautious: bool = False  #: F rose on the way: search along every step until the model is right again


@dataclass(frozen=True, kw_only=True)
class AnchoredNewton(Consensus):
    """A rule whose z minimises the sum of the chunks' models, with a trust factor σ a chunk."""

    adopts: ClassVar[bool] = True

    def update(self, state: Any, old: Consensus, slots: dict[int, Fields], z: Array) -> Any:
        """The models hold whatever the penalty; the anchor's objective does not."""
        return replace(state, anchor=None, anchor_step=None, anchor_objective=np.inf)

    def judge(self, state: Any, model: Model) -> tuple[Any, Line | None]:
        """z becomes the anchor if F fell enough since the last one; else search from that one.

        Once F rose, every anchor's step is searched along, until a full one does what its model promised.
        """
        fell, cautious = bool(np.isfinite(model.objective)), False
        if state.anchor is not None and state.anchor_step is not None:
            length, whole = np.linalg.norm(model.z - state.anchor), np.linalg.norm(state.anchor_step)
            t = min(1.0, float(length / whole)) if whole > 0 else 1.0
            fell = model.objective <= state.anchor_objective - 1e-4 * t * state.anchor_decrease
            promised = (2.0 - t) * t * state.anchor_decrease
            off = abs(state.anchor_objective - model.objective - promised)
            cautious = not fell or (state.cautious and (t < 0.99 or off > 0.2 * promised))
        state = replace(state, cautious=cautious)
        if fell:
            state = replace(
                state,
                anchor=model.z,
                anchor_step=model.z_plus - model.z,
                anchor_objective=model.objective,
                anchor_decrease=model.decrease,
            )
        if not cautious:
            return state, None
        assert state.anchor is not None
        assert state.anchor_step is not None
        return state, Line(state.anchor, state.anchor_step, state.anchor_objective, state.anchor_decrease)

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])


def too_high(old: Fields, rise: float, q: float) -> bool:
    """Whether f rose by more than the slot's model, σ-stiffened, allows at a step of ½‖step‖²_H = q."""
    return bool(rise > (old["sigma"] + 1.0) * q + 1e-10 * abs(old["f"]))


def needs_hessian(problem: Problem, data: Any, at: Any, fields: Mapping[str, Any]) -> bool:
    """The slot's model predicted badly, or the rows' curvatures moved since its Hessian."""
    if problem.quadratic:
        return False
    if abs(at.value - fields["predicted"]) > BAD_PREDICTION * fields["q"] + 1e-10 * abs(at.value):
        return True
    return drifted(at.curvature, curvature_at(problem, data, fields["hessian_at"]))
