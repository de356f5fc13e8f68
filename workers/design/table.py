"""Numbers beside categorical columns kept as codes: one-hot encoded without the ones and zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.design.base import Design, Extent, Moments, tally
from paramserver.workers.design.dense import Dense

PIECE = 1 << 15  #: rows in a block


class TableBlock(NamedTuple):
    """Some rows."""

    table: Table

    def dot(self, w: Array) -> Array:
        table = self.table
        w = w[table.place]
        out = np.zeros((table.shape[0], *w.shape[1:]))
        for rows, block in table.numeric.blocks():
            out[rows] = block.dot(w[: table.starts[0]])
        for codes, start in table.categorical():
            out += w[start:].take(codes, axis=0)
        return out

    def tdot(self, v: Array) -> Array:
        table = self.table
        out = np.zeros((table.shape[1], *v.shape[1:]))
        for rows, block in table.numeric.blocks():
            out[: table.starts[0]] += block.tdot(v[rows])
        for c, (codes, _) in enumerate(table.categorical()):
            out[table.span(c)] = _by_level(codes, v, int(table.levels[c]))
        return out[table.order]


class Table(Design):
    """[numeric | one-hot of codes[:, 0] | one-hot of codes[:, 1] | …], its columns in any order, not expanded.

    Parameters
    ----------
    numeric : (n, a) array
    codes : (n, c) array of ints
        The level, 0 … levels[j] − 1, of each row in each categorical column.
    levels : (c,) ints
    order : (d,) ints, d = a + Σ levels, optional
        Column k is column order[k] of the above.
    names : d strings, optional
        Feature names.

    Raises
    ------
    BadData
        A code is not one of its levels, or shapes do not fit.
    """

    def __init__(
        self, numeric: Any, codes: Any, levels: Sequence[int] | np.ndarray, order: Any = None,
        names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.numeric = numeric if isinstance(numeric, Dense) else Dense(numeric)
        self.codes, self.levels = np.asarray(codes), np.asarray(levels, dtype=np.intp)
        if self.codes.dtype == np.uint64:  # which numpy neither counts nor adds to int64
            self.codes = self.codes.astype(np.int64)
        _check(self.numeric, self.codes, self.levels)
        self.starts = self.numeric.shape[1] + np.concatenate([[0], np.cumsum(self.levels)]).astype(np.intp)
        d = int(self.starts[-1])
        self.shape = (self.codes.shape[0], d)
        self.order = np.arange(d) if order is None else np.asarray(order, dtype=np.intp)
        if not np.array_equal(np.sort(self.order), np.arange(d)):
            raise BadData(f"order must hold each of 0 … {d - 1} once: the table has {d} columns")
        self.place = np.argsort(self.order)  #: where each of the columns in natural order is
        self.names = None if names is None else tuple(names)

    @property
    def nbytes(self) -> int:
        return self.numeric.nbytes + self.codes.nbytes

    def span(self, c: int) -> slice:
        """The natural columns of categorical column c."""
        return slice(int(self.starts[c]), int(self.starts[c + 1]))

    def categorical(self) -> Iterator[tuple[np.ndarray, int]]:
        """(codes (n,), its first natural column) of each categorical column."""
        for c in range(len(self.levels)):
            yield self.codes[:, c], int(self.starts[c])

    def blocks(self) -> Iterator[tuple[slice, TableBlock]]:
        for a in range(0, self.shape[0], PIECE):
            rows = slice(a, min(a + PIECE, self.shape[0]))
            yield rows, TableBlock(self.take(rows))

    def gram(self, weight: Array) -> Array:
        return self.gram_and_sums(weight)[0]

    def gram_and_sums(self, weight: Array) -> tuple[Array, Array]:
        a, d = int(self.starts[0]), self.shape[1]
        out, sums = np.zeros((d, d)), np.zeros(d)
        out[:a, :a], sums[:a] = self.numeric.gram_and_sums(weight)
        out[a:, :a], sums[a:] = self._by_numbers(weight)
        out[:a, a:] = out[a:, :a].T
        np.fill_diagonal(out[a:, a:], sums[a:])
        for c in range(len(self.levels)):
            for b in range(c):
                block = self._cross(c, b, weight)
                out[self.span(c), self.span(b)], out[self.span(b), self.span(c)] = block, block.T
        return out.take(self.order, axis=0).take(self.order, axis=1), sums[self.order]

    def _by_numbers(self, weight: Array) -> tuple[Array, Array]:
        """Each level's weighted sums of the numeric columns, (Σ levels, a), and its weight, (Σ levels,)."""
        a = int(self.starts[0])
        out = np.zeros((self.shape[1] - a, a + 1))
        for rows, X in self.numeric.pieces():
            weighed = np.empty((len(X), a + 1))
            np.multiply(X, weight[rows, None], out=weighed[:, :a])
            weighed[:, a] = weight[rows]
            ones, ends = np.ones(len(X)), np.arange(len(X) + 1, dtype=np.int32)
            for c, (codes, start) in enumerate(self.categorical()):
                # One product with sparse ones in place of a count for every numeric column.
                hot = csr_array((ones, codes[rows].astype(np.int32), ends), shape=(len(X), int(self.levels[c])))
                out[start - a : start - a + hot.shape[1]] += hot.T @ weighed
        return out[:, :a], out[:, a]

    def _cross(self, c: int, b: int, weight: Array) -> Array:
        """The weights in each pair of levels."""
        high, low = int(self.levels[c]), int(self.levels[b])
        cells = self.codes[:, c].astype(np.intp)
        cells *= low
        cells += self.codes[:, b]
        return tally(cells, weight, high * low).reshape(high, low)

    def gram_of(self, columns: np.ndarray, weight: Array) -> Array:
        wanted, back = np.unique(self.order[np.asarray(columns, dtype=np.intp)], return_inverse=True)
        small, keep = self._restricted(wanted)
        at = keep[back]
        out: Array = small.gram(weight)[np.ix_(at, at)]
        return out

    def _restricted(self, wanted: np.ndarray) -> tuple[Table, np.ndarray]:
        """A table of these natural columns (sorted), with one level more a column for all others; where they are."""
        a = int(self.starts[0])
        numbers = wanted[wanted < a]
        shift = None if self.numeric.shift is None else self.numeric.shift[numbers]
        codes, levels, keep, d = [], [], [np.arange(len(numbers))], len(numbers)
        for c, (column, start) in enumerate(self.categorical()):
            chosen = wanted[(wanted >= start) & (wanted < self.starts[c + 1])] - start
            if not len(chosen):
                continue
            new = np.full(int(self.levels[c]), len(chosen), dtype=np.intp)
            new[chosen] = np.arange(len(chosen))
            codes.append(new[column])
            levels.append(len(chosen) + 1)
            keep.append(d + np.arange(len(chosen)))
            d += levels[-1]
        columns = np.stack(codes, axis=1) if codes else np.zeros((self.shape[0], 0), dtype=np.intp)
        return Table(Dense(self.numeric.X[:, numbers], shift), columns, levels), np.concatenate(keep)

    def squares(self, weight: Array) -> Array:
        return np.concatenate([self.numeric.squares(weight), *self._counts(weight)])[self.order]

    def _counts(self, weight: Array) -> Iterator[Array]:
        for c, (codes, _) in enumerate(self.categorical()):
            yield _by_level(codes, weight, int(self.levels[c]))

    def extent(self) -> Extent:
        low, high = self.numeric.extent()
        n = self.shape[0]
        counts = np.concatenate([np.zeros(0), *self._counts(np.ones(n))])
        lows = np.where(counts == n, 1.0, 0.0) if n else np.full(len(counts), np.inf)
        highs = np.where(counts > 0, 1.0, 0.0) if n else np.full(len(counts), -np.inf)
        return Extent(np.concatenate([low, lows])[self.order], np.concatenate([high, highs])[self.order])

    def moments(self, weight: Array) -> Moments:
        total = float(weight.sum())
        if not total > 0:
            return Moments(np.zeros(self.shape[1]), np.zeros(self.shape[1]))
        mean, m2 = self.numeric.moments(weight)
        means, squares = [mean], [m2]
        for inside in self._counts(weight):
            whole = inside.sum()  # of these very sums: a column of one level has mean 1 and no spread
            means.append(inside / whole)
            squares.append(inside * (whole - inside) / whole)
        return Moments(np.concatenate(means)[self.order], np.concatenate(squares)[self.order])

    def shifted(self, shift: Array) -> Table:
        shift = np.asarray(shift, dtype=np.float64)
        natural = shift[self.place]
        if natural[self.starts[0] :].any():
            column = int(self.place[int(self.starts[0]) + int(np.argmax(natural[self.starts[0] :] != 0))])
            raise ValueError(f"column {column} is a level of a categorical column: it cannot be shifted")
        return self._like(self.numeric.shifted(natural[: self.starts[0]]), self.codes)

    def take(self, rows: slice | np.ndarray) -> Table:
        return self._like(self.numeric.take(rows), self.codes[rows])

    def _like(self, numeric: Dense, codes: np.ndarray) -> Table:
        """Other rows or another shift; not checked again."""
        out = object.__new__(Table)
        out.__dict__.update(self.__dict__, numeric=numeric, codes=codes, shape=(codes.shape[0], self.shape[1]))
        return out


def _by_level(codes: np.ndarray, v: Array, levels: int) -> Array:
    """The sum of v (n,) or (n, K) over the rows of each level, (levels,) or (levels, K)."""
    if v.ndim == 1:
        return tally(codes, v, levels)
    out = np.empty((levels, v.shape[1]))
    for k in range(v.shape[1]):
        out[:, k] = tally(codes, v[:, k], levels)
    return out


def _check(numeric: Dense, codes: np.ndarray, levels: np.ndarray) -> None:
    if codes.ndim != 2 or codes.dtype.kind not in "iu":
        raise BadData(f"codes must be whole numbers (rows, columns), got {codes.dtype} of shape {codes.shape}")
    if codes.shape != (numeric.shape[0], len(levels)):
        raise BadData(
            f"codes have shape {codes.shape} where numeric has {numeric.shape[0]} rows "
            f"and levels has {len(levels)} entries"
        )
    bad = (codes < 0) | (codes >= levels)
    if bad.any():
        row, column = (int(k) for k in np.argwhere(bad)[0])
        raise BadData(
            f"row {row} has code {codes[row, column]} in categorical column {column}, which has "
            f"{levels[column]} levels, 0 … {levels[column] - 1}: encode it with these levels"
        )
