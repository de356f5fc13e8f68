"""Covariances of coefficients at an optimum without penalty: what a `Summary` is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.identify import undetermined
from paramserver.messages import Array
from paramserver.quadratic import scale_of

EPSILON = 1e-15  #: the least eigenvalue that rounding leaves of a matrix of unit diagonal
ESTIMABLE = 1e-6  #: a combination with a smaller part along a null direction, relatively, has none

CHOICES = {
    "covariance": ("model", "sandwich"),
    "information": ("expected", "observed"),
    "weights": ("frequency", "precision"),
}


class Covariance(NamedTuple):
    """Of q linear combinations of z, at dispersion 1 where it is the model's."""

    matrix: Array  #: (q, q), nan where not estimable
    estimable: np.ndarray  #: (q,) bool
    rank: int  #: of the information


@dataclass(frozen=True)
class Inference:
    """Sums over all rows at a run's last z.

    Matrices are in the units that the fit worked in, where columns of any size and mean keep
    their digits; ``jacobian`` takes them to the user's.

    Attributes
    ----------
    family : str
        The problem's class.
    jacobian : (p, p) sparse
        d z_user/dz.
    observed : (p, p); expected : (p, p) or None where it is the same
        The losses' Hessian, and its expectation given X.
    meat, meat_precision : (p, p)
        Σ w·s sᵀ and Σ w²·s sᵀ over the rows' scores s.
    loss, null_loss, pearson, weight, rows : float
        Σ w·loss here and in the null model, Pearson's statistic, Σ w, rows with a weight.
    dispersion : float or None
        1, nan (to be estimated), or None where the losses belong to no distribution.
    log_likelihood : (2,)
        With weights as frequencies, and as precisions.
    margins : int
        Per row: the number of classes, or 1.
    intercept : bool
    """

    family: str
    jacobian: Any
    observed: Array
    expected: Array | None
    meat: Array
    meat_precision: Array
    loss: float
    null_loss: float
    pearson: float
    weight: float
    rows: float
    dispersion: float | None
    log_likelihood: tuple[float, float] = (float("nan"), float("nan"))
    margins: int = 1
    intercept: bool = True

    @property
    def rank(self) -> int:
        """Of the observed information."""
        return len(self.observed) - int(inverse(self.observed)[1].shape[1])

    def size(self, weights: str) -> float:
        """How many observations there are."""
        return self.weight if weights == "frequency" else self.rows

    def covariance(self, combine: Array, covariance: str, information: str, weights: str) -> Covariance:
        """Of the combinations ``combine`` (q, p) of z in the user's units."""
        expected = self.observed if self.expected is None else self.expected
        bread, basis = inverse(self.observed if information == "observed" else expected)
        if covariance == "sandwich":
            meat = self.meat if weights == "frequency" else self.meat_precision
            bread = bread @ meat @ bread
        across = combine @ self.jacobian
        estimable = _estimable(across, basis, scale_of(self.observed))
        matrix = np.asarray(across @ bread @ across.T)
        matrix[~estimable], matrix[:, ~estimable] = np.nan, np.nan
        return Covariance(matrix, estimable, len(bread) - basis.shape[1])


def inverse(information: Array) -> tuple[Array, Array]:
    """(H⁺, basis (p, k) of the null space of H); H⁺ is taken in units where the diagonal is one."""
    p = len(information)
    if not np.isfinite(information).all():
        return np.full((p, p), np.nan), np.empty((p, 0))
    basis = undetermined(information, np.ones(p, bool)).basis
    unit = scale_of(information)
    null, _ = np.linalg.qr(basis / unit[:, None])
    along = null @ null.T
    values, vectors = np.linalg.eigh(information * unit * unit[:, None] + along)
    filled = (vectors / values.clip(min=EPSILON)) @ vectors.T - along
    return filled * unit * unit[:, None], basis


def _estimable(across: Array, basis: Array, unit: Array) -> np.ndarray:
    """Rows of ``across`` (q, p) that no null direction changes, coordinates being measured in ``unit`` (p,)."""
    v, c = basis / unit[:, None], across * unit
    v = v / np.abs(v).max(axis=0, initial=0.0)
    reach = np.abs(c).max(axis=1, initial=0.0)
    return np.asarray((np.abs(c @ v) <= ESTIMABLE * reach[:, None]).all(axis=1))


def chosen(inference: Inference, covariance: str | None, information: str | None, weights: str) -> tuple[str, str, str]:
    """The three choices, with what is usual where nothing was said."""
    if inference.dispersion is None and covariance == "model":
        raise InvalidInput(
            f"{inference.family} is a loss, not a likelihood: its Hessian alone says nothing of errors; "
            'use summary(covariance="sandwich")'
        )
    covariance = covariance or ("sandwich" if inference.dispersion is None else "model")
    information = information or ("observed" if covariance == "sandwich" else "expected")
    picked = {"covariance": covariance, "information": information, "weights": weights}
    for what, value in picked.items():
        if value not in CHOICES[what]:
            raise InvalidInput(f"{what} must be one of {CHOICES[what]}, got {value!r}")
    return covariance, information, weights


def combinations(
    inference: Inference, names: tuple[str, ...] | None, reference: int | None
) -> tuple[tuple[str, ...], Array]:
    """Names and (q, p) rows of what is reported: z itself, or contrasts between classes.

    Softmax leaves a constant in every column's K coefficients free. They are reported as they are
    when each column's sum to zero or, given a ``reference`` class, less that class's.
    """
    K, p = inference.margins, inference.jacobian.shape[0]
    names = names or tuple(f"x{j}" for j in range(p // K - inference.intercept))
    names = (*names, "intercept") if inference.intercept else names
    if K == 1:
        if reference is not None:
            raise InvalidInput(f"reference names a class of a Multinomial fit; this is {inference.family}")
        return names, np.eye(p)
    if reference is not None and not 0 <= reference < K:
        raise InvalidInput(f"reference must be a class from 0 to {K - 1}, got {reference!r}")
    kept = [k for k in range(K) if k != reference]
    inside = np.eye(K) - (1.0 / K if reference is None else np.eye(K)[reference])
    n = p // K  # z holds K rows of coefficients, then K intercepts
    places = np.arange(p - K * inference.intercept).reshape(K, -1)
    if inference.intercept:
        places = np.hstack([places, np.arange(p - K, p)[:, None]])
    rows = np.zeros((len(kept), n, p))
    for i, k in enumerate(kept):
        for j in range(n):
            rows[i, j, places[:, j]] = inside[k]
    return tuple(f"{name}[{k}]" for k in kept for name in names), rows.reshape(-1, p)
