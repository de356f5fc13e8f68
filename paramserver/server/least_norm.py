"""Of all optima the one of least norm, where a pass over the rows shows that it is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramserver.identify import Undetermined, shortest, undetermined
from paramserver.messages import Array, Task
from paramserver.server.findings import free_of
from paramserver.server.parameters import Parameters
from paramserver.server.verifier import Verifier

ROUNDING = 1e-13  #: of F, relatively: a rise this small is none


@dataclass
class LeastNorm:
    """What an exact Hessian leaves undetermined, and z without its part along that.

    A Hessian does not see rows whose curvature is all but zero beside the others' (told apart
    already, or with tiny means), so what it leaves free need not be: the losses at the new z decide.

    Attributes
    ----------
    reason : the run's, which ends when this is done.
    found : what is undetermined, or None.
    fits : whether z is the one of least norm.
    """

    params: Parameters
    verifier: Verifier
    reason: str = ""
    found: Undetermined | None = None
    fits: bool = True
    _z: Array | None = None

    @property
    def under_way(self) -> bool:
        """Whether the chunks are being asked."""
        gather = self.verifier.gather
        return gather is not None and gather.task is Task.LINE and "along" in gather.fields

    def begin(self, reason: str, limit: float) -> bool:
        """Ask for the losses there; False where there is nothing to ask."""
        params, exact = self.params, self.verifier.hessian  # None where F is infinite at the last z
        self.reason, self.fits = reason, True
        self.found = None if exact is None else open_directions(params, exact, self.verifier.support)
        verified = self.verifier.verified
        if self.found is None or verified is None or verified.version != params.version:
            return False
        assert params.z is not None
        self._z = shortest(params.z, self.found.basis, params.bound.mask)  # intercepts do not count
        step = self._z - params.z
        if not step.any():
            return False
        self.fits = False  # until the answers say so
        self.verifier.ask(Task.LINE, params.z, {"step": step, "ts": np.ones(1), "along": True}, limit)
        return True

    def conclude(self, now: float, limit: float) -> str:
        """Publish that z if it fits as well as today's, and charge what F rose: "settled" either way."""
        gather, self.verifier.gather = self.verifier.gather, None
        assert gather is not None
        assert self._z is not None
        objective = float(gather.total["values"][0]) + self.params.bound.value(self._z)
        self.fits = self.verifier.move(self._z, objective, ROUNDING, now)
        return "settled"


def open_directions(params: Parameters, hessian: Array, support: np.ndarray | None = None) -> Undetermined | None:
    """What this exact Hessian (of the coordinates ``support``, or all) leaves undetermined.

    None where it determines all, or cannot tell: a loss with straight stretches has no curvature
    there, and is not constant along them.
    """
    if not params.problem.curved:
        return None
    free = free_of(params.bound)
    if free.sum() <= 1:
        return None
    if support is None:
        found = undetermined(hessian, free)
    else:
        small = undetermined(hessian, free[support])
        basis = np.zeros((len(free), small.basis.shape[1]))
        basis[support] = small.basis
        groups = tuple(tuple(int(support[j]) for j in group) for group in small.groups)
        found = Undetermined(tuple(int(support[j]) for j in small.empty), groups, basis)
    return found if found.basis.size else None
