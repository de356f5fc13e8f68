"""Losses whose slope is that of a parabola, clipped: Huber's, and the smoothed quantile loss."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.entropy import EDGE
from paramserver.workers.problems.glm import GLM
from paramserver.workers.problems.passes import Rows
from paramserver.workers.problems.sketch import points, pooled, sketch


class Clipped(GLM):
    """Losses of t = m − y with ℓ' = s = clip(t/eps, lo, hi) and ℓ = s·t − eps·s²/2, lo < 0 < hi."""

    curved: ClassVar[bool] = False

    @property
    @abstractmethod
    def _shape(self) -> tuple[float, float, float]:
        """(eps, lo, hi)."""

    def rows(self, margins: Array, y: Array) -> Rows:
        eps, lo, hi = self._shape
        t = margins - y
        slope = np.clip(t / eps, lo, hi)
        inside = (t > eps * lo) & (t < eps * hi)
        return Rows(slope * (t - 0.5 * eps * slope), slope, inside / eps)

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        # ℓ*(θ) = θy + eps·θ²/2 for lo ≤ θ ≤ hi.
        eps, lo, hi = self._shape
        at = self.rows(margins, y)
        dual = at.first + at.second * delta
        inside = (dual >= lo - EDGE * (hi - lo)) & (dual <= hi + EDGE * (hi - lo))
        dual = np.clip(dual, lo, hi)
        t = margins - y + moved
        slope = np.clip(t / eps, lo, hi)
        return np.where(inside, ((slope - dual) * (t - 0.5 * eps * (slope + dual))).clip(0), np.inf)

    def fenchel_bound(self, bend: float, reach: float) -> None:
        """None: a row close to a kink may step out of the dual's domain, however small the step."""
        return None

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, sketch of y − offset]."""
        return np.append(weight.sum(), sketch(y if offset is None else y - offset, weight))

    def merge_tally(self, a: Array, b: Array) -> Array:
        return np.append(a[0] + b[0], pooled(a[1:], b[1:]))

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        """The optimum of the sketch: where its slope, straight between kinks, crosses zero."""
        eps, lo, hi = self._shape
        values, weight = points(tally[1:])
        b = 0.0
        if self.fit_intercept:
            kinks = np.sort(np.append(values + eps * lo, values + eps * hi))
            slopes = np.clip((kinks[:, None] - values) / eps, lo, hi) @ weight
            b = float(np.interp(0.0, slopes, kinks))
        return b, float(self.rows(np.full_like(values, b), values).loss @ weight), False


@dataclass(frozen=True)
class Huber(Clipped):
    """Robust regression: ½t² for |t| ≤ delta, delta·|t| − ½delta² beyond (Huber 1964), t = m − y.

    Parameters
    ----------
    delta : float
        > 0, in units of y. 1.35 standard deviations of the noise keep 95 % of the mean's efficiency.
    fit_intercept, standardize :
        See `GLM`.
    """

    delta: float = 1.35

    def __post_init__(self) -> None:
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise InvalidInput(f"delta must be a finite number > 0, in units of y, got {self.delta!r}")

    @property
    def _shape(self) -> tuple[float, float, float]:
        return 1.0, -self.delta, self.delta
