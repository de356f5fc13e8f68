"""F by definition, its derivatives, and the true relative gap: what judges every answer, ours and the peers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, xlogy

from paramserver.workers.design.table import Table

from .cases import Case
from .data import expanded

BLOCK = 1 << 12  #: rows at once: what a cache holds
Array = np.ndarray


class Loss(NamedTuple):
    """Of margins m and targets y, a value a row; the curvature takes m."""

    value: Callable[[Array, Array], Array]
    slope: Callable[[Array, Array], Array]
    curvature: Callable[[Array], Array]
    link: Callable[[float], float]


LOSSES = {
    "logistic": Loss(
        lambda m, y: np.logaddexp(0, m) - y * m,
        lambda m, y: expit(m) - y,
        lambda m: expit(m) * expit(-m),
        lambda mean: math.log(mean / (1 - mean)),
    ),
    "normal": Loss(lambda m, y: (m - y) ** 2 / 2, lambda m, y: m - y, np.ones_like, lambda mean: mean),
    "poisson": Loss(
        lambda m, y: np.exp(m) - y * m + xlogy(y, y) - y,
        lambda m, y: np.exp(m) - y,
        np.exp,
        math.log,
    ),
}


class Objective:
    """F over z = (w, b), or w where there is no intercept."""

    def __init__(self, case: Case, X: Any, y: Array) -> None:
        self.case, self.loss, self.y = case, LOSSES[case.loss], y
        self.X = expanded(X) if isinstance(X, Table) else X
        self.n, self.d = self.X.shape
        self.free = int(case.intercept)
        self.p = self.d + self.free

    def null(self) -> Array:
        """The model without columns."""
        z = np.zeros(self.p)
        if self.case.intercept:
            z[-1] = self.loss.link(float(self.y.mean()))
        return z

    def penalty(self, z: Array) -> float:
        """The penalty's value; the intercept is free."""
        w = z[: self.d]
        return float(self.case.l1 * np.abs(w).sum() + self.case.l2 / 2 * (w @ w))

    def value(self, z: Array) -> float:
        """F(z)."""
        sums = [float(self.loss.value(self.margins(z, rows), self.y[rows]).sum()) for rows in self._blocks()]
        return math.fsum([*sums, self.penalty(z)])

    def margins(self, z: Array, rows: slice) -> Array:
        """Xw + b."""
        return self.X[rows] @ z[: self.d] + (z[-1] if self.case.intercept else 0.0)

    def gradient(self, z: Array) -> Array:
        """Of the losses and the L2 part."""
        out = np.append(self.case.l2 * z[: self.d], np.zeros(self.free))
        for rows in self._blocks():
            r = self.loss.slope(self.margins(z, rows), self.y[rows])
            out += np.append(self.X[rows].T @ r, [r.sum()] * self.free)
        return out

    def hessian(self, z: Array, on: Array) -> Array:
        """Of the losses and the L2 part, for the coefficients in ``on``; the intercept is last, if it is there."""
        columns = on[on < self.d]
        k, whole = len(columns), len(columns) == self.d
        X = self.X[:, columns] if sp.issparse(self.X) and not whole else self.X
        out = np.zeros((len(on), len(on)))
        for rows in self._blocks():
            root = np.sqrt(self.loss.curvature(self.margins(z, rows)))
            block = X[rows] if whole or sp.issparse(X) else X[rows][:, columns]
            scaled = sp.diags_array(root) @ block if sp.issparse(block) else root[:, None] * block
            square = scaled.T @ scaled
            out[:k, :k] += square.toarray() if sp.issparse(square) else square
            if k < len(on):
                out[:k, k] += scaled.T @ root
                out[k, k] += root @ root
        out[k:, :k] = out[:k, k:].T
        out[np.arange(k), np.arange(k)] += self.case.l2
        return out

    def _blocks(self) -> Iterator[slice]:
        size = self.n if sp.issparse(self.X) else BLOCK
        for a in range(0, self.n, size):
            yield slice(a, min(a + size, self.n))


class Judge(NamedTuple):
    """What gaps are measured against."""

    objective: Objective
    best: float  #: F*
    null: float  #: F(null model)

    def gap(self, z: Array) -> float:
        """(F(z) − F*)/F(null model); inf where z is no answer."""
        if z.shape != (self.objective.p,) or not np.isfinite(z).all():
            return math.inf
        return (self.objective.value(z) - self.best) / self.null
