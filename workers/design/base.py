"""What a design matrix answers: products, Gram matrices and column statistics, all in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from paramserver.messages import Array

BLOCK_BYTES = 1 << 21  #: of float64 in one block: it stays in the cache between its uses


class Block(Protocol):
    """Some rows of X."""

    def dot(self, w: Array) -> Array:
        """X w for w (d,) or (d, K)."""
        ...

    def tdot(self, v: Array) -> Array:
        """Xᵀ v for v (rows,) or (rows, K)."""
        ...


class Extent(NamedTuple):
    """Each column's minimum and maximum, (d,) each; (inf, −inf) where there are no rows."""

    low: Array
    high: Array


class Moments(NamedTuple):
    """Each column's weighted mean and weighted sum of squares about it, (d,) each."""

    mean: Array
    m2: Array


class Design(ABC):
    """An (n, d) matrix of float32 or float64 that is never modified.

    float32 is widened block by block, so that every sum is one of float64. All methods are pure.
    """

    shape: tuple[int, int]

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Block]]:
        """(rows, X[rows]) in order, in pieces that stay in the cache; each is good until the next is asked for."""

    @abstractmethod
    def gram(self, weight: Array) -> Array:
        """Xᵀ diag(weight) X, (d, d), for weight (n,) ≥ 0."""

    def sums(self, weight: Array) -> Array:
        """Xᵀ weight, (d,)."""
        out = np.zeros(self.shape[1])
        for rows, X in self.blocks():
            out += X.tdot(weight[rows])
        return out

    def gram_and_sums(self, weight: Array) -> tuple[Array, Array]:
        """`gram` and `sums`, which share a pass where they can."""
        return self.gram(weight), self.sums(weight)

    @abstractmethod
    def gram_of(self, columns: np.ndarray, weight: Array) -> Array:
        """`gram` of these columns only, (a, a); nothing of size (d, d) is made."""

    def gram_and_sums_of(self, columns: np.ndarray, weight: Array) -> tuple[Array, Array]:
        """`gram_and_sums` of these columns only, (a, a) and (a,)."""
        return self.gram_of(columns, weight), self.sums(weight)[columns]

    @abstractmethod
    def squares(self, weight: Array) -> Array:
        """Σ weight_i X_ik², (d,): the diagonal of `gram`."""

    @abstractmethod
    def extent(self) -> Extent:
        """Minimum and maximum of each column; zeros that are not stored count."""

    @abstractmethod
    def moments(self, weight: Array) -> Moments:
        """Weighted mean and sum of squares about it; zeros where the total weight is 0.

        In two passes: a column of mean 1.5e9 and standard deviation 1 keeps its digits.
        """

    @abstractmethod
    def shifted(self, shift: Array) -> Design:
        """The columns less ``shift`` (d,), subtracted before anything is multiplied.

        Raises
        ------
        ValueError
            The storage cannot hold that: a shift of a column with zeros that are not stored, or of
            a categorical one.
        """

    @abstractmethod
    def take(self, rows: slice | np.ndarray) -> Design:
        """Some rows, by a slice without a copy, or by their numbers."""

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.nbytes  # what Dask asks for

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape}"


def floats(array: Any) -> np.ndarray:
    """float32 and float64 as they are, other numbers as float64."""
    out: np.ndarray = np.asarray(array)
    return out if out.dtype in (np.float32, np.float64) else out.astype(np.float64)


def tally(places: np.ndarray, terms: Array, size: int) -> Array:
    """The terms summed by place, (size,)."""
    return np.bincount(places, weights=terms, minlength=size).astype(np.float64, copy=False)  # of none: ints


def refine(about: Array, total: float, first: Array, second: Array) -> Moments:
    """Moments from Σ weight·(x − about) and Σ weight·(x − about)²: exact but for the last digits near the mean."""
    return Moments(about + first / total, np.maximum(second - first * first / total, 0.0))
