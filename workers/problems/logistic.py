"""Logistic regression: log(1 + exp(m)) − y·m, y in {0, 1}."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.special import xlog1py

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.glm import GLM, Rows, cautious_bound

EDGE = 1e-12  #: a row alone in its level, unpenalised, lands on the edge of the domain, and rounding beyond it


class Logistic(GLM):
    """Binary logistic regression (half the unit deviance); labels 0/1, −1/1 or bool. Settings: see `GLM`."""

    dispersion: ClassVar[float | None] = 1.0

    def target(self, y: Array) -> Array:
        good = (y == 1) | (y == 0) | (y == -1)
        if not good.all():
            row = int(np.argmin(good))
            raise BadData(f"label {y[row]:g} in row {row}: Logistic takes 0/1, -1/1 or bool")
        return y

    def check_target(self, y: Any) -> None:
        values = np.unique(np.asarray(y))
        if not (np.isin(values, (0, 1)).all() or np.isin(values, (-1, 1)).all()):
            shown = ", ".join(map(str, values[:6].tolist()))
            raise InvalidInput(f"Logistic takes labels 0/1, -1/1 or bool, got {shown}: encode y first")

    def rows(self, margins: Array, y: Array) -> Rows:
        # In terms of t = ∓m, so that neither tail overflows or cancels, |m| = 1000 included.
        sign = np.where(y > 0, -1.0, 1.0)
        t = sign * margins
        e = np.exp(-np.abs(t))
        one = 1.0 + e
        up = np.where(t >= 0, 1.0, e) / one
        return Rows(np.maximum(t, 0.0) + np.log1p(e), sign * up, e / (one * one))

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        # ℓ*(θ) is the entropy of q = y + θ; the sum below is KL(q ‖ p'), p' = 1/(1 + exp(−m − moved)).
        # Ratios less 1, q/p = 1 + (1−p)δ and p/p' = 1 + (1−p)(exp(−moved) − 1), keep small terms' digits.
        p, down = 1.0 / (1.0 + np.exp(-margins.clip(-700))), 1.0 / (1.0 + np.exp(margins.clip(max=700)))
        up, away = down * delta, -p * delta
        inside = (up >= -1 - EDGE) & (away >= -1 - EDGE)
        up, away = up.clip(-1), away.clip(-1)  # before q is made of it: a tiny q times log 0 would count as 0
        q, rest = p * (1 + up), down * (1 + away)
        terms = xlog1py(q, up) + xlog1py(rest, away)
        if moved.any():
            far = moved.clip(-700, 700)
            terms += xlog1py(q, down * np.expm1(-far)) + xlog1py(rest, p * np.expm1(far))
        return np.where(inside, terms.clip(0), np.inf)

    def fenchel_bound(self, bend: float, reach: float) -> float | None:
        """See `cautious_bound`: q_t(1−q_t) ≥ p(1−p)(1−t|δ|)."""
        return cautious_bound(bend, reach)

    def pearson_rows(self, margins: Array, y: Array) -> Array:
        odds: Array = np.exp(np.where(y > 0, -margins, margins).clip(max=700))
        return odds

    def log_density(self, margins: Array, y: Array, weight: Array, dispersion: float) -> Array:
        return -weight * self.rows(margins, y).loss / dispersion

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, Σw·[y = 1], rows with y = 0, rows with y = −1, Σw·offset]."""
        off = 0.0 if offset is None else weight @ offset
        return np.array([weight.sum(), weight @ (y > 0), (y == 0).sum(), (y == -1).sum(), off])

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        total, ones, zeros, minus, off = tally
        if zeros and minus:
            raise BadData(f"labels are 0/1 in some rows and -1/1 in others ({zeros:.0f} zeros, {minus:.0f} of -1)")
        if not self.fit_intercept:
            return 0.0, float(total * np.log(2.0)), not offset
        if ones <= 0 or ones >= total:
            raise BadData(
                f"all labels are {'1' if ones else '0 (or -1)'}: with a free intercept there is no finite "
                "optimum; check the target, or pass fit_intercept=False"
            )
        rate = ones / total
        b = np.log(ones) - np.log(total - ones) - off / total
        return float(b), float(-ones * np.log(rate) - (total - ones) * np.log1p(-rate)), not offset
