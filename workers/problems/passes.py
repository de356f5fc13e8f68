"""Passes over the rows of losses of a margin: m = Xᵀw + b + offset, one margin a row, or K (`Multinomial`).

One pass over a block of rows that stays in the cache gives margins, losses and gradient; the storage
of X is `paramserver.workers.design`'s.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.workers.design import Design
from paramserver.workers.problems.base import Evaluation, Problem
from paramserver.workers.problems.units import Units

PIECE = 4096  #: rows whose losses are made at once
LARGEST = 1e200  #: losses beyond count as infinite: products with their derivatives would overflow


class Rows(NamedTuple):
    """Unweighted losses (n,), first and second derivatives by margin, (n,) or (n, K)."""

    loss: Array
    first: Array
    second: Array


@dataclass
class Data:
    """One chunk: design (n, d), y (n,), weight (n,) or None, offset (n,), (n, K) or None."""

    X: Design
    y: Array
    weight: Array | None = None
    offset: Array | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.y)

    @property
    def weights(self) -> Array:
        """(n,), ones where none were given."""
        return np.ones(self.rows) if self.weight is None else self.weight

    def take(self, rows: np.ndarray) -> Data:
        """These rows alone."""
        weight, offset = (None if part is None else part[rows] for part in (self.weight, self.offset))
        return Data(self.X.take(rows), self.y[rows], weight, offset)

    def extent(self) -> tuple[Array, Array]:
        """Smallest and largest value of each column, looked for once."""
        if "extent" not in self.memo:
            self.memo["extent"] = self.X.extent()
        out: tuple[Array, Array] = self.memo["extent"]
        return out


@dataclass(frozen=True)
class Passes(Problem):
    """What `rows` and `fenchel_rows` of a loss make of a chunk; z = (w, b) in the units of the fit."""

    curved: ClassVar[bool] = True
    samples: ClassVar[bool] = True

    fit_intercept: bool = field(default=True, kw_only=True)
    standardize: bool = field(default=False, kw_only=True)
    #: What the survey of all chunks said; z is in these units.
    units: Units | None = field(default=None, kw_only=True, repr=False, compare=False)

    @abstractmethod
    def rows(self, margins: Array, y: Array) -> Rows:
        """Losses and derivatives at the margins, (n,) each."""

    @abstractmethod
    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        """ℓ(m) + ℓ*(θ) − θ·m per row at m = margins + moved, θ = ℓ' + ℓ''·delta at the margins.

        inf where θ leaves the domain. In place of ℓ*(θ), which may have no closed form, any bound of it
        from above will do, if it depends on θ alone and not on ``moved``.
        """

    @property
    def margins_per_row(self) -> int | None:
        """1, or K; None where only the data will tell."""
        return 1

    # -- z and its units -------------------------------------------------------------------------

    def penalised(self, p: int) -> np.ndarray:
        mask = np.ones(p, bool)
        if self.fit_intercept:
            mask[p - self._width :] = False
        return mask

    def size(self, n_columns: int) -> int | None:
        width = self.margins_per_row
        return None if width is None else (n_columns + self.fit_intercept) * width

    @property
    def _width(self) -> int:
        return self.margins_per_row or 1

    def _split(self, z: Array) -> tuple[Array, Any]:
        """(W (d,) or (d, K), b) in the units of z."""
        if not self.fit_intercept:
            return z, 0.0
        return z[:-1], z[-1]

    def _join(self, W: Array, b: Any) -> Array:
        """The inverse of `_split`."""
        return np.append(W, b) if self.fit_intercept else W

    def _plain(self, z: Array) -> tuple[Array, Any]:
        """(W, b) for the shifted, unscaled columns that the passes work on."""
        W, b = self._split(z)
        return (W, b) if self.units is None else (self.units.coef(W), b)

    def _flat(self, W: Array, b: Any) -> Array:
        """A gradient in the units of z, from one for the shifted columns."""
        return self._join(W if self.units is None else self.units.coef(W), b)

    def unpack(self, z: Array) -> tuple[Array, Any]:
        W, b = self._split(self.outward(z))
        return W.T, (b if np.ndim(b) else float(b))

    def outward(self, z: Array) -> Array:
        if self.units is None:
            return z
        W, b = self._plain(z)
        return self._join(W, b - self.units.below(W))

    def inward(self, z: Array) -> Array:
        if self.units is None:
            return z
        W, b = self._split(z)
        return self._join(self.units.coef_inward(W), b + self.units.below(W))

    def outward_dual(self, y: Array) -> Array:
        if self.units is None:
            return y
        W, b = self._split(y)
        W = self.units.coef_inward(W)
        return self._join((W.T + np.multiply.outer(b, self.units.shift)).T if self.fit_intercept else W, b)

    # -- passes over the rows --------------------------------------------------------------------

    def design(self, data: Data) -> Design:
        """The chunk's columns, less the shift."""
        return data.X if self.units is None or not self.units.shift.any() else data.X.shifted(self.units.shift)

    @staticmethod
    def _offset(data: Data, margins: Array, rows: slice = slice(None)) -> Array:
        return margins if data.offset is None else margins + data.offset[rows]

    def _weighed(self, data: Data, rows: slice, margins: Array) -> Rows:
        """`rows` of these rows, times their weights, a few at a time: what they need stays in the cache."""
        n, start = len(margins), rows.start or 0
        if n <= PIECE:
            return self._some(data, rows, margins)
        out = Rows(np.empty(n), np.empty_like(margins), np.empty_like(margins))
        for a in range(0, n, PIECE):
            piece = slice(a, min(a + PIECE, n))
            at = self._some(data, slice(start + piece.start, start + piece.stop), margins[piece])
            out.loss[piece], out.first[piece], out.second[piece] = at
        return out

    def _some(self, data: Data, rows: slice, margins: Array) -> Rows:
        """`rows` of these rows, times their weights; margins that no weight counts may overflow."""
        with np.errstate(over="ignore"):
            at = self.rows(margins, data.y[rows])
        if data.weight is None:
            return at
        weight = data.weight[rows]
        loss, first, second = (counting(part, weight) for part in at)
        return Rows(loss * weight, (first.T * weight).T, (second.T * weight).T)

    def linear(self, data: Data, z: Array) -> Array:
        """Margins without the offset, (n,) or (n, K)."""
        W, b = self._plain(z)
        out = np.empty((data.rows, *W.shape[1:]))
        for rows, X in self.design(data).blocks():
            out[rows] = X.dot(W) + b
        return out

    def margins(self, data: Data, z: Array) -> Array:
        """Xw + b + offset, (n,) or (n, K); those in ``data.memo``, where they are of this z."""
        at, known = data.memo.get("margins", (None, None))
        if known is not None and np.array_equal(at, z):
            return known  # type: ignore[no-any-return]
        return self._offset(data, self.linear(data, z))

    def evaluate(self, data: Data, z: Array) -> Evaluation:
        """Value, gradient, curvatures and margins in one pass over X."""
        W, b = self._plain(z)
        value, gradient, free = 0.0, np.zeros_like(W), np.zeros(W.shape[1:])
        margins, curvature = (np.empty((data.rows, *W.shape[1:])) for _ in range(2))  # either may be kept alone
        for rows, X in self.design(data).blocks():
            margins[rows] = self._offset(data, X.dot(W) + b, rows)
            at = self._weighed(data, rows, margins[rows])
            value += float(at.loss.sum())
            if not value <= LARGEST:  # what is left of the sums would only warn
                return Evaluation(np.inf, self._flat(gradient, free), curvature)
            gradient += X.tdot(at.first)
            free = free + at.first.sum(axis=0)
            curvature[rows] = at.second
        return Evaluation(value, self._flat(gradient, free), curvature, margins)

    def sample(self, data: Data, every: int) -> Data:
        """One row of every so many in a row, drawn, the same at every call."""
        if "sample" not in data.memo:
            starts = np.arange(0, data.rows, every)
            drawn = np.random.default_rng(data.rows).integers(0, every, len(starts))
            data.memo["sample"] = data.take(np.minimum(starts + drawn, data.rows - 1))
        out: Data = data.memo["sample"]
        return out

    def batch(self, data: Data, rows: int, seed: tuple[int, ...]) -> Data:
        """So many of the rows, without replacement."""
        drawn = np.random.default_rng((*seed, data.rows)).choice(data.rows, rows, replace=False)
        drawn.sort()  # in the order of memory
        return data.take(drawn)

    def curvature(self, data: Data, z: Array) -> Array:
        """The weighted losses' second derivatives at z, (n,)."""
        return self._weighed(data, slice(None), self.margins(data, z)).second

    def hessian(self, data: Data, curvature: Array) -> Array:
        """XᵀDX with the intercept's row and column, (p, p)."""
        X = self.design(data)
        return self._bordered(*X.gram_and_sums(curvature), float(curvature.sum()))

    def hessian_of(self, data: Data, curvature: Array, coordinates: np.ndarray) -> Array:
        """`hessian` of these coordinates of z alone, (k, k); nothing of size (p, p) is made."""
        X, coordinates = self.design(data), np.asarray(coordinates, dtype=np.intp)
        slopes = np.flatnonzero(coordinates < X.shape[1])
        block = self._block_of(X, coordinates[slopes], curvature, slopes)
        return block[: len(coordinates), : len(coordinates)]

    def _block_of(self, X: Design, columns: np.ndarray, weight: Array, places: np.ndarray | None = None) -> Array:
        """`_bordered` of these columns."""
        return self._bordered(*X.gram_and_sums_of(columns, weight), float(weight.sum()), columns, places)

    def _bordered(
        self, H: Array, edge: Array, corner: float, columns: Any = slice(None), places: np.ndarray | None = None
    ) -> Array:
        """A Hessian block in the units of z, with the intercept's row and column where there is one.

        The columns are at ``places``, or first; the intercept is where there is none.
        """
        if self.units is not None:
            scale = self.units.scale[columns]
            H = H / scale / scale[:, None]
            edge = edge / scale
        if not self.fit_intercept:
            return H
        k = len(edge)
        on = np.arange(k) if places is None else places
        off = np.setdiff1d(np.arange(k + 1), on)
        out = np.empty((k + 1, k + 1))
        out[np.ix_(on, on)] = H
        out[off, on] = out[on, off] = edge
        out[off, off] = corner
        return out

    def hessian_diagonal(self, data: Data, curvature: Array) -> Array:
        """diag(XᵀDX), (p,)."""
        squares = self.design(data).squares(curvature)
        return self._join(squares if self.units is None else squares / self.units.scale**2, curvature.sum())

    def line(self, data: Data, z: Array, step: Array, ts: Array) -> Array:
        """Values at z + t·step for every t, in one pass: margins are linear in t."""
        at, along = self.margins(data, z), self.linear(data, step)
        return np.array([float(self._weighed(data, slice(None), at + t * along).loss.sum()) for t in ts])

    def fenchel(
        self, data: Data, z: Array, step: Array, move: Array | None = None, kept: Array | None = None
    ) -> tuple[float, float]:
        """The losses' share of the duality gap at z + move for the dual that ``step`` leads to, and the losses.

        With the weighted curvatures ``kept`` of a Hessian made elsewhere, θ = ℓ' + kept·δ: that is ℓ' + ℓ''·δ
        for a δ of another length.
        """
        at, delta = self.margins(data, z), self.linear(data, step)
        moved = np.zeros_like(at) if move is None else self.linear(data, move)
        with np.errstate(over="ignore", invalid="ignore"):
            if kept is not None:
                delta = delta * ratios(kept, self._weighed(data, slice(None), at).second)
            terms = self.fenchel_rows(at, data.y, delta, moved)
        if data.weight is not None:
            terms = counting(terms, data.weight) * data.weight
        total = float(terms.sum())
        loss = self._weighed(data, slice(None), at + moved).loss.sum()
        return np.inf if np.isnan(total) else total, float(loss)

    def dual(self, data: Data, z: Array, step: Array, kept: Array | None = None) -> Array:
        """Xᵀθ, (p,), for `fenchel`'s θ, the weights counted."""
        at = self._weighed(data, slice(None), self.margins(data, z))
        theta = at.first + self._bent(at.second if kept is None else kept, self.linear(data, step))
        out = np.zeros_like(self._plain(z)[0])
        for rows, X in self.design(data).blocks():
            out += X.tdot(theta[rows])
        return self._flat(out, theta.sum(axis=0))

    @staticmethod
    def _bent(curvature: Array, delta: Array) -> Array:
        """ℓ''·δ by row."""
        return curvature * delta

    def without(self, data: Data, z: Array, step: Array, small: float) -> Data:
        """The chunk less rows that ``step`` moves by 0.4 margins or more, or whose loss at z is at most ``small``.

        Losses are ≥ 0, so that what bounds F* for the other rows bounds it for all.
        """
        loss = self._weighed(data, slice(None), self.margins(data, z)).loss
        moved = np.abs(self.linear(data, step)).reshape(data.rows, -1).max(axis=1, initial=0.0)
        kept = (moved < 0.4) & (loss > small)
        return replace(data, weight=np.where(kept, data.weights, 0.0), memo={"extent": data.extent()})

    def reach(self, data: Data) -> Array:
        """max_j |X_jk| of each column, 1 for the intercept, (p,)."""
        low, high = data.extent()
        if not data.rows:
            low = high = np.zeros(data.X.shape[1])
        if self.units is not None:
            low, high = (low - self.units.shift) / self.units.scale, (high - self.units.shift) / self.units.scale
        furthest = np.maximum(high, -low)
        width = self._width
        return self._join(furthest if width == 1 else np.tile(furthest[:, None], width), np.ones(width))


def ratios(one: Array, other: Array) -> Array:
    """one/other, both ≥ 0: 1 where both are 0, inf where the other alone is."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.where(one == other, 1.0, one / other)


def counting(values: Array, weight: Array) -> Array:
    """``values`` (n, …) with zeros where the weight is: 0·inf is nan."""
    idle = (weight == 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(idle, 0.0, values) if idle.any() else values
