"""The server's sums for `ActiveNewton`: models on a working set of coordinates, gradients on all.

The working set A is a list that only grows, so that a chunk's model, made when A had k
coordinates, is the leading (k, k) block of a model on all of A. Coordinates that a chunk's model
does not cover yet count with `KAPPA` times the diagonal of its Hessian at the null model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from paramserver.consensus.anchors import Anchored
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound, Terms

KAPPA = 4.0
AT_ONCE = 512  #: coordinates that may join at one z, or as many as are not zero
NEAR = 0.01  #: a gradient within this share of l1 joins too: it may be beyond it by the next sweep


@dataclass
class ActiveState(Anchored):
    """Sums over the slots; a slot's model counts σ times."""

    A: np.ndarray  #: (a,) coordinates of z
    B: Array  #: Σ σH, (a, a)
    h: Array  #: Σ σHx, (a,)
    covered: Array  #: rows of the chunks whose model covers each coordinate of A, (a,)
    G: Array  #: Σ g, (p,)
    D: Array  #: Σ diagonals of the Hessians at the null model, (p,)
    null: Array
    rows: float  #: of all chunks
    rows_seen: float
    n_chunks: int
    remote: bool = False  #: chunks' Hessians are no longer kept here
    stiff: float = 1.0  #: on all of B, where a chunk's own σ cannot be

    @property
    def k(self) -> int:
        return len(self.A)

    def add(self, slot: Fields, way: float, model: bool = True) -> None:
        """A slot's part of the sums, or with ``way`` −1 less it; without ``model`` B stays."""
        k, weight = len(slot["h"]), way * slot["sigma"]
        if model and "H" in slot:
            accumulate(self.B[:k, :k], slot["H"], weight)
        accumulate(self.h[:k], slot["h"], weight)
        accumulate(self.G, slot["g"], way)
        self.covered[:k] += way * slot["rows"]
        self.rows_seen += way * slot["rows"]

    def uncovered(self) -> Array:
        """The diagonal that stands for models which do not cover a coordinate, (a,)."""
        share = 1.0 - self.covered / self.rows
        return np.asarray(KAPPA * self.D[self.A] * share.clip(0.0))

    def outstanding(self, penalty: Bound, slack: float = 0.0) -> tuple[np.ndarray, Array]:
        """(coordinates off A whose gradient leaves no zero, by how much); with ``slack``, or nearly."""
        least, greatest = terms_of(penalty).interval(np.zeros_like(self.G))
        kept = 1.0 - slack
        beyond = np.maximum(-self.G - kept * greatest, kept * least + self.G).clip(0.0)
        beyond[self.A] = 0.0
        where = np.flatnonzero(beyond > 0)
        return where, beyond[where]

    def grow(self, penalty: Bound, z: Array, limit: int) -> None:
        """Let those coordinates in that promise most; all that nothing holds at zero first."""
        where, beyond = self.outstanding(penalty, NEAR)
        most = max(AT_ONCE, int(np.count_nonzero(z)))
        if len(where) > most:
            promise = beyond**2 / np.where(self.D[where] > 0, self.D[where], 1.0)
            where = where[np.argpartition(-promise, most)[:most]]
        always = np.flatnonzero(never_zero(penalty))
        self.extend([*np.setdiff1d(always, self.A), *np.setdiff1d(where, always)])
        self.remote = self.remote or self.n_chunks * self.k**2 * 8 > limit

    def extend(self, more: Iterable[int]) -> None:
        """Append coordinates."""
        new = np.asarray(list(more), dtype=np.int64)
        if not len(new):
            return
        a, k = self.k + len(new), self.k
        B = np.zeros((a, a))
        B[:k, :k] = self.B
        zeros = np.zeros(len(new))
        self.A, self.B = np.concatenate([self.A, new]), B
        self.h, self.covered = np.concatenate([self.h, zeros]), np.concatenate([self.covered, zeros])


def accumulate(total: Array, value: Array, weight: float) -> None:
    """Add weight·value in place; most weights are ±1, which need no product of the value's size."""
    if weight == 1.0:
        total += value
    elif weight == -1.0:
        total -= value
    else:
        total += weight * value


def terms_of(penalty: Bound) -> Terms:
    """The form of a separable penalty."""
    terms = penalty.separable()
    assert terms is not None  # `ActiveNewton.suits`
    return terms


def never_zero(penalty: Bound) -> np.ndarray:
    """Mask (p,) of the coordinates that neither an L1 term nor a bound can hold at zero."""
    terms = terms_of(penalty)
    least, greatest = terms.interval(np.zeros_like(terms.l1))
    return np.asarray((least >= greatest) | (terms.lower > 0) | (terms.upper < 0))


def full(p: int, coordinates: np.ndarray, values: Array) -> Array:
    """z from its values on some coordinates, zero on the others, (p,)."""
    out = np.zeros(p)
    out[coordinates] = values
    return out
