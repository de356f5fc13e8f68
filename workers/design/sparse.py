"""Rows of stored entries: compressed sparse rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from paramserver.messages import Array
from paramserver.workers.design.base import BLOCK_BYTES, Design, Extent, Moments, refine, tally
from paramserver.workers.design.dense import GRAM_ROWS

PIECE = BLOCK_BYTES // 6  #: entries in a block that is widened, 12 bytes each: twice a dense block
PER_COLUMN = 4  #: entries in a block, at least, for each column: Xᵀv of a block is a dense (d,) vector
#: A pair of entries of a row costs the sparse product 5 ns, a cell of n·d² the dense one 0.045 ns (one thread)
PAIR = 110.0


class Chosen(NamedTuple):
    """Some columns as float64."""

    columns: np.ndarray
    X: Any
    distinct: bool

    def hold(self, w: Array) -> bool:
        """Whether w is zero in all other columns."""
        return self.distinct and w.ndim == 1 and np.count_nonzero(w) == np.count_nonzero(w[self.columns])


class SparseBlock(NamedTuple):
    """Some rows as float64."""

    X: Any
    chosen: Chosen | None = None

    def dot(self, w: Array) -> Array:
        if self.chosen is not None and self.chosen.hold(w):
            return self.chosen.X @ w[self.chosen.columns]  # type: ignore[no-any-return]
        return self.X @ w  # type: ignore[no-any-return]

    def tdot(self, v: Array) -> Array:
        return self.X.T @ v  # type: ignore[no-any-return]


class Sparse(Design):
    """Canonical CSR: sorted indices, no duplicates; less a shift of the columns that are stored in full.

    Parameters
    ----------
    X : (n, d) csr_array of float32 or float64
        From `as_design`, which makes any scipy matrix so.
    shift : (d,) array, optional
        Zero in every column with an implicit zero.
    """

    def __init__(self, X: Any, shift: Array | None = None) -> None:
        self.X, self.shift = X, shift
        self.shape = (int(X.shape[0]), int(X.shape[1]))
        self._chosen: Chosen | None = None  #: the last columns asked for: a working set serves many passes

    @property
    def nbytes(self) -> int:
        return int(self.X.data.nbytes + self.X.indices.nbytes + self.X.indptr.nbytes)

    def blocks(self) -> Iterator[tuple[slice, SparseBlock]]:
        if self._is_wide:  # as it is: a slice of it would be a copy, and that takes longer than a product
            yield slice(0, self.shape[0]), SparseBlock(self.X, self._chosen)
            return
        for rows in self._cuts(max(PIECE, PER_COLUMN * self.shape[1])):
            whole = rows == slice(0, self.shape[0])  # which a slice would copy
            yield rows, SparseBlock(_wide(self.X if whole else self.X[rows], self.shift))

    @property
    def _is_wide(self) -> bool:
        return self.X.dtype == np.float64 and self.shift is None

    def _cuts(self, entries: int) -> Iterator[slice]:
        """Rows of about so many entries."""
        n, indptr = self.shape[0], self.X.indptr
        a = 0
        while a < n:
            b = int(np.searchsorted(indptr, int(indptr[a]) + entries, side="right")) - 1
            b = min(max(b, a + 1), a + entries, n)  # rows without an entry are work too
            yield slice(a, b)
            a = b

    def gram(self, weight: Array) -> Array:
        return _gram(_wide(self.X, self.shift), weight)

    def gram_of(self, columns: np.ndarray, weight: Array) -> Array:
        return _gram(self._of(columns), weight)

    def gram_and_sums_of(self, columns: np.ndarray, weight: Array) -> tuple[Array, Array]:
        X = self._of(columns)
        return _gram(X, weight), X.T @ weight

    def _of(self, columns: np.ndarray) -> Any:
        """These columns as float64."""
        if self._chosen is None or not np.array_equal(self._chosen.columns, columns):
            columns = np.array(columns, dtype=np.intp)
            X = _wide(self.X[:, columns], None if self.shift is None else self.shift[columns])
            self._chosen = Chosen(columns, X, len(np.unique(columns)) == len(columns))
        return self._chosen.X

    def squares(self, weight: Array) -> Array:
        X = _wide(self.X, self.shift)
        return _like(X, X.data * X.data).T @ weight  # type: ignore[no-any-return]

    def extent(self) -> Extent:
        low, high = np.full(self.shape[1], np.inf), np.full(self.shape[1], -np.inf)
        X = _wide(self.X, self.shift).tocsc()
        counts = np.diff(X.indptr)
        used = np.flatnonzero(counts)
        if len(used):
            low[used] = np.minimum.reduceat(X.data, X.indptr[used])
            high[used] = np.maximum.reduceat(X.data, X.indptr[used])
        holes = counts < self.shape[0]
        low[holes], high[holes] = np.minimum(low[holes], 0.0), np.maximum(high[holes], 0.0)
        return Extent(low, high)

    def moments(self, weight: Array) -> Moments:
        total, d = float(weight.sum()), self.shape[1]
        if not total > 0:
            return Moments(np.zeros(d), np.zeros(d))
        X = _wide(self.X, self.shift)
        each, seen = np.repeat(weight, np.diff(X.indptr)), weight > 0
        # Counted, not summed: the weight of a full column's missing rows is 0, not a rounding error.
        full = self._sums(np.repeat(seen.astype(float), np.diff(X.indptr))) == np.count_nonzero(seen)
        missing = np.where(full, 0.0, np.maximum(total - self._sums(each), 0.0))
        about = np.where(full, X[[int(np.argmax(seen))]].toarray()[0], 0.0)
        about += self._sums(each * (X.data - about[X.indices])) / total
        apart = X.data - about[X.indices]
        first = self._sums(each * apart) - missing * about
        second = self._sums(each * apart * apart) + missing * about * about
        return refine(about, total, first, second)

    def shifted(self, shift: Array) -> Sparse:
        shift = np.asarray(shift, dtype=np.float64)
        bad = (shift != 0) & (self._counts() < self.shape[0])
        if bad.any():
            column = int(np.argmax(bad))
            raise ValueError(f"column {column} has zeros that are not stored: a shift of it would fill them")
        return Sparse(self.X, shift if self.shift is None else self.shift + shift)

    def take(self, rows: slice | np.ndarray) -> Sparse:
        return Sparse(self.X[rows], self.shift)

    def _counts(self) -> np.ndarray:
        """Stored entries of each column, (d,)."""
        return np.bincount(self.X.indices, minlength=self.shape[1])

    def _sums(self, terms: Array) -> Array:
        """One term an entry, summed by column, (d,)."""
        return tally(self.X.indices, terms, self.shape[1])


def _wide(X: Any, shift: Array | None) -> Any:
    """The same entries as float64, less the shift."""
    if X.dtype == np.float64 and shift is None:
        return X
    values = X.data.astype(np.float64)
    if shift is not None:
        values -= shift[X.indices]
    return _like(X, values)


def _like(X: Any, values: Array) -> Any:
    """Other values in the places of X's."""
    return csr_array((values, X.indices, X.indptr), shape=X.shape)


def _gram(X: Any, weight: Array) -> Array:
    """Xᵀ diag(weight) X by a sparse product, or densified where rows are so full that this is cheaper."""
    n, d = X.shape
    lengths, root = np.diff(X.indptr), np.sqrt(weight)
    S = _like(X, X.data * np.repeat(root, lengths))
    if PAIR * float((lengths.astype(np.float64) ** 2).sum()) <= n * float(d) ** 2:
        return (S.T.tocsr() @ S).toarray()  # type: ignore[no-any-return]
    return _densified(S)


def _densified(S: Any) -> Array:
    """SᵀS, block by block."""
    n, d = S.shape
    out = np.zeros((d, d))
    size = max(GRAM_ROWS, BLOCK_BYTES // (32 * max(d, 1)))
    for a in range(0, n, size):
        rows = S[a : a + size].toarray()
        out += rows.T @ rows
    return out
