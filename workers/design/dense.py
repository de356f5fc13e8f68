"""Rows in one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.workers.design.base import BLOCK_BYTES, Design, Extent, Moments, floats, refine


class DenseBlock(NamedTuple):
    """Some rows as float64."""

    X: Array

    def dot(self, w: Array) -> Array:
        return self.X @ w

    def tdot(self, v: Array) -> Array:
        return self.X.T @ v  # type: ignore[no-any-return]


class Dense(Design):
    """An array (n, d), less a shift of its columns.

    Parameters
    ----------
    X : (n, d) array
    shift : (d,) array, optional
    """

    def __init__(self, X: Any, shift: Array | None = None) -> None:
        self.X, self.shift = floats(X), shift
        self.shape = (self.X.shape[0], self.X.shape[1])

    @property
    def nbytes(self) -> int:
        return self.X.nbytes

    def blocks(self) -> Iterator[tuple[slice, DenseBlock]]:
        for rows, X in self._pieces():
            yield rows, DenseBlock(X)

    def _pieces(self, columns: np.ndarray | None = None) -> Iterator[tuple[slice, Array]]:
        n, d = self.shape if columns is None else (self.shape[0], len(columns))
        size = max(256, BLOCK_BYTES // (8 * max(d, 1)))
        moved = np.flatnonzero(self.shift if columns is None else self.shift[columns]) if self.shift is not None else ()
        for a in range(0, n, size):
            rows = slice(a, min(a + size, n))
            X = self.X[rows] if columns is None else self.X[rows, columns]
            if len(moved):
                assert self.shift is not None
                X = X.astype(np.float64)  # a copy; before the subtraction: 1.5e9 has no digits to lose in float32
                X[:, moved] -= (self.shift if columns is None else self.shift[columns])[moved]
            yield rows, np.asarray(X, dtype=np.float64)

    def gram(self, weight: Array) -> Array:
        return self._gram(weight)[0]

    def gram_and_sums(self, weight: Array) -> tuple[Array, Array]:
        return self._gram(weight)

    def gram_of(self, columns: np.ndarray, weight: Array) -> Array:
        return self._gram(weight, np.asarray(columns, dtype=np.intp))[0]

    def _gram(self, weight: Array, columns: np.ndarray | None = None) -> tuple[Array, Array]:
        d = self.shape[1] if columns is None else len(columns)
        out, sums, root = np.zeros((d, d)), np.zeros(d), np.sqrt(weight)
        for rows, X in self._pieces(columns):
            S = X * root[rows, None]
            out += S.T @ S  # one array on both sides: BLAS syrk, half the work
            sums += root[rows] @ S
        return out, sums

    def squares(self, weight: Array) -> Array:
        out = np.zeros(self.shape[1])
        for rows, X in self._pieces():
            out += weight[rows] @ (X * X)
        return out

    def extent(self) -> Extent:
        low, high = np.full(self.shape[1], np.inf), np.full(self.shape[1], -np.inf)
        for _, X in self._pieces():
            np.minimum(low, X.min(axis=0), out=low)
            np.maximum(high, X.max(axis=0), out=high)
        return Extent(low, high)

    def moments(self, weight: Array) -> Moments:
        total, d = float(weight.sum()), self.shape[1]
        if not total > 0:
            return Moments(np.zeros(d), np.zeros(d))
        # The first pass is about the first row: a constant column has exactly its mean, and no spread.
        about = next(self._pieces())[1][0].copy()
        first, second = np.zeros(d), np.zeros(d)
        for rows, X in self._pieces():
            first += weight[rows] @ (X - about)
        about += first / total
        first[:] = 0.0
        for rows, X in self._pieces():
            apart = X - about
            first += weight[rows] @ apart
            second += weight[rows] @ (apart * apart)
        return refine(about, total, first, second)

    def shifted(self, shift: Array) -> Dense:
        shift = np.asarray(shift, dtype=np.float64)
        return Dense(self.X, shift if self.shift is None else self.shift + shift)

    def take(self, rows: slice | np.ndarray) -> Dense:
        return Dense(self.X[rows], self.shift)
