"""Group form: Σ_g weight_g·‖w_g‖₂ over disjoint groups of coordinates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paramserver.messages import Array

Mask = NDArray[np.bool_]
Ids = NDArray[np.intp]


class Norms(NamedTuple):
    """Weighted Euclidean norms of groups of coordinates."""

    ids: Ids  #: (d,), the group of each coordinate, −1 where it is in none
    weights: Array  #: (n_groups,), > 0

    def sums(self, values: Array) -> Array:
        """Σ of ``values`` (d,) over each group, (n_groups,)."""
        return np.asarray(np.bincount(self.ids + 1, values, minlength=len(self.weights) + 1)[1:], float)

    def spread(self, values: NDArray[Any], free: float) -> NDArray[Any]:
        """Each coordinate's group's value, (d,), and ``free`` where it has none."""
        return np.asarray(np.append(values, free)[self.ids])

    def lengths(self, w: Array) -> Array:
        """‖w_g‖ of each group, (n_groups,); safe from under- and overflow of the squares."""
        size = np.zeros(len(self.weights) + 1)
        np.maximum.at(size, self.ids, np.abs(w))
        scale = np.where(size > 0, size, 1.0)
        return np.asarray(scale[:-1] * np.sqrt(self.sums((w / scale[self.ids]) ** 2)))

    def units(self, w: Array) -> Array:
        """w_g/‖w_g‖, (d,); zero where the group is, and on free coordinates."""
        lengths = self.lengths(w)
        # Dividing by a subnormal length would overflow: those groups count as zero.
        return np.asarray(w * self.spread(np.where(lengths > 1e-300, 1.0, 0.0) / np.maximum(lengths, 1e-300), 0.0))

    def value(self, w: Array) -> float:
        """R(w)."""
        return float(self.weights @ self.lengths(w))

    def project(self, w: Array) -> Array:
        """R is finite everywhere."""
        return w

    def prox(self, v: Array, steps: Array) -> Array:
        """See `Penalty.prox`: exact for any positive steps, equal within a group or not."""
        return np.where(self.ids < 0, v, self.shrink(v / steps, 1.0 / steps))

    def shrink(self, b: Array, curvature: Array) -> Array:
        """argmin_w ½Σ curvature_j·w_j² − bᵀw + R(w), (d,), with curvature ≥ 0; nan on free coordinates without any.

        w_j = b_j·n/(n·curvature_j + weight) with n = ‖w_g‖, the root of `root`.
        """
        n, weight = self.spread(self.root(b, curvature), 1.0), self.spread(self.weights, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(b * (n / (n * curvature + weight)))

    def root(self, b: Array, curvature: Array) -> Array:
        """n ≥ 0 with Σ_{j∈g} b_j²/(n·curvature_j + weight_g)² = 1, (n_groups,); 0 where ‖b_g‖ ≤ weight_g.

        Newton on 1/√(that sum), which is concave and rises with n: from the left it never oversteps.
        """
        weight = self.spread(self.weights, 1.0)
        rising = (self.ids >= 0) & (curvature > 0)
        lower = np.zeros(len(self.weights) + 1)  # one coordinate alone bounds n from below
        np.maximum.at(lower, self.ids[rising], ((np.abs(b) - weight)[rising] / curvature[rising]))
        n = lower[:-1]
        off = self.lengths(b) <= self.weights
        for _ in range(200):
            denominator = self.spread(n, 0.0) * curvature + weight
            ratio = (b / denominator) ** 2
            total, bend = self.sums(ratio), self.sums(ratio * curvature / denominator)
            step = total * (np.sqrt(total) - 1.0) / np.where(bend > 0, bend, np.inf)
            step = np.where(off, 0.0, np.maximum(step, 0.0))
            n = n + step
            if (step <= 4e-16 * n).all():
                break
        return np.where(off, 0.0, n)

    def subgradient(self, w: Array, near: Array) -> Array:
        """See `Penalty.subgradient`."""
        at_zero = self.spread(self.lengths(w) <= 1e-300, False)
        return np.where(at_zero, self._into_balls(near), self.spread(self.weights, 0.0) * self.units(w))

    def _into_balls(self, slope: Array) -> Array:
        lengths = self.lengths(slope)
        shrunk = np.where(lengths > self.weights, self.weights / np.where(lengths > 0, lengths, 1.0), 1.0)
        return np.asarray(slope * self.spread(shrunk, 0.0))

    def bregman(self, z: Array, at: Array, slope: Array) -> float:
        """R(z) − R(at) − slopeᵀ(z − at) for slope ∈ ∂R(at): a sum of terms ≥ 0, so that no digits cancel.

        R is 1-homogeneous, so R(at) = slopeᵀat, and ‖z‖ − rᵀz = ½‖z‖·(‖z/‖z‖ − r‖² + 1 − ‖r‖²) with r = slope/weight.
        """
        turned = self.lengths(at) > 1e-300  # r is at's direction itself
        r = np.where(self.spread(turned, False), self.units(at), slope / self.spread(self.weights, np.inf))
        apart = self.sums((self.units(z) - r) ** 2)
        inside = np.where(turned, 0.0, (1.0 - self.sums(r**2)).clip(min=0))
        return float(0.5 * (self.weights * self.lengths(z)) @ (apart + inside))

    def support(self, slope: Array) -> tuple[Array, Array]:
        """See `Terms.support`: within the balls the minimiser is zero."""
        return self._into_balls(slope), np.zeros_like(slope)

    def whole(self, mask: Mask) -> Mask:
        """Coordinates of groups of which ``mask`` holds in every coordinate, and free ones of which it does."""
        broken = self.sums(np.where(mask, 0.0, 1.0)) > 0
        return np.asarray(np.where(self.ids < 0, mask, ~self.spread(broken, False).astype(bool)))

    def lift(self, mask: Mask) -> Norms:
        """The form on the whole of z, (p,): free where ``mask`` is False."""
        ids = np.full(len(mask), -1)
        ids[mask] = self.ids
        return Norms(ids, self.weights)
