"""Expectile regression: a new local problem, a loss of the margin (Newey & Powell 1987, Econometrica 55)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import paramserver as ps
from paramserver.messages import Array
from paramserver.workers.problems.glm import GLM
from paramserver.workers.problems.passes import Rows


@dataclass(frozen=True)
class Expectile(GLM):
    """Losses ½a·t² of t = m − y, where a is ``level`` if t < 0 and 1 − level if not. Settings: see `GLM`.

    An expectile is to the mean what a quantile is to the median; its loss has a slope and a curvature everywhere.
    """

    bending: ClassVar[bool] = True  # ℓ'' > 0 at every margin

    level: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ps.errors.InvalidInput(f"level must lie in (0, 1), got {self.level!r}")

    def steepness(self, t: Array) -> Array:
        """a, (n,), for signs of t."""
        return np.where(t < 0, self.level, 1.0 - self.level)

    def rows(self, margins: Array, y: Array) -> Rows:
        t = margins - y
        a = self.steepness(t)
        return Rows(0.5 * a * t * t, a * t, a)

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        # ℓ*(θ) = θy + θ²/2b, where b is the steepness on θ's side. Neither case cancels.
        t = margins - y
        theta = self.steepness(t) * (t + delta)
        b, t = self.steepness(theta), t + moved
        a = self.steepness(t)
        return np.where(a == b, 0.5 * a * (t - theta / b) ** 2, 0.5 * a * t * t + theta * (0.5 * theta / b - t))

    def fenchel_bound(self, bend: float, reach: float) -> float:
        # Without a change of side it is ½ℓ''δ² a row; a change costs no more than the ratio of the slopes.
        return 0.5 * bend * max(self.level, 1.0 - self.level) / min(self.level, 1.0 - self.level)

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        return np.array([weight.sum(), weight @ (y if offset is None else y - offset)])

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        # The mean is near the best intercept; a few rounds of Newton follow, since it says that it is not exact.
        return (float(tally[1] / tally[0]) if self.fit_intercept else 0.0), 0.0, False


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 3))
    y = X @ [1.0, -1.0, 0.0] + (1.0 + 0.5 * (X[:, 2] > 0)) * rng.standard_normal(5000)
    for level in (0.05, 0.5, 0.95):
        print(level, ps.simulate(Expectile(level), X, y, chunks=16).result.z.round(2))
