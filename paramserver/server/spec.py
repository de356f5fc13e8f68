"""What a run is: everything that does not change, or changes only by `Run.update`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.consensus.base import Consensus
from paramserver.errors import InvalidInput, RunFailed
from paramserver.messages import Array
from paramserver.penalties import Penalty
from paramserver.views import Status
from paramserver.workers.problems.base import Problem

LOSS, CHANGE = ("fail", "drop"), ("fail", "reset")  #: what may become of a chunk that is lost, or changes
CERTIFIABLE = ("evaluate", "hessian", "fenchel", "fenchel_bound", "reach", "line")


@dataclass(frozen=True)
class RunSpec:
    """Settings of one run; see `paramserver.launch` for what they mean."""

    problem: Problem
    penalty: Penalty
    rule: Consensus
    n_chunks: int
    name: str = "run"
    run_id: str = "run"
    z0: Array | None = None
    tol: float | None = None
    until: Callable[[Status], bool] | None = None
    max_seconds: float | None = None
    max_pushes: int | None = None
    keep: bool = False
    feature_names: tuple[str, ...] | None = None
    inference: bool | None = False  #: None: where `summary` can be had and p is not large
    checkpoint: str | None = None  #: a URL; None: none are written
    checkpoint_every: float = 60.0  #: seconds
    resume: str | None = None  #: the name of the checkpoint there that the run begins from
    on_chunk_loss: str = "fail"
    on_chunk_change: str = "fail"
    trace: bool = False  #: whether the result says what z and the workers did, see `Trace`
    patience: float = 0.25  #: shortest lease/4 and shortest wait before a chunk is copied, seconds
    silence: float = 30.0  #: a verification waits so long for a chunk, or 5 times the slowest step

    def __post_init__(self) -> None:
        if self.n_chunks < 1:
            raise InvalidInput("no chunks: X has no rows")
        for what in ("tol", "max_seconds", "max_pushes", "checkpoint_every"):
            value = getattr(self, what)
            if value is not None and not (isinstance(value, (int, float, np.integer, np.floating)) and value > 0):
                raise InvalidInput(f"{what} must be None or a number > 0, got {value!r}")
        if self.z0 is not None:
            _check_values(self.z0)
        if self.inference not in (None, True, False):
            raise InvalidInput(f"inference must be None, True or False, got {self.inference!r}")
        for what, known in (("on_chunk_loss", LOSS), ("on_chunk_change", CHANGE)):
            if getattr(self, what) not in known:
                raise InvalidInput(f"{what} must be {' or '.join(map(repr, known))}, got {getattr(self, what)!r}")
        if self.until is not None and not callable(self.until):
            raise InvalidInput(f"until must be a callable of Status, got {self.until!r}")

    @property
    def measured(self) -> bool:
        """Whether the problem has values; without, residuals must do."""
        return callable(getattr(self.problem, "evaluate", None))

    def scale(self, null: float) -> float:
        """What gaps are relative to, given F(null model): where that is nothing, 1 for what cannot be certified."""
        if self.certifiable:
            return max(null, 1e-300)
        return abs(null) if np.isfinite(null) and null else 1.0

    @property
    def certifiable(self) -> bool:
        """Whether the problem offers what a certificate needs."""
        return all(callable(getattr(self.problem, name, None)) for name in CERTIFIABLE)


def _check_values(z0: Any) -> None:
    """Its length is seen when the data are."""
    values = np.asarray(z0)
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        raise InvalidInput(f"z0 must be None or finite numbers, got {z0!r}")


def check_z0(z0: Any, p: int) -> None:
    """A start must be a whole z."""
    if np.shape(z0) != (p,):
        raise InvalidInput(f"z0 has shape {np.shape(z0)}, this problem's z has ({p},), the intercept last")


def check_memory(rule: Consensus, p: int, n_chunks: int, limit: int | None) -> None:
    """The slots must leave the server's worker half of its memory (bytes; None: not known)."""
    need = rule.slot_bytes(p) * n_chunks
    if limit is not None and need > limit / 2:
        raise RunFailed(
            f"the server would keep {need / 2**30:.1f} GiB ({n_chunks} chunks, p = {p}), more than "
            f"half of its worker's {limit / 2**30:.1f} GiB: use fewer chunks, a larger worker, or a "
            'rule that keeps less, such as ADMM(metric="diagonal")'
        )
