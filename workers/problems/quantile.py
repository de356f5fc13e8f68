"""Smoothed quantile regression."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.workers.problems.huber import Clipped


@dataclass(frozen=True)
class Quantile(Clipped):
    """Smoothed quantile regression: the Moreau envelope of the pinball loss, not the pinball loss itself.

    The pinball loss max(τ(y − m), (τ − 1)(y − m)) (Koenker & Bassett 1978) has its kink at m = y
    replaced by a parabola over −smoothing·τ ≤ m − y ≤ smoothing·(1 − τ). Each row's loss is lower than
    the pinball loss by at most smoothing·max(τ², (1 − τ)²)/2, and so is F* by n times that.

    Parameters
    ----------
    quantile : float
        τ in (0, 1); 0.5 is the median.
    smoothing : float
        > 0, in units of y. A tenth of the residuals' spread changes the answer little and leaves the
        Hessian, which sees only rows within the parabola, enough of them.
    fit_intercept, standardize :
        See `GLM`.
    """

    quantile: float = 0.5
    smoothing: float = field(kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise InvalidInput(f"quantile must lie in (0, 1), got {self.quantile!r}")
        if not (np.isfinite(self.smoothing) and self.smoothing > 0):
            raise InvalidInput(f"smoothing must be a finite number > 0, in units of y, got {self.smoothing!r}")

    @property
    def _shape(self) -> tuple[float, float, float]:
        return self.smoothing, -self.quantile, 1.0 - self.quantile
