"""Generalised linear models on dense rows: what all of them share.

Rows are worked on in blocks that stay in the cache: margins, losses and gradient in one pass over
memory, float32 data widened block by block (a float32 sum would limit the gap near 1e-7).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.base import Evaluation, Problem

BLOCK_BYTES = 1 << 21


class Rows(NamedTuple):
    """Unweighted losses, first and second derivatives by margin, one a row."""

    loss: Array
    first: Array
    second: Array


@dataclass
class Data:
    """One chunk: X (n, d) float32 or float64, y (n,), weight (n,) or None."""

    X: np.ndarray
    y: Array
    weight: Array | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.y)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """(rows, X[rows] as float64) in pieces of about 2 MB."""
        size = max(256, BLOCK_BYTES // (8 * max(self.X.shape[1], 1)))
        for a in range(0, self.rows, size):
            rows = slice(a, a + size)
            yield rows, np.asarray(self.X[rows], dtype=np.float64)


@dataclass(frozen=True)
class GLM(Problem):
    """Σ weight·loss(xᵀw + b, y); z = (w, b) with the intercept b last, where there is one."""

    fit_intercept: bool = True

    @abstractmethod
    def rows(self, margins: Array, y: Array) -> Rows:
        """Losses and derivatives at the margins, (n,) each."""

    @abstractmethod
    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        """ℓ(m) + ℓ*(θ) − θ·m per row at m = margins + moved, θ = ℓ' + ℓ''·delta at the margins.

        inf where θ leaves the domain.
        """

    def target(self, y: Array) -> Array:
        """y as the losses want it; raise `BadData` naming the first bad row."""
        return y

    # -- what a chunk is -------------------------------------------------------------------------

    def prepare(self, *parts: Any) -> Data:
        X, y, weight = (*parts, None, None)[:3]
        if y is None:
            raise BadData(f"{type(self).__name__} needs a target: pass y")
        X = np.asarray(X)
        if X.dtype not in (np.float32, np.float64):
            X = X.astype(np.float64)
        if X.ndim == 1:
            X = X[:, None]
        y = _column(y, "y", len(X))
        if weight is not None:
            weight = _column(weight, "sample_weight", len(X))
            if (weight < 0).any():
                raise BadData(f"row {int(np.argmax(weight < 0))} has a negative sample_weight")
        return Data(X, self.target(y), weight)

    def size(self, n_features: int) -> int:
        """p for so many columns."""
        return n_features + self.fit_intercept

    def penalised(self, p: int) -> np.ndarray:
        mask = np.ones(p, bool)
        if self.fit_intercept:
            mask[-1] = False
        return mask

    def unpack(self, z: Array) -> tuple[Array, float]:
        return (z[:-1], float(z[-1])) if self.fit_intercept else (z, 0.0)

    # -- passes over the rows --------------------------------------------------------------------

    def margins(self, data: Data, z: Array) -> Array:
        """Xw + b, (n,)."""
        w, b = self.unpack(z)
        out = np.empty(data.rows)
        for rows, X in data.blocks():
            out[rows] = X @ w + b
        return out

    def evaluate(self, data: Data, z: Array) -> Evaluation:
        """Value, gradient and curvatures in one pass over X."""
        w, b = self.unpack(z)
        value, gradient, curvature = 0.0, np.zeros(len(z)), np.empty(data.rows)
        d = len(w)
        for rows, X in data.blocks():
            loss, first, second = self.rows(X @ w + b, data.y[rows])
            if data.weight is not None:
                weight = data.weight[rows]
                loss, first, second = loss * weight, first * weight, second * weight
            value += float(loss.sum())
            gradient[:d] += first @ X
            if self.fit_intercept:
                gradient[d] += first.sum()
            curvature[rows] = second
        return Evaluation(value, gradient, curvature)

    def curvature(self, data: Data, z: Array) -> Array:
        """The weighted losses' second derivatives at z, (n,)."""
        second = self.rows(self.margins(data, z), data.y).second
        return second if data.weight is None else second * data.weight

    def hessian(self, data: Data, curvature: Array) -> Array:
        """XᵀDX with the intercept's row and column, (p, p)."""
        d = data.X.shape[1]
        H = np.zeros((self.size(d), self.size(d)))
        root = np.sqrt(curvature)
        for rows, X in data.blocks():
            S = X * root[rows, None]
            H[:d, :d] += S.T @ S  # one array on both sides: BLAS syrk, half the work
            if self.fit_intercept:
                H[:d, d] += root[rows] @ S
        if self.fit_intercept:
            H[d, :d] = H[:d, d]
            H[d, d] = curvature.sum()
        return H

    def hessian_diagonal(self, data: Data, curvature: Array) -> Array:
        """diag(XᵀDX), (p,)."""
        d = data.X.shape[1]
        out = np.zeros(self.size(d))
        for rows, X in data.blocks():
            out[:d] += curvature[rows] @ (X * X)
        if self.fit_intercept:
            out[d] = curvature.sum()
        return out

    def line(self, data: Data, z: Array, step: Array, ts: Array) -> Array:
        """Values at z + t·step for every t, in one pass: margins are linear in t."""
        at, along = self.margins(data, z), self.margins(data, step)
        out = np.empty(len(ts))
        for k, t in enumerate(ts):
            out[k] = _weighted(self.rows(at + t * along, data.y).loss, data.weight)
        return out

    def fenchel(self, data: Data, z: Array, step: Array, move: Array | None = None) -> tuple[float, float]:
        """The losses' share of the duality gap at z + move for the dual that ``step`` leads to, and the losses."""
        at = self.margins(data, z)
        moved = np.zeros_like(at) if move is None else self.margins(data, move)
        terms = self.fenchel_rows(at, data.y, self.margins(data, step), moved)
        return _weighted(terms, data.weight), _weighted(self.rows(at + moved, data.y).loss, data.weight)

    def reach(self, data: Data) -> Array:
        """max_j |X_jk| of each column, 1 for the intercept, (p,)."""
        d = data.X.shape[1]
        out = np.ones(self.size(d))
        if data.rows:
            out[:d] = np.maximum(data.X.max(axis=0), -data.X.min(axis=0))
        return out


def _weighted(terms: Array, weight: Array | None) -> float:
    if weight is None:
        return float(terms.sum())
    counts = weight > 0  # 0·inf is nan
    return float(terms[counts] @ weight[counts])


def _column(values: Any, what: str, n: int) -> Array:
    """A (n,) float64 vector, or BadData."""
    try:
        out = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError):
        raise BadData(f"{what} must be numbers, got dtype {np.asarray(values).dtype}: encode it first") from None
    out = out.reshape(-1) if out.ndim == 2 and out.shape[1] == 1 else out
    if out.shape != (n,):
        raise BadData(f"{what} has shape {out.shape} where X has {n} rows")
    bad = ~np.isfinite(out)
    if bad.any():
        raise BadData(f"{what} is {out[bad][0]} in row {int(np.argmax(bad))}")
    return out
