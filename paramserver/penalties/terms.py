"""Separable form: Σ l1_j|w_j| + l2_j/2·w_j² with lower_j ≤ w_j ≤ upper_j."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paramserver.messages import Array

Mask = NDArray[np.bool_]


class Terms(NamedTuple):
    """One elastic net with bounds a coordinate; each field (d,), bounds may be infinite."""

    l1: Array
    l2: Array
    lower: Array
    upper: Array

    @property
    def smooth(self) -> bool:
        """Neither a kink nor a bound anywhere."""
        return not (self.l1.any() or np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    def value(self, w: Array) -> float:
        """R(w), infinite outside the bounds."""
        if (w < self.lower).any() or (w > self.upper).any():
            return float("inf")
        return float(self.l1 @ np.abs(w) + 0.5 * (self.l2 @ w**2))

    def project(self, w: Array) -> Array:
        """The nearest point within the bounds."""
        return np.clip(w, self.lower, self.upper)

    def prox(self, v: Array, steps: Array) -> Array:
        """See `Penalty.prox`: each coordinate's problem is convex, so its bounds clip the free minimiser."""
        shrunk = np.sign(v) * np.maximum(np.abs(v) - self.l1 * steps, 0.0)
        return self.project(shrunk / (1.0 + self.l2 * steps))

    def interval(self, w: Array) -> tuple[Array, Array]:
        """(least, greatest) element of ∂(R − l2/2·w²), infinite where w stands at a bound."""
        least = np.where(w <= self.lower, -np.inf, np.where(w > 0, self.l1, -self.l1))
        greatest = np.where(w >= self.upper, np.inf, np.where(w < 0, -self.l1, self.l1))
        return least, greatest

    def subgradient(self, w: Array, near: Array) -> Array:
        """See `Penalty.subgradient`."""
        bend = self.l2 * w
        least, greatest = self.interval(w)
        return np.clip(near, least + bend, greatest + bend)

    def bregman(self, z: Array, at: Array, slope: Array) -> float:
        """R(z) − R(at) − slopeᵀ(z − at) for slope ∈ ∂R(at): a sum of terms ≥ 0, so that no digits cancel."""
        if not np.isfinite(self.value(z)):
            return float("inf")
        pull = slope - self.l2 * at
        sign = np.clip(pull, np.where(at > 0, self.l1, -self.l1), np.where(at < 0, -self.l1, self.l1))
        normal = np.where((at <= self.lower) | (at >= self.upper), pull - sign, 0.0)
        kinks = (self.l1 * np.abs(z) - sign * z).clip(min=0).sum() - normal @ (z - at)
        return float(kinks + 0.5 * (self.l2 @ (z - at) ** 2))

    def support(self, slope: Array) -> tuple[Array, Array]:
        """(s, u): s nearest to ``slope`` of those where R(w) − sᵀw has a minimiser, and that minimiser u.

        So s ∈ ∂R(u), and R(w) ≥ R(u) + sᵀ(w − u) everywhere. u overflows where l2 is all but zero.
        """
        curved = self.l2 > 0
        least = np.where(curved | np.isfinite(self.lower), -np.inf, -self.l1)
        greatest = np.where(curved | np.isfinite(self.upper), np.inf, self.l1)
        s = np.clip(slope, least, greatest)
        beyond = np.sign(s) * np.maximum(np.abs(s) - self.l1, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            far = np.where(beyond == 0, 0.0, beyond / np.where(curved, self.l2, 1.0))
            far = np.where(curved | (beyond == 0), far, np.copysign(np.inf, beyond))
        return s, self.project(far)

    def whole(self, mask: Mask) -> Mask:
        """Blocks of which ``mask`` holds in every coordinate: here a coordinate is a block."""
        return mask

    def of(self, coordinates: np.ndarray) -> Terms:
        """The form of these coordinates."""
        return Terms(*(part[coordinates] for part in self))

    def lift(self, mask: Mask) -> Terms:
        """The form on the whole of z, (p,): free and unbounded where ``mask`` is False."""
        out = Terms(*(np.full(len(mask), free) for free in (0.0, 0.0, -np.inf, np.inf)))
        for whole, part in zip(out, self, strict=True):
            whole[mask] = part
        return out
