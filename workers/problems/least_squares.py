"""Least squares: ½(y − m)²."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.base import Start
from paramserver.workers.problems.glm import GLM, Data, Rows


class LeastSquares(GLM):
    """Linear regression with Gaussian losses ½(y − m)².

    Parameters
    ----------
    fit_intercept : bool
        The intercept is last in z and never penalised.
    """

    quadratic: ClassVar[bool] = True

    def rows(self, margins: Array, y: Array) -> Rows:
        left = margins - y
        return Rows(0.5 * left * left, left, np.ones_like(left))

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        return 0.5 * (moved - delta) ** 2

    def fenchel_bound(self, bend: float, reach: float) -> float:
        """Exactly ½ΔᵀHΔ, whatever the step."""
        return 0.5 * bend

    def survey(self, data: Data) -> Array:
        """[rows, p, Σw, weighted mean of y, weighted sum of squares about it]."""
        weight = np.ones(data.rows) if data.weight is None else data.weight
        total = float(weight.sum())
        mean = float(weight @ data.y) / total if total > 0 else 0.0
        left = data.y - mean
        return np.array([data.rows, self.size(data.X.shape[1]), total, mean, weight @ (left * left)])

    def merge(self, a: Array, b: Array) -> Array:
        """Chan, Golub & LeVeque 1983: no digits lost to a large mean."""
        total = a[2] + b[2]
        if not total:
            return np.array([a[0] + b[0], *a[1:]])
        apart, share = b[3] - a[3], b[2] / total
        squares = a[4] + b[4] + apart * apart * a[2] * share
        return np.array([a[0] + b[0], a[1], total, a[3] + apart * share, squares])

    def start(self, survey: Array) -> Start:
        _, p, total, mean, squares = survey
        if not total > 0:
            raise BadData("all sample weights are zero: there is nothing to fit")
        z = np.zeros(int(p))
        about_zero = 0.5 * (squares + total * mean * mean)
        if not self.fit_intercept:
            return Start(z, float(about_zero))
        z[-1] = mean
        return Start(z, float(0.5 * squares + 1e-22 * about_zero))  # not 0 for a constant target
