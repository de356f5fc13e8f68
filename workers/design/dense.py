"""Rows in one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.workers.design.base import BLOCK_BYTES, Design, Extent, Moments, floats, refine

#: In a block of `gram`, at least: few enough for the cache, enough for BLAS, whose syrk is slow at multiples of 256
GRAM_ROWS = 704
#: Columns between which one dot product a row reads memory twice as fast as BLAS's product with a matrix (numpy ≥ 2)
BY_ROW = range(32, 1025) if hasattr(np, "vecdot") else range(0)


class DenseBlock(NamedTuple):
    """Some rows as float64."""

    X: Array

    def dot(self, w: Array) -> Array:
        if w.ndim == 1 and len(w) in BY_ROW and self.X.strides[1] == self.X.itemsize:
            return np.vecdot(self.X, w)  # type: ignore[no-any-return]
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
        for rows, X in self.pieces():
            yield rows, DenseBlock(X)

    def pieces(self, size: int = 0, columns: np.ndarray | None = None) -> Iterator[tuple[slice, Array]]:
        """Rows as aligned float64, less the shift: views where that is what is stored, or else in one buffer.

        What came over a wire may lie at odd addresses: numpy is ten times slower there.
        """
        n, d = self.shape if columns is None else (self.shape[0], len(columns))
        size = size or max(256, BLOCK_BYTES // (8 * max(d, 1)))
        shift = self.shift if self.shift is None or columns is None else self.shift[columns]
        moved = () if shift is None else np.flatnonzero(shift)
        ready = self.X.dtype == np.float64 and self.X.flags.aligned and not len(moved)
        buffer = None if ready else np.empty((min(size, n), d))
        for a in range(0, n, size):
            rows = slice(a, min(a + size, n))
            X = self.X[rows] if columns is None else self.X[rows].take(columns, axis=1)
            if buffer is not None:
                buffer[: len(X)] = X  # before the subtraction: 1.5e9 has no digits to lose in float32
                X = buffer[: len(X)]
            if len(moved):
                assert shift is not None
                X[:, moved] -= shift[moved]
            yield rows, X

    def _stored(self, size: int) -> Iterator[np.ndarray]:
        """Rows as they are stored, aligned."""
        if not self.X.flags.aligned:
            yield from (X for _, X in Dense(self.X).pieces(size))
            return
        for a in range(0, len(self.X), size):
            yield self.X[a : a + size]

    def gram(self, weight: Array) -> Array:
        return self._gram(weight)[0]

    def gram_and_sums(self, weight: Array) -> tuple[Array, Array]:
        return self._gram(weight)

    def gram_of(self, columns: np.ndarray, weight: Array) -> Array:
        return self._gram(weight, np.asarray(columns, dtype=np.intp))[0]

    def _gram(self, weight: Array, columns: np.ndarray | None = None) -> tuple[Array, Array]:
        d = self.shape[1] if columns is None else len(columns)
        size = max(GRAM_ROWS, BLOCK_BYTES // (32 * max(d, 1)))
        out, sums, root = np.zeros((d, d)), np.zeros(d), np.sqrt(weight)
        even = bool((root == 1.0).all())
        buffer = np.empty((0 if even else min(size, len(root)), d))
        for rows, X in self.pieces(size, columns):
            S = X if even else np.multiply(X, root[rows, None], out=buffer[: len(X)])
            out += S.T @ S  # one array on both sides: BLAS syrk, half the work
            sums += root[rows] @ S
        return out, sums

    def squares(self, weight: Array) -> Array:
        out = np.zeros(self.shape[1])
        for rows, X in self.pieces():
            out += weight[rows] @ (X * X)
        return out

    def extent(self) -> Extent:
        low = high = self.X
        size = max(min(BLOCK_BYTES // (8 * self.X.itemsize * max(self.shape[1], 1)), 2048), 1)
        # Many rows against as many: numpy is slow at short ones.
        if self.X.strides[1] == self.X.itemsize and len(self.X) > size:
            low, high = self.X[:size].copy(), self.X[:size].copy()
            for X in self._stored(size):
                for fold, out in ((np.minimum, low[: len(X)]), (np.maximum, high[: len(X)])):
                    fold(out, X, out=out)
        # Subtracted last: rounding keeps order.
        shift = 0.0 if self.shift is None else self.shift
        return Extent(
            low.min(axis=0, initial=np.inf).astype(np.float64) - shift,
            high.max(axis=0, initial=-np.inf).astype(np.float64) - shift,
        )

    def moments(self, weight: Array) -> Moments:
        total, d = float(weight.sum()), self.shape[1]
        if not total > 0:
            return Moments(np.zeros(d), np.zeros(d))
        # The first pass is about the first row: a constant column has exactly its mean, and no spread.
        about = next(self.pieces())[1][0].copy()
        first, second = np.zeros(d), np.zeros(d)
        for rows, X in self.pieces():
            first += weight[rows] @ (X - about)
        about += first / total
        first[:] = 0.0
        for rows, X in self.pieces():
            apart = X - about
            first += weight[rows] @ apart
            second += weight[rows] @ (apart * apart)
        return refine(about, total, first, second)

    def shifted(self, shift: Array) -> Dense:
        shift = np.asarray(shift, dtype=np.float64)
        return Dense(self.X, shift if self.shift is None else self.shift + shift)

    def take(self, rows: slice | np.ndarray) -> Dense:
        return Dense(self.X[rows], self.shift)
