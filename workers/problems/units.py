"""The units a fit works in: columns less a shift, over a scale.

A column like 1.5e9 ± 1 loses its digits in every product; less a constant, which the intercept
takes up, it does not. ``standardize`` divides columns by their standard deviation, so that the
penalty acts on coefficients of like units. Both are undone in what a user sees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paramserver.messages import Array

FAR = 100.0  #: a column is shifted where its middle is so many half-ranges from zero


class Units(NamedTuple):
    """x' = (x − shift)/scale, (d,) each."""

    shift: Array
    scale: Array

    def coef(self, W: Array) -> Array:
        """Coefficients of x from those of x'; (d,) or (d, K)."""
        return np.asarray((W.T / self.scale).T)

    def coef_inward(self, W: Array) -> Array:
        """The inverse of `coef`."""
        return np.asarray((W.T * self.scale).T)

    def below(self, W: Array) -> Array:
        """What the intercept of x has less than that of x'; ``W`` are coefficients of x."""
        out: Array = self.shift @ W
        return out


class Columns(NamedTuple):
    """What is known of all columns together, (d,) each; mean and m2 only where asked for."""

    low: Array
    high: Array
    mean: Array
    m2: Array

    def merged(self, other: Columns, total: float, more: float) -> Columns:
        """With another chunk's, given both total weights (Chan, Golub & LeVeque 1983)."""
        share = more / (total + more) if total + more > 0 else 0.0
        apart = other.mean - self.mean
        return Columns(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.mean + apart * share,
            self.m2 + other.m2 + apart * apart * total * share,
        )

    def units(self, intercept: bool, total: float) -> Units | None:
        """The units to work in; None where they are those of the data."""
        low, high = self.low / 2, self.high / 2  # halved first: of no rows they are the largest numbers there are
        middle = low + high
        far = np.abs(middle) > FAR * (high - low)
        shift = np.where(far, middle, 0.0) if intercept else np.zeros_like(middle)
        variance = self.m2 / total if total > 0 and len(self.m2) else np.ones_like(middle)
        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        return Units(shift, scale) if shift.any() or (scale != 1.0).any() else None
