"""Regularisers R(w): value, proximal operator, subdifferential.

A penalty acts on the penalised coordinates only: `Bound` puts one onto the whole of z, where the
problem says which coordinates (the intercept, say) are free. To write one, subclass `Penalty`:
value, prox and subgradient suffice (`paramserver.testing.check_penalty` checks them); where the
penalty is of the elastic-net form, say `weights` instead and get the exact consensus step too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array


class Penalty(ABC):
    """A convex, separable R: w ↦ R(w) for a (d,) vector w of penalised coordinates."""

    @abstractmethod
    def value(self, w: Array) -> float:
        """R(w)."""

    @abstractmethod
    def prox(self, v: Array, steps: Array) -> Array:
        """argmin_w R(w) + Σ (w_j − v_j)²/(2·steps_j); one positive step a coordinate, (d,)."""

    @abstractmethod
    def subgradient(self, w: Array, near: Array) -> Array:
        """The element of ∂R(w) nearest to ``near``, (d,)."""

    def weights(self) -> tuple[float, float] | None:
        """(l1, l2) where R = l1·‖w‖₁ + l2/2·‖w‖², else None."""
        return None

    def distance(self, w: Array, v: Array) -> float:
        """Euclidean distance from ``v`` to ∂R(w)."""
        return float(np.linalg.norm(v - self.subgradient(w, v)))


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """alpha·(l1_ratio·‖w‖₁ + (1 − l1_ratio)/2·‖w‖²), Zou & Hastie 2005 in scikit-learn's terms.

    Parameters
    ----------
    alpha : float
        Strength, ≥ 0, against the *sum* of losses (not their mean).
    l1_ratio : float
        In [0, 1].
    """

    alpha: float = 1.0
    l1_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not (np.isfinite(self.alpha) and self.alpha >= 0):
            raise InvalidInput(
                f"alpha must be a finite number ≥ 0, got {self.alpha!r}; for no penalty pass NoPenalty()"
            )
        if not 0 <= self.l1_ratio <= 1:
            raise InvalidInput(f"l1_ratio must lie in [0, 1], got {self.l1_ratio!r}")

    def weights(self) -> tuple[float, float]:
        return self.alpha * self.l1_ratio, self.alpha * (1 - self.l1_ratio)

    def value(self, w: Array) -> float:
        l1, l2 = self.weights()
        return float(l1 * np.abs(w).sum() + 0.5 * l2 * (w @ w))

    def prox(self, v: Array, steps: Array) -> Array:
        l1, l2 = self.weights()
        return np.sign(v) * np.maximum(np.abs(v) - l1 * steps, 0.0) / (1.0 + l2 * steps)

    def subgradient(self, w: Array, near: Array) -> Array:
        l1, l2 = self.weights()
        sign = np.where(w == 0, np.clip(near, -l1, l1), l1 * np.sign(w))
        return sign + l2 * w


class L1(ElasticNet):
    """alpha·‖w‖₁ (the lasso, Tibshirani 1996)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha, 1.0)

    def __repr__(self) -> str:
        return f"L1(alpha={self.alpha!r})"


class L2(ElasticNet):
    """alpha/2·‖w‖² (ridge)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha, 0.0)

    def __repr__(self) -> str:
        return f"L2(alpha={self.alpha!r})"


class NoPenalty(ElasticNet):
    """R = 0."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0)

    def __repr__(self) -> str:
        return "NoPenalty()"


class Bound(NamedTuple):
    """A penalty on the whole of z: ``mask`` (p,) bool says which coordinates are penalised."""

    penalty: Penalty
    mask: np.ndarray

    def value(self, z: Array) -> float:
        """R of the penalised coordinates of z."""
        return self.penalty.value(z[self.mask])

    def prox(self, v: Array, steps: Array) -> Array:
        """`Penalty.prox` on the penalised coordinates, the identity on the others."""
        out: Array = v.copy()
        out[self.mask] = self.penalty.prox(v[self.mask], steps[self.mask])
        return out

    def subgradient(self, z: Array, near: Array) -> Array:
        """The element of ∂R(z) nearest to ``near``; zero on free coordinates."""
        out = np.zeros_like(z)
        out[self.mask] = self.penalty.subgradient(z[self.mask], near[self.mask])
        return out

    def on(self, coordinates: np.ndarray) -> Bound:
        """R of these coordinates, where R is known by its weights."""
        return Bound(self.penalty, self.mask[coordinates])

    def distance(self, z: Array, v: Array) -> float:
        """Euclidean distance from ``v`` to ∂R(z), free coordinates included."""
        return float(np.linalg.norm(v - self.subgradient(z, v)))

    def bregman(self, z: Array, at: Array, slope: Array) -> float:
        """R(z) − R(at) − slopeᵀ(z − at) ≥ 0 for ``slope`` ∈ ∂R(at).

        For the elastic net every term is non-negative, so no digits cancel near the optimum.
        """
        weights = self.penalty.weights()
        if weights is None:
            return max(self.value(z) - self.value(at) - float(slope @ (z - at)), 0.0)
        l1, l2 = weights
        w, w_at = z[self.mask], at[self.mask]
        sign = slope[self.mask] - l2 * w_at
        return float((l1 * np.abs(w) - sign * w).clip(min=0).sum() + 0.5 * l2 * ((w - w_at) @ (w - w_at)))

    def elastic_net(self) -> tuple[Array, Array] | None:
        """Per-coordinate (l1, l2) weights over the whole of z, or None."""
        weights = self.penalty.weights()
        if weights is None:
            return None
        on = self.mask.astype(float)
        return weights[0] * on, weights[1] * on
