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
from paramserver.penalties import Bound

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
            self.B[:k, :k] += weight * slot["H"]
        self.h[:k] += weight * slot["h"]
        self.covered[:k] += way * slot["rows"]
        self.G += way * slot["g"]
        self.rows_seen += way * slot["rows"]

    def uncovered(self) -> Array:
        """The diagonal that stands for models which do not cover a coordinate, (a,)."""
        share = 1.0 - self.covered / self.rows
        return np.asarray(KAPPA * self.D[self.A] * share.clip(0.0))

    def outstanding(self, penalty: Bound, slack: float = 0.0) -> tuple[np.ndarray, Array]:
        """(coordinates off A whose gradient leaves no zero, by how much); with ``slack``, or nearly."""
        l1, _ = _weights(penalty)
        beyond = np.abs(self.G) - (1.0 - slack) * l1
        beyond[self.A] = 0.0
        where = np.flatnonzero(beyond > 0)
        return where, beyond[where]

    def grow(self, penalty: Bound, z: Array, limit: int) -> None:
        """Let those coordinates in that promise most; all that no l1 holds at zero first."""
        where, beyond = self.outstanding(penalty, NEAR)
        most = max(AT_ONCE, int(np.count_nonzero(z)))
        if len(where) > most:
            promise = beyond**2 / np.where(self.D[where] > 0, self.D[where], 1.0)
            where = where[np.argpartition(-promise, most)[:most]]
        l1, _ = _weights(penalty)
        self.extend([*np.setdiff1d(np.flatnonzero(l1 == 0), self.A), *np.setdiff1d(where, np.flatnonzero(l1 == 0))])
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


def _weights(penalty: Bound) -> tuple[Array, Array]:
    terms = penalty.separable()
    assert terms is not None  # `ActiveNewton.suits`
    return terms.l1, terms.l2


def full(p: int, coordinates: np.ndarray, values: Array) -> Array:
    """z from its values on some coordinates, zero on the others, (p,)."""
    out = np.zeros(p)
    out[coordinates] = values
    return out
