"""Least squares: ½(y − m)²."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from paramserver.messages import Array
from paramserver.workers.problems.glm import GLM
from paramserver.workers.problems.passes import Rows


class LeastSquares(GLM):
    """Linear regression with Gaussian losses ½(y − m)². Settings: see `GLM`."""

    quadratic: ClassVar[bool] = True
    dispersion: ClassVar[float | None] = float("nan")

    def rows(self, margins: Array, y: Array) -> Rows:
        left = margins - y
        return Rows(0.5 * left * left, left, np.ones_like(left))

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        return 0.5 * (moved - delta) ** 2

    def fenchel_bound(self, bend: float, reach: float) -> float:
        """Exactly ½ΔᵀHΔ, whatever the step."""
        return 0.5 * bend

    def pearson_rows(self, margins: Array, y: Array) -> Array:
        return (y - margins) ** 2

    def log_density(self, margins: Array, y: Array, weight: Array, dispersion: float) -> Array:
        return -0.5 * (weight * (y - margins) ** 2 / dispersion + np.log(2 * np.pi * dispersion / weight))

    def likely_dispersion(self, pearson: float, n: float, df_resid: float) -> float:
        """The likelihood's own maximum, as is usual for this family alone."""
        return pearson / n if n > 0 else float("nan")

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, weighted mean of y − offset, weighted sum of squares about it]."""
        total = float(weight.sum())
        left = y if offset is None else y - offset
        mean = float(weight @ left) / total if total > 0 else 0.0
        return np.array([total, mean, weight @ (left - mean) ** 2])

    def merge_tally(self, a: Array, b: Array) -> Array:
        """Chan, Golub & LeVeque 1983: no digits lost to a large mean."""
        total = a[0] + b[0]
        if not total:
            return a
        apart, share = b[1] - a[1], b[0] / total
        return np.array([total, a[1] + apart * share, a[2] + b[2] + apart * apart * a[0] * share])

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        total, mean, squares = tally
        about_zero = 0.5 * (squares + total * mean * mean)
        if not self.fit_intercept:
            return 0.0, about_zero, True
        return mean, 0.5 * squares + 1e-22 * about_zero, True  # not 0 for a constant target
