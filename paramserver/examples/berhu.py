"""The reverse Huber penalty: a new regulariser, known by its prox (Owen 2007, Contemporary Mathematics 443)."""

from dataclasses import dataclass

import numpy as np

import paramserver as ps
from paramserver.messages import Array


@dataclass(frozen=True)
class BerHu(ps.Penalty):
    """alpha·Σ b(w_j): b(w) = |w| up to ``delta``, (w² + delta²)/(2·delta) beyond.

    Small coefficients become zero, as in the lasso; large ones are shared by columns alike, as in ridge regression.
    """

    alpha: float = 1.0
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < np.inf and 0 < self.delta < np.inf):
            raise ps.errors.InvalidInput(f"alpha must be finite and ≥ 0, delta finite and > 0, got {self!r}")

    def value(self, w: Array) -> float:
        size = np.abs(w)
        return self.alpha * float(np.where(size <= self.delta, size, 0.5 * (size**2 / self.delta + self.delta)).sum())

    def prox(self, v: Array, steps: Array) -> Array:
        pull = self.alpha * steps
        soft = np.sign(v) * np.maximum(np.abs(v) - pull, 0.0)
        return np.where(np.abs(soft) <= self.delta, soft, v / (1.0 + pull / self.delta))

    def subgradient(self, w: Array, near: Array) -> Array:
        slope = np.sign(w) * np.maximum(np.abs(w) / self.delta, 1.0)
        return self.alpha * np.where(w == 0.0, np.clip(near / max(self.alpha, 1e-300), -1.0, 1.0), slope)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = 0.05 * rng.standard_normal((2000, 6)) + np.repeat(rng.standard_normal((2000, 2)), 3, axis=1)
    y = X[:, :3].sum(axis=1) + rng.standard_normal(2000)
    for penalty in (ps.L1(100.0), BerHu(100.0, 0.2)):  # three columns alike that matter, three that do not
        print(penalty, ps.simulate(ps.LeastSquares(), X, y, chunks=8, penalty=penalty).result.z.round(2) + 0.0)
