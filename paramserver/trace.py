"""What a run did, version by version and step by step, where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from paramserver.messages import Array


class Step(NamedTuple):
    """One step of a worker, from the answer that asked for it until it was done."""

    worker: str
    chunk: int
    task: str
    start: float
    end: float


@dataclass(frozen=True)
class Trace:
    """The versions of z that there were, thinned where there were many.

    Attributes
    ----------
    z : (m, p) float64
        In the units of the fit.
    seconds : (m,) float64
        When each was published, since the server began; `Profile.unit` says in which unit.
    pushes : (m,) float64
        Accepted until then, of all tasks.
    visits : (m,) float64
        Steps done until then; one on a sample of a chunk's rows counts as that share of a step.
    residuals : (k, 5) float64
        Rows of seconds, pushes and the rule's `Residuals`: estimate, primal, dual.
    steps : sequence of Step
        The first ones, up to a number that a plot can show.
    """

    z: Array
    seconds: Array
    pushes: Array
    visits: Array
    residuals: Array
    steps: Sequence[Step]
