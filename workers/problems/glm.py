"""Generalised linear models: what all families share, from a chunk's parts to the null model.

A family says its losses (`rows`, `fenchel_rows`) and the sums that the null model is made of
(`tally`, `null_of`); the passes over the data are `Passes`'.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.design import as_design
from paramserver.workers.problems.base import Null, Start
from paramserver.workers.problems.columns import column, offsets
from paramserver.workers.problems.moments import Family
from paramserver.workers.problems.passes import Data, Passes
from paramserver.workers.problems.units import Columns


@dataclass(frozen=True)
class GLM(Family, Passes):
    """Σ weight·loss(xᵀw + b + offset, y); z = (w, b) with the intercept b last, where there is one.

    Parameters
    ----------
    fit_intercept : bool
        The intercept is never penalised.
    standardize : bool
        The penalty acts on the coefficients of columns divided by their (weighted) standard
        deviation: the objective is Σ weight·loss + R(sd·w). Coefficients are reported in the
        data's own units all the same.
    """

    # -- what a family says ----------------------------------------------------------------------

    @abstractmethod
    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """One chunk's sums for `null_of`, (k,); [0] the total weight."""

    @abstractmethod
    def null_of(self, tally: Array, offset: bool) -> tuple[Any, float, bool]:
        """(intercept, objective, exact) of the model without coefficients; near it where not exact.

        Without a free intercept: of the model that is zero.
        """

    def merge_tally(self, a: Array, b: Array) -> Array:
        """Two chunks' tallies as one."""
        return a + b

    def target(self, y: Array) -> Array:
        """y as the losses want it; raise `BadData` naming the first bad row."""
        return y

    def learned(self, tally: Array) -> dict[str, Any]:
        """Settings that only all the data together tell."""
        return {}

    # -- what a chunk is -------------------------------------------------------------------------

    def check_given(self, y: Any) -> None:
        if y is None:
            raise InvalidInput(f"{type(self).__name__} needs a target: pass y")

    def prepare(self, *parts: Any) -> Data:
        X, y, weight, offset = (*parts, None, None, None)[:4]
        if y is None:
            raise BadData(f"{type(self).__name__} needs a target: pass y")
        X = as_design(X)
        n = X.shape[0]
        y = self.target(column(y, "y", n))
        if weight is not None:
            weight = column(weight, "sample_weight", n)
            if (weight < 0).any():
                raise BadData(f"row {int(np.argmax(weight < 0))} has a negative sample_weight")
        return Data(X, y, weight, None if offset is None else offsets(offset, n, self.margins_per_row))

    # -- the survey ------------------------------------------------------------------------------

    def survey(self, data: Data) -> Array:
        """[rows, d, offset given, low (d,), high (d,), then mean and m2 (d,) to standardize, tally]."""
        weight = data.weights
        moments = data.X.moments(weight) if self.standardize else ()
        head = [data.rows, data.X.shape[1], data.offset is not None]
        extent = np.nan_to_num(data.extent())  # of no rows at all it is infinite, which no message may be
        return np.concatenate([head, *extent, *moments, self.tally(data.y, weight, data.offset)])

    def merge(self, a: Array, b: Array) -> Array:
        (one, tally), (two, more) = self._parsed(a), self._parsed(b)
        columns = one.merged(two, float(tally[0]), float(more[0]))
        kept = columns if self.standardize else columns[:2]
        head = [a[0] + b[0], a[1], max(a[2], b[2])]
        return np.concatenate([head, *kept, self.merge_tally(tally, more)])

    def _parsed(self, survey: Array) -> tuple[Columns, Array]:
        d = int(survey[1])
        low, high, rest = survey[3 : 3 + d], survey[3 + d : 3 + 2 * d], survey[3 + 2 * d :]
        none = np.empty(0)
        return (Columns(low, high, rest[:d], rest[d : 2 * d]), rest[2 * d :]) if self.standardize else (
            Columns(low, high, none, none), rest)  # fmt: skip

    def at(self, survey: Array) -> GLM:
        columns, tally = self._parsed(survey)
        units = columns.units(self.fit_intercept, float(tally[0]))
        return replace(self, units=units, **self.learned(tally))

    def start(self, survey: Array) -> Start:
        _, tally = self._parsed(survey)
        if not tally[0] > 0:
            raise BadData("all sample weights are zero: there is nothing to fit")
        b, objective, exact = self.null_of(tally, bool(survey[2]))
        d = int(survey[1])
        W = np.zeros(d if self._width == 1 else (d, self._width))
        return Start(self._join(W, b), float(objective), exact)

    def null(self, data: Data, z: Array) -> Null:
        """Over y and offset alone: X is not touched."""
        _, b = self._split(z)
        margins = np.broadcast_to(b, (data.rows, *np.shape(b)))
        at = self._weighed(data, slice(None), self._offset(data, margins))
        if not self.fit_intercept:
            return Null(float(at.loss.sum()), np.empty(0), np.empty((0, 0)))
        return Null(float(at.loss.sum()), np.atleast_1d(at.first.sum(axis=0)), self._corner(at.second))

    def _corner(self, curvature: Array) -> Array:
        """The intercepts' own part of the Hessian, (1, 1) or (K, K)."""
        return np.array([[curvature.sum()]])
