"""One or two questions more at a run's last z, from which `Result.summary` is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from paramserver.errors import InvalidInput
from paramserver.inference import Inference
from paramserver.messages import Array, Task, Version
from paramserver.penalties import Bound
from paramserver.server.findings import free_of
from paramserver.server.gather import Gather
from paramserver.server.parameters import Parameters
from paramserver.server.spec import RunSpec
from paramserver.server.verifier import Verifier
from paramserver.workers.problems.base import Problem, require

NEEDS = ("moments", "log_likelihood")
LARGE = 1000  #: coordinates above which the (p, p) matrices are made only when asked for
TASKS = (Task.INFER, Task.LIKELIHOOD)


@dataclass
class Inferring:
    """What is asked when z is final, and what became of it.

    Attributes
    ----------
    reason : the run's, which ends when this is done.
    """

    params: Parameters
    verifier: Verifier
    reason: str = ""
    _missing: str = "the run ended before its z was verified"
    _found: tuple[Version, Inference] | None = None

    def void(self) -> None:
        """Other chunks than those that were asked."""
        self._found = None

    @property
    def under_way(self) -> bool:
        """Whether the chunks are being asked."""
        gather = self.verifier.gather
        return gather is not None and gather.task in TASKS

    def begin(self, reason: str, limit: float) -> bool:
        """Ask, if inference is wanted and there can be any; False where the run may end at once."""
        self.reason, self._found = reason, None
        verified = self.verifier.verified  # not of this z where F is infinite there
        if verified is None or verified.version != self.params.version or self._refusal():
            return False
        self.verifier.ask(Task.INFER, self.params.z, {}, limit)
        return True

    def _refusal(self) -> str:
        params, wanted = self.params, self.params.spec.inference
        assert params.z is not None
        if wanted is False:
            return "the run was launched with inference=False; pass True"
        if lacks(params.problem):
            return f"{type(params.problem).__name__} lacks {' or '.join(lacks(params.problem))}"
        if not free_of(params.bound).all():
            return "a penalised fit's Hessian does not define them; fit with penalty=NoPenalty()"
        if wanted is None and len(params.z) > LARGE:
            return f"z has {len(params.z)} coordinates; launch with inference=True if {LARGE} are not too many"
        return ""

    def conclude(self, now: float, limit: float) -> str:
        """Act on a complete gather: "asking" on, or "inferred"."""
        gather, self.verifier.gather = self.verifier.gather, None
        assert gather is not None
        if gather.task is Task.LIKELIHOOD:
            self._likelihood(gather.total["log_likelihood"])
            return "inferred"
        found = _inference(self.params, gather)
        self._found = (self.params.version, found)
        if found.dispersion is None or not np.isnan(found.dispersion):
            return "inferred"
        self.verifier.ask(Task.LIKELIHOOD, gather.z, {"dispersions": self._dispersions(found)}, limit)
        return "asking"

    def give_up(self, why: str = "") -> str:
        """Some chunk does not answer, or cannot: a note on what is missing."""
        gather = self.verifier.gather
        assert gather is not None
        chunks = why or f"chunks {sorted(gather.pending)[:10]} did not answer in time"
        if gather.task is Task.LIKELIHOOD:
            return f"no log-likelihood: {chunks}"
        self._missing = chunks
        return f"no standard errors: {chunks}"

    @property
    def found(self) -> Inference | None:
        """For today's z and penalty."""
        if self._found is None or self._found[0] != self.params.version or self._refusal():
            return None
        return self._found[1]

    @property
    def why_not(self) -> str:
        """Why nothing was found, in words."""
        return "" if self.found is not None else self._refusal() or self._missing

    def _dispersions(self, found: Inference) -> Array:
        """(2,): for weights as frequencies, and as precisions."""
        problem: Any = self.params.problem
        rank = found.rank
        sizes = (found.size("frequency"), found.size("precision"))
        return np.array([problem.likely_dispersion(found.pearson, n, n - rank) for n in sizes])

    def _likelihood(self, values: Array) -> None:
        assert self._found is not None
        version, found = self._found
        self._found = version, replace(found, log_likelihood=(float(values[0]), float(values[1])))


def check(spec: RunSpec) -> None:
    """Refuse ``inference=True`` where it cannot be had, as far as is known before the data are.

    Raises
    ------
    InvalidInput
    """
    if not spec.inference:
        return
    require(NEEDS, spec.problem, "inference=True")
    try:
        free = bool(free_of(Bound(spec.penalty, np.ones(1, bool))).all())
    except InvalidInput:  # it is for another number of columns: the end will tell
        return
    if not free:
        raise InvalidInput(
            f"inference=True with {spec.penalty!r}: the Hessian of a penalised fit does not define standard "
            "errors; pass penalty=NoPenalty(), or leave inference out"
        )


def lacks(problem: Problem) -> list[str]:
    """What this problem does not offer of what inference needs."""
    return [name for name in NEEDS if not callable(getattr(problem, name, None))]


def _inference(params: Parameters, gather: Gather) -> Inference:
    problem, total, setup = params.problem, gather.total, params.setup
    assert setup is not None
    loss, pearson, weight, rows, likelihood = (float(v) for v in total["sums"])
    return Inference(
        family=type(problem).__name__,
        jacobian=_jacobian(problem, setup.p),
        observed=total["observed"],
        expected=total["expected"] if total["expected"].size else None,
        meat=total["meat"],
        meat_precision=total["meat_precision"],
        loss=loss,
        null_loss=setup.start.objective,
        pearson=pearson,
        weight=weight,
        rows=rows,
        dispersion=getattr(problem, "dispersion", None),
        log_likelihood=(likelihood, likelihood),
        margins=getattr(problem, "margins_per_row", None) or 1,
        intercept=bool(getattr(problem, "fit_intercept", False)),
    )


def _jacobian(problem: Problem, p: int) -> csr_matrix:
    """d outward(z)/dz: `outward` is linear."""
    return csr_matrix(np.stack([problem.outward(unit) for unit in np.eye(p)], axis=1))
