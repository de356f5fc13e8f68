"""The null model by rounds of Newton over its free coordinates, where surveys do not tell it exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.base import Problem, Start

ENOUGH = 1e-12  #: a Newton step that promises less than this of the objective is the last
ROUNDS = 30  #: then the best so far will do: its objective is exact all the same


@dataclass
class NullModel:
    """One round a question: the exact value, gradient and Hessian at ``z``.

    Attributes
    ----------
    z : (p,) the point to ask about. start : the best so far. done : nothing more to ask.
    """

    z: Array
    start: Start
    free: np.ndarray
    done: bool
    rounds: int = 0
    _step: Array | None = None

    @classmethod
    def of(cls, problem: Problem, start: Start) -> NullModel:
        """Begin; done at once where the start is exact, or the problem cannot tell."""
        done = start.exact or not callable(getattr(problem, "null", None))
        free = ~np.asarray(problem.penalised(len(start.z)), bool)
        return cls(start.z, start._replace(objective=np.inf) if not done else start, free, done)

    def take(self, total: dict[str, Any]) -> None:
        """The chunks' answers at ``z``, summed: go on from there, or half as far from the best."""
        self.rounds += 1
        value, gradient, hessian = float(total["f"]), np.atleast_1d(total["g"]), np.atleast_2d(total["H"])
        promise = np.inf
        if value <= self.start.objective and np.isfinite(value):
            self.start = Start(self.z, value)
            self._step = np.zeros_like(self.z)
            if self.free.any():
                # lstsq: softmax's intercepts have a direction that nothing determines
                self._step[self.free] = -np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0]
            promise = float(-gradient @ self._step[self.free])
        elif self._step is None:
            raise BadData(f"the losses of the null model are {value}: is the target, or an offset, out of range?")
        else:
            self._step = self._step / 2
        if not promise > ENOUGH * abs(value) or self.rounds >= ROUNDS:
            self.done = True
        else:
            self.z = self.start.z + self._step
