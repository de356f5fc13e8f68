"""Tweedie, Poisson and Gamma regression with a log link: half unit deviances of y ≥ 0 with mean exp(m)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy import special

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.entropy import NEAR, cautious_bound, divergence, excess, series
from paramserver.workers.problems.glm import GLM
from paramserver.workers.problems.passes import Rows

NONE = -1e299  #: the logarithm of nothing is less; −inf itself may not travel in a survey


@dataclass(frozen=True)
class Tweedie(GLM):
    """Half the unit deviance of a Tweedie distribution, variance ∝ mean^power (Jørgensen 1987), log link.

    With α = power − 1, β = 2 − power and e = m − log y the loss is
    y^β·[expm1(−αe)/α + expm1(βe)/β], and exp(βm)/β at y = 0.

    Parameters
    ----------
    power : float
        In [1, 2]: 1 is Poisson, 2 Gamma (y > 0), between them y ≥ 0 with exact zeros.
    fit_intercept, standardize :
        See `GLM`. ``offset`` at launch is the logarithm of an exposure.
    """

    power: float = 1.5
    bending: ClassVar[bool] = True
    dispersion: ClassVar[float | None] = float("nan")

    def __post_init__(self) -> None:
        if not 1 <= self.power <= 2:
            raise InvalidInput(f"power must lie in [1, 2], got {self.power!r}; for a normal target use LeastSquares()")

    @property
    def _rates(self) -> tuple[float, float]:
        """(α, β) = (power − 1, 2 − power)."""
        return self.power - 1.0, 2.0 - self.power

    # -- the target ------------------------------------------------------------------------------

    def target(self, y: Array) -> Array:
        bad = self._bad(y)
        if bad.any():
            row = int(np.argmax(bad))
            raise BadData(f"y is {y[row]:g} in row {row}: {self._wants()}")
        return y

    def check_target(self, y: Any) -> None:
        y = np.asarray(y)
        bad = self._bad(y)
        if bad.any():
            raise InvalidInput(f"{int(bad.sum())} values of y are out of range, such as {y[bad][0]}: {self._wants()}")

    def _bad(self, y: Any) -> Any:
        return y <= 0 if self.power == 2 else y < 0

    def _wants(self) -> str:
        return f"{type(self).__name__} takes y {'>' if self.power == 2 else '≥'} 0"

    # -- the losses ------------------------------------------------------------------------------

    def rows(self, margins: Array, y: Array) -> Rows:
        # In terms of u1 = y·exp(−αm) and u2 = exp(βm): l' = u2 − u1 and l'' = αu1 + βu2.
        alpha, beta = self._rates
        logs = _logs(y)
        e = margins - logs  # inf at y = 0
        u1, u2 = np.exp(logs - alpha * margins), np.exp(beta * margins)
        first = np.sign(e) * np.where(e > 0, u2, u1) * -np.expm1(-np.abs(e))
        e = np.where(y > 0, e, 0.0)
        base = np.where(y > 0, y, 0.0) ** beta if beta else np.ones_like(y)
        loss = _part(u1, base, -alpha * e, alpha) + _part(u2, base, beta * e, beta)
        loss = np.where(y > 0, loss, u2 / (beta or 1.0))
        second = beta * u2 if not alpha else alpha * u1 if not beta else alpha * u1 + beta * u2  # 0·inf is nan
        return Rows(loss, first, second)

    def fenchel_rows(self, margins: Array, y: Array, delta: Array, moved: Array) -> Array:
        """A bound of it between Poisson and Gamma, where it is exact.

        The loss is a sum of two exponentials; each one's own l' + l''·delta, conjugated apart, bounds ℓ*
        of their sum from above, to second order in delta.
        """
        (alpha, beta), logs, out = self._rates, _logs(y), np.zeros_like(margins)
        for rate, u, after, way in (
            (alpha, logs - alpha * margins, logs - alpha * (margins + moved), -1.0),
            (beta, beta * margins, beta * (margins + moved), 1.0),
        ):
            if rate:
                with np.errstate(over="ignore"):
                    parts = np.exp(u), way * rate * delta, np.exp(after), way * rate * moved
                out += divergence(*parts) / rate
        return out

    def fenchel_bound(self, bend: float, reach: float) -> float | None:
        """See `cautious_bound`; it holds for each of the two exponentials."""
        return cautious_bound(bend, reach)

    # -- the distribution ------------------------------------------------------------------------

    def pearson_rows(self, margins: Array, y: Array) -> Array:
        return (y - np.exp(margins)) ** 2 * np.exp(-self.power * margins)

    def expected_rows(self, margins: Array, y: Array) -> Array | None:
        return None if self.power == 1 else np.exp((2.0 - self.power) * margins)

    def log_density(self, margins: Array, y: Array, weight: Array, dispersion: float) -> Array:
        k = weight / dispersion
        out: Array
        if self.power == 1:
            out = k * (y * margins - np.exp(margins) - special.gammaln(y + 1.0))
        elif self.power == 2:
            out = k * (np.log(k * y) - margins - y * np.exp(-margins)) - special.gammaln(k) - np.log(y)
        else:
            (alpha, beta), some = self._rates, y > 0
            out = -k * (y * np.exp(-alpha * margins) / alpha + np.exp(beta * margins) / beta)
            out[some] += _log_base(y[some], k[some], alpha, beta)
        return out

    # -- the null model --------------------------------------------------------------------------

    def tally(self, y: Array, weight: Array, offset: Array | None) -> Array:
        """[Σw, log A, log B, Σw·loss at b = log A − log B] for A = Σw·y·exp(−αo), B = Σw·exp(βo).

        b is this chunk's own optimum: closed form, whatever the offset.
        """
        alpha, beta = self._rates
        used = weight > 0
        y, weight = y[used], weight[used]
        offset = np.zeros_like(y) if offset is None else offset[used]
        A, B = _log_sum(weight * y, -alpha * offset), _log_sum(weight, beta * offset)
        with np.errstate(over="ignore"):
            loss = 0.0 if A < NONE else weight @ self.rows(A - B + offset, y).loss
        return np.array([weight.sum(), A, B, loss])

    def merge_tally(self, a: Array, b: Array) -> Array:
        A, B = np.logaddexp(a[1], b[1]), np.logaddexp(a[2], b[2])
        losses = [side[3] + self._rise(side, A - B) for side in (a, b) if side[0] > 0]
        return np.array([a[0] + b[0], A, B, sum(losses)])

    def _rise(self, tally: Array, b: float) -> float:
        """What the losses rise from a tally's own optimum to the intercept b; no digits are lost."""
        alpha, beta = self._rates
        _, A, B, _ = tally
        with np.errstate(over="ignore"):
            if A < NONE:
                return 0.0 if b < NONE else float(np.exp(B + beta * b) / (beta or 1.0))
            e, scale = np.atleast_1d(b - (A - B)), float(np.exp(beta * A + alpha * B))
            pair = ((alpha, -alpha * e), (beta, beta * e))
            return scale * sum(float(excess(x)[0] / rate if rate else 0.0) for rate, x in pair)

    def null_of(self, tally: Array, offset: bool) -> tuple[float, float, bool]:
        _, A, B, loss = tally
        if not self.fit_intercept:
            return 0.0, float(loss + self._rise(tally, 0.0)), True
        if A < NONE:
            raise BadData(
                "every y (with a weight) is 0: with a free intercept there is no finite optimum; "
                "check the target, or pass fit_intercept=False"
            )
        alpha, beta = self._rates
        return float(A - B), float(loss + 1e-22 * np.exp(beta * A + alpha * B)), True  # not 0 for a constant target


@dataclass(frozen=True)
class Poisson(Tweedie):
    """Poisson regression, log link: y·log(y/μ) − y + μ with μ = exp(m). Settings: see `Tweedie`."""

    power: float = field(default=1.0, init=False, repr=False)
    dispersion: ClassVar[float | None] = 1.0


@dataclass(frozen=True)
class Gamma(Tweedie):
    """Gamma regression, log link: y/μ − 1 − log(y/μ) with μ = exp(m). Settings: see `Tweedie`."""

    power: float = field(default=2.0, init=False, repr=False)


def _logs(y: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(y)


def _log_base(y: Array, k: Array, alpha: float, beta: float) -> Array:
    """log of the compound Poisson-Gamma's base density (Dunn & Smyth 2005, eq. 1); nan before SciPy 1.14."""
    log_bessel = getattr(special, "log_wright_bessel", None)
    if log_bessel is None:
        return np.full_like(y, np.nan)
    rate = beta / alpha
    x = np.exp(rate * np.log(y * k / alpha) + np.log(k / beta))
    out: Array = log_bessel(rate, 0.0, x) - np.log(y)
    return out


def _part(u: Array, base: Array, x: Array, rate: float) -> Array | float:
    """base·(exp(x) − 1 − x)/rate, where u = base·exp(x) may be representable though exp(x) is not."""
    if not rate:
        return 0.0
    return np.where(np.abs(x) <= NEAR, base * series(x), u - base * (1.0 + x)) / rate


def _log_sum(weight: Array, x: Array) -> float:
    """log Σ weight·exp(x); below `NONE` for an empty sum."""
    weight, x = weight[weight > 0], x[weight > 0]
    if not len(x):
        return 10.0 * NONE
    top = float(x.max())
    return top + float(np.log(weight @ np.exp(x - top)))
