"""Logistic regression: log(1 + exp(m)) − y·m, y in {0, 1}."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.special import xlog1py

from paramserver.messages import Array
from paramserver.workers.problems.entropy import EDGE, cautious_bound
from paramserver.workers.problems.labels import Binary
from paramserver.workers.problems.passes import Rows


class Logistic(Binary):
    """Binary logistic regression (half the unit deviance); labels 0/1, −1/1 or bool. Settings: see `GLM`."""

    bending: ClassVar[bool] = True
    dispersion: ClassVar[float | None] = 1.0

    def rows(self, margins: Array, y: Array) -> Rows:
        # In terms of t = ∓m, so that neither tail overflows or cancels, |m| = 1000 included.
        sign = np.copysign(1.0, 0.5 - y)
        t = sign * margins
        e = np.exp(-np.abs(t))
        one = 1.0 + e
        first = np.maximum(e, t >= 0)  # e ≤ 1
        first /= one
        first *= sign
        loss = np.log1p(e)
        loss += np.maximum(t, 0.0, out=t)
        e /= np.square(one, out=one)
        return Rows(loss, first, e)

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

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        total, ones, _, _, off = tally
        rate = self.share(tally, "there is no finite optimum")
        if not self.fit_intercept:
            return 0.0, float(total * np.log(2.0)), not offset
        b = np.log(ones) - np.log(total - ones) - off / total
        return float(b), float(-ones * np.log(rate) - (total - ones) * np.log1p(-rate)), not offset
