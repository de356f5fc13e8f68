"""What inference needs of one chunk at the final z: information, squared scores, Pearson's sum, likelihood.

A family is its variance function and its density here, beside the losses that it is in `glm`. The
defaults are those of losses that belong to no distribution: sandwich errors are all there is.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.workers.problems.passes import counting


class Moments(NamedTuple):
    """Sums over one chunk's rows at z; ``matrices`` in the units of z, (p, p) each.

    Chunks' moments add up, field by field.
    """

    #: (5,) losses, Pearson's Σ weight·(y − µ)²/V(µ), Σ weight, rows that have a weight, and the log-likelihood
    #: where no dispersion is to be estimated first, else nan
    sums: Array
    observed: Array  #: the losses' Hessian
    expected: Array  #: its expectation given X, (0, 0) where it is the same
    meat: Array  #: Σ weight·s sᵀ over the scores s of unweighted rows: ``weight`` rows alike
    meat_precision: Array  #: Σ weight²·s sᵀ: one row of so high a precision


class Family:
    """What a family of losses says of the distribution that they are the likelihood of.

    ``dispersion`` is φ where the family has it (1: binomial, Poisson), nan where Pearson's
    statistic over the degrees of freedom estimates it, and None where there is no distribution.
    """

    dispersion: ClassVar[float | None] = None

    def pearson_rows(self, margins: Array, y: Array) -> Array:
        """(y − µ)²/V(µ), (n,)."""
        return np.full(len(y), np.nan)

    def expected_rows(self, margins: Array, y: Array) -> Array | None:
        """The expected second derivative by the margin, (n,); None where it does not depend on y."""
        return None

    def log_density(self, margins: Array, y: Array, weight: Array, dispersion: float) -> Array:
        """log f(y) at dispersion/weight, (n,); ``weight`` > 0."""
        return np.full(len(y), np.nan)

    def likely_dispersion(self, pearson: float, n: float, df_resid: float) -> float:
        """The φ at which the likelihood of ``n`` rows is reported."""
        return pearson / df_resid if df_resid > 0 else float("nan")

    def outer(self, data: Any, scores: Array, weight: Array) -> Array:
        """Σ weight·s sᵀ, (p, p), from the rows' scores by their margins."""
        out: Array = self.hessian(data, scores * scores * weight)  # type: ignore[attr-defined]
        return out

    def moments(self, data: Any, z: Array) -> Moments:
        """All of `Moments`, in one pass for the margins and one for each matrix."""
        margins = self.margins(data, z)  # type: ignore[attr-defined]
        weight = data.weights
        with np.errstate(over="ignore", invalid="ignore"):  # in rows that no weight counts
            at = self.rows(margins, data.y)  # type: ignore[attr-defined]
            pearson, mean = self.pearson_rows(margins, data.y), self.expected_rows(margins, data.y)
        loss, first, second, pearson = (counting(part, weight) for part in (*at, pearson))
        fixed = self.dispersion if self.dispersion is not None else np.nan
        likelihood = np.nan if np.isnan(fixed) else self.log_likelihood(data, z, np.full(2, fixed))[1]
        sums = np.array([loss @ weight, pearson @ weight, weight.sum(), np.count_nonzero(weight), likelihood])
        observed = self.information(data, second, weight)
        expected = np.empty((0, 0)) if mean is None else self.information(data, counting(mean, weight), weight)
        meat = self.outer(data, first, weight)
        squared = meat if data.weight is None else self.outer(data, first, weight * weight)
        return Moments(sums, observed, expected, meat, squared)

    def information(self, data: Any, second: Array, weight: Array) -> Array:
        """The Hessian (p, p) from the rows' second derivatives."""
        out: Array = self.hessian(data, (second.T * weight).T)  # type: ignore[attr-defined]
        return out

    def log_likelihood(self, data: Any, z: Array, dispersions: Array) -> Array:
        """(2,): of ``weight`` rows alike at the first φ, of rows of that precision at the second."""
        margins, counts = self.margins(data, z), data.weights > 0  # type: ignore[attr-defined]
        margins, y, weight = margins[counts], data.y[counts], data.weights[counts]
        with np.errstate(divide="ignore", invalid="ignore"):  # a perfect fit leaves a dispersion of zero
            alike = self.log_density(margins, y, np.ones_like(weight), float(dispersions[0]))
            precise = self.log_density(margins, y, weight, float(dispersions[1]))
        return np.array([weight @ alike, precise.sum()])
