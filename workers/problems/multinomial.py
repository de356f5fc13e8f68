"""Multinomial logistic regression: K margins a row, loss log Σ exp(m_k) − m_y."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.entropy import cautious_bound, divergence, excess
from paramserver.workers.problems.glm import GLM
from paramserver.workers.problems.passes import Data, Rows

ENCODE = "encode them over all of y as np.unique(y, return_inverse=True)[1]"


@dataclass(frozen=True)
class Multinomial(GLM):
    """Softmax regression with a coefficient vector and an intercept a class; labels 0, 1, …, K − 1.

    z holds the (K, d) coefficients row by row, then the K intercepts, which are reported with sum 0: a
    constant added to all of them changes nothing. Where nothing is penalised the same is true of each
    column of coefficients. ``offset`` is (n, K).

    Parameters
    ----------
    n_classes : int
        K ≥ 2; found from the data where not given.
    fit_intercept, standardize :
        See `GLM`.
    """

    n_classes: int | None = None
    dispersion: ClassVar[float | None] = 1.0

    def __post_init__(self) -> None:
        if self.n_classes is not None and not (self.n_classes == int(self.n_classes) and self.n_classes >= 2):
            raise InvalidInput(f"n_classes must be None or a whole number ≥ 2, got {self.n_classes!r}")

    # -- labels ----------------------------------------------------------------------------------

    def prepare(self, *parts: Any) -> Data:
        data = super().prepare(*parts)
        if data.offset is not None and data.rows and data.y.max() >= data.offset.shape[1]:
            row = int(np.argmax(data.y))
            raise BadData(f"label {data.y[row]:g} in row {row}, but offset has {data.offset.shape[1]} columns")
        return data

    def target(self, y: Array) -> Array:
        bad = self._bad(y)
        if bad.any():
            row = int(np.argmax(bad))
            raise BadData(f"label {y[row]:g} in row {row}: {self._wants()}")
        return y

    def check_target(self, y: Any) -> None:
        values = np.unique(np.asarray(y))
        bad = self._bad(values)
        if bad.any():
            raise InvalidInput(f"label {values[bad][0]:g}: {self._wants()}")
        if len(values) < 2:
            raise InvalidInput(f"every label is {values[0]:g}: {self._wants()}" if len(values) else "y is empty")

    def _bad(self, y: Any) -> Any:
        return (y < 0) | (y != np.floor(y)) | (y >= (np.inf if self.n_classes is None else self.n_classes))

    def _wants(self) -> str:
        last = "K - 1 with K >= 2" if self.n_classes is None else str(self.n_classes - 1)
        return f"Multinomial takes whole numbers 0, 1, ..., {last}; {ENCODE}"

    # -- z ---------------------------------------------------------------------------------------

    @property
    def margins_per_row(self) -> int | None:
        return self.n_classes

    def _split(self, z: Array) -> tuple[Array, Any]:
        K = self._width
        if not self.fit_intercept:
            return z.reshape(K, -1).T, np.zeros(K)
        return z[:-K].reshape(K, -1).T, z[-K:]

    def _join(self, W: Array, b: Any) -> Array:
        flat = np.ravel(W.T)
        return np.append(flat, b) if self.fit_intercept else flat

    def redundant(self, p: int) -> list[tuple[int, ...]]:
        """Each column's K coefficients, and the K intercepts."""
        K = self._width
        d = (p - K * self.fit_intercept) // K
        columns = np.arange(K * d).reshape(K, d).T.tolist()
        return [tuple(column) for column in columns] + [tuple(range(K * d, p))] * self.fit_intercept

    def outward(self, z: Array) -> Array:
        W, b = self._split(super().outward(z))
        return self._join(W, b - b.mean())

    # -- the losses ------------------------------------------------------------------------------

    def rows(self, margins: Array, y: Array) -> Rows:
        # Sums leave out the largest term, or the label's own: 1 − π keeps its digits.
        each, label, top = np.arange(len(y)), y.astype(np.intp), margins.argmax(axis=1)
        highest = margins[each, top]
        e = np.exp(margins - highest[:, None])
        e[each, top] = 0.0
        rest = e.sum(axis=1)
        e[each, top] = 1.0
        e /= (1.0 + rest)[:, None]
        first = e.copy()
        first[each, label] = 0.0
        first[each, label] = -first.sum(axis=1)
        return Rows(np.log1p(rest) + (highest - margins[each, label]), first, e)

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        # ℓ*(θ) is the entropy of q = θ + e_y, q_k = π_k(1 + δ_k − Σπδ); the sum below is KL(q ‖ π').
        before, after = _log_softmax(margins), _log_softmax(margins + moved)
        p = np.exp(before)
        apart, away = (v - (p * v).sum(axis=1, keepdims=True) for v in (delta, moved))
        near = np.abs(away).max(axis=1, keepdims=True) < 1.0
        small = np.where(near, away, 0.0)  # log(π'/π) = away − log Σ π·exp(away), of small terms for small moves
        s = np.where(near, small - np.log1p((p * excess(small)).sum(axis=1, keepdims=True)), after - before)
        out: Array = divergence(p, apart, np.exp(after), s).sum(axis=1)
        return out

    def fenchel_bound(self, bend: float, reach: float) -> float | None:
        """See `cautious_bound`; the reach sums over classes, so it bounds any two margins' difference."""
        return cautious_bound(bend, reach)

    # -- Hessians: Xᵀ diag(π_k[k = l] − π_k π_l) X in block (k, l) ---------------------------------

    @staticmethod
    def _pairs(curvature: Array) -> Iterator[tuple[int, int, float, Array]]:
        """(k, l, sign, weight (n,) ≥ 0) of each block with l ≤ k; ``curvature`` is weight·π, (n, K)."""
        total = curvature.sum(axis=1, keepdims=True)
        share = np.divide(curvature, total, out=np.zeros_like(curvature), where=total > 0)
        for k in range(curvature.shape[1]):
            for other in range(k):
                yield k, other, -1.0, curvature[:, k] * share[:, other]
            yield k, k, 1.0, curvature[:, k] * np.delete(share, k, axis=1).sum(axis=1)

    def hessian(self, data: Data, curvature: Array) -> Array:
        """(p, p), in K(K + 1)/2 Gram matrices."""
        return self._assembled(data, self._pairs(curvature))

    def outer(self, data: Data, scores: Array, weight: Array) -> Array:
        """Σ weight·s sᵀ, in K² Gram matrices: a product of two classes' scores may have either sign."""
        return self._assembled(data, _products(scores, weight))

    def _assembled(self, data: Data, pairs: Iterable[tuple[int, int, float, Array]]) -> Array:
        """The sum of the blocks sign·Xᵀ diag(weight) X at (k, l), mirrored, in the order of z."""
        X, K = self.design(data), self._width
        d = X.shape[1]
        p = K * (d + self.fit_intercept)
        places = [np.append(k * d + np.arange(d), [K * d + k] * self.fit_intercept).astype(int) for k in range(K)]
        H = np.zeros((p, p))
        for k, other, sign, weight in pairs:
            block = sign * self._bordered(*X.gram_and_sums(weight), float(weight.sum()))
            H[np.ix_(places[k], places[other])] += block
            if k != other:
                H[np.ix_(places[other], places[k])] += block
        return H

    def hessian_of(self, data: Data, curvature: Array, coordinates: np.ndarray) -> Array:
        X, coordinates = self.design(data), np.asarray(coordinates, dtype=np.intp)
        d, slopes = X.shape[1], coordinates < self._width * X.shape[1]
        label = np.where(slopes, coordinates // d, coordinates - self._width * d)
        column = np.where(slopes, coordinates % d, d)  # d: the intercept, after the columns of a block
        H = np.empty((len(column), len(column)))
        for k, other, sign, weight in self._pairs(curvature):
            a, b = np.flatnonzero(label == k), np.flatnonzero(label == other)
            columns = np.unique(column[np.concatenate([a, b])])
            columns = columns[columns < d]
            block = sign * self._block_of(X, columns, weight)
            block = block[np.ix_(np.searchsorted(columns, column[a]), np.searchsorted(columns, column[b]))]
            H[np.ix_(a, b)], H[np.ix_(b, a)] = block, block.T
        return H

    @staticmethod
    def _bent(curvature: Array, delta: Array) -> Array:
        total = curvature.sum(axis=1, keepdims=True)
        mean = (curvature * delta).sum(axis=1, keepdims=True)
        out: Array = curvature * (delta - np.divide(mean, total, out=np.zeros_like(mean), where=total > 0))
        return out

    def hessian_diagonal(self, data: Data, curvature: Array) -> Array:
        X, own = self.design(data), [w for k, other, _, w in self._pairs(curvature) if k == other]
        squares = np.stack([X.squares(weight) for weight in own], axis=1)
        scale = 1.0 if self.units is None else self.units.scale[:, None]
        return self._join(squares / scale**2, np.array([weight.sum() for weight in own]))

    def _corner(self, curvature: Array) -> Array:
        K = self._width
        out = np.empty((K, K))
        for k, other, sign, weight in self._pairs(curvature):
            out[k, other] = out[other, k] = sign * weight.sum()
        return out

    def log_density(self, margins: Array, y: Array, weight: Array, dispersion: float) -> Array:
        return -weight * self.rows(margins, y).loss / dispersion

    # -- the null model --------------------------------------------------------------------------

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, Σw·[y = k] of each class met so far, then Σw·offset_k], (1 + 2K,)."""
        met = 0 if offset is None else offset.shape[1]
        K = self.n_classes or max(met, int(y.max(initial=-1.0)) + 1)
        counts = np.bincount(y.astype(np.intp), weights=weight, minlength=K)
        return np.concatenate([[weight.sum()], counts, np.zeros(K) if offset is None else weight @ offset])

    def merge_tally(self, a: Array, b: Array) -> Array:
        sides = [side[1:].reshape(2, -1) for side in (a, b)]
        out = np.zeros((2, max(side.shape[1] for side in sides)))
        for side in sides:
            out[:, : side.shape[1]] += side
        return np.append(a[0] + b[0], out)

    def learned(self, tally: Array) -> dict[str, Any]:
        K = len(tally) // 2
        if K < 2:
            raise BadData(f"every label is 0: {self._wants()}")
        return {"n_classes": K}

    def null_of(self, tally: Array, offset: bool) -> tuple[Array, float, bool]:
        total, (counts, off) = tally[0], tally[1:].reshape(2, -1)
        missing = (0, max(self._width - len(counts), 0))  # chunks that are left may lack the last classes
        counts, off = np.pad(counts, missing), np.pad(off, missing)
        if not self.fit_intercept:
            return np.zeros(len(counts)), float(total * np.log(len(counts))), not offset
        if (counts <= 0).any():
            raise BadData(
                f"no row (with a weight) has label {int(np.argmin(counts))} of the {len(counts)} classes: with a free "
                f"intercept there is no finite optimum; {ENCODE}, or pass fit_intercept=False"
            )
        b = np.log(counts) - off / total
        return b - b.mean(), float(counts @ (np.log(total) - np.log(counts))), not offset


def _products(scores: Array, weight: Array) -> Iterator[tuple[int, int, float, Array]]:
    """(k, l, sign, (n,) ≥ 0) with weight·s_k·s_l as a difference of two."""
    for k in range(scores.shape[1]):
        for other in range(k):
            product = weight * scores[:, k] * scores[:, other]
            yield k, other, 1.0, product.clip(min=0)
            yield k, other, -1.0, (-product).clip(min=0)
        yield k, k, 1.0, weight * scores[:, k] ** 2


def _log_softmax(margins: Array) -> Array:
    apart = margins - margins.max(axis=1, keepdims=True)
    out: Array = apart - np.log(np.exp(apart).sum(axis=1, keepdims=True))
    return out
