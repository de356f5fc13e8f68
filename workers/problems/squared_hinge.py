"""The squared hinge of a linear support vector machine: ½·max(0, 1 − y·m)², y in {−1, 1}."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from paramserver.messages import Array
from paramserver.workers.problems.entropy import EDGE
from paramserver.workers.problems.labels import Binary
from paramserver.workers.problems.passes import Rows


class SquaredHinge(Binary):
    """A linear classifier with losses ½·max(0, 1 − y·m)²; labels 0/1, −1/1 or bool. Settings: see `GLM`."""

    curved: ClassVar[bool] = False

    def rows(self, margins: Array, y: Array) -> Rows:
        sign = np.where(y > 0, 1.0, -1.0)
        short = np.maximum(1.0 - sign * margins, 0.0)
        return Rows(0.5 * short * short, -sign * short, (short > 0).astype(np.float64))

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        # ℓ*(θ) = yθ + ½θ² for θ = −y·a, a ≥ 0.
        sign = np.where(y > 0, 1.0, -1.0)
        short = np.maximum(1.0 - sign * margins, 0.0)
        a = short - np.where(short > 0, sign * delta, 0.0)
        inside = a >= -EDGE * (1.0 + np.abs(margins) + np.abs(delta))
        a = np.maximum(a, 0.0)
        left = 1.0 - sign * (margins + moved)
        return np.where(inside, np.where(left >= 0, 0.5 * (left - a) ** 2, 0.5 * a * a - a * left), np.inf)

    def fenchel_bound(self, bend: float, reach: float) -> None:
        """None: a row just short of its margin may step out of the dual's domain, however small the step."""
        return None

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        total, off = float(tally[0]), float(tally[4])
        share = self.share(tally, "the intercept alone fits them")
        if not self.fit_intercept:
            return 0.0, 0.5 * total, not offset
        return 2.0 * share - 1.0 - off / total, 2.0 * total * share * (1.0 - share), not offset
