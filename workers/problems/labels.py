"""Two classes: labels 0/1, −1/1 or bool, and their share."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.glm import GLM


class Binary(GLM):
    """A loss of y > 0 or not."""

    def target(self, y: Array) -> Array:
        good = (y == 1) | (y == 0) | (y == -1)
        if not good.all():
            row = int(np.argmin(good))
            raise BadData(f"label {y[row]:g} in row {row}: {type(self).__name__} takes 0/1, -1/1 or bool")
        return y

    def check_target(self, y: Any) -> None:
        values = np.unique(np.asarray(y))
        if not (np.isin(values, (0, 1)).all() or np.isin(values, (-1, 1)).all()):
            shown = ", ".join(map(str, values[:6].tolist()))
            raise InvalidInput(f"{type(self).__name__} takes labels 0/1, -1/1 or bool, got {shown}: encode y first")

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, Σw·[y = 1], rows with y = 0, rows with y = −1, Σw·offset]."""
        off = 0.0 if offset is None else weight @ offset
        return np.array([weight.sum(), weight @ (y > 0), (y == 0).sum(), (y == -1).sum(), off])

    def share(self, tally: Array, why: str) -> float:
        """Weight of the ones over the total; `BadData` for mixed labels, and for one class with a free intercept."""
        total, ones, zeros, minus, _ = tally
        if zeros and minus:
            raise BadData(f"labels are 0/1 in some rows and -1/1 in others ({zeros:.0f} zeros, {minus:.0f} of -1)")
        if self.fit_intercept and (ones <= 0 or ones >= total):
            raise BadData(
                f"all labels are {'1' if ones else '0 (or -1)'}: with a free intercept {why}; "
                "check the target, or pass fit_intercept=False"
            )
        return float(ones / total)
