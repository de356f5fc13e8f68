"""Bounds on the coefficients, with or without an elastic net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.penalties.base import KnownForm
from paramserver.penalties.columns import check_length, factors_of, floats, number, ratio, shown, spread
from paramserver.penalties.terms import Terms


@dataclass(frozen=True, repr=False)
class Box(KnownForm):
    """lower_j ≤ w_j ≤ upper_j, and the elastic net within.

    Parameters
    ----------
    lower, upper : float or sequence of float
        One for all penalised columns or one each, ±inf where there is none; they need not hold 0.
    alpha, l1_ratio, factors :
        As in `ElasticNet`; no further penalty by default. A factor of 0 frees a column from that, not from its bounds.
    """

    lower: Any
    upper: Any
    alpha: float = 0.0
    l1_ratio: float = 0.0
    factors: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", floats("lower", self.lower))
        object.__setattr__(self, "upper", floats("upper", self.upper))
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
        object.__setattr__(self, "l1_ratio", ratio(self.l1_ratio))
        object.__setattr__(self, "factors", factors_of(self.factors))
        _check_bounds(np.asarray(self.lower), np.asarray(self.upper))

    def check_columns(self, n_columns: int, d: int) -> None:
        for name in ("factors", "lower", "upper"):
            check_length(name, getattr(self, name), n_columns, d)

    def terms(self, d: int) -> Terms:
        strength = self.alpha * spread("factors", 1.0 if self.factors is None else self.factors, d)
        lower, upper = spread("lower", self.lower, d), spread("upper", self.upper, d)
        return Terms(strength * self.l1_ratio, strength * (1 - self.l1_ratio), lower, upper)

    def __repr__(self) -> str:
        net = {"alpha": self.alpha, "l1_ratio": self.l1_ratio, "factors": self.factors} if self.alpha else {}
        return shown("Box", lower=self.lower, upper=self.upper, **net)


class NonNegative(Box):
    """w ≥ 0, and the elastic net within; see `Box`."""

    def __init__(self, alpha: float = 0.0, l1_ratio: float = 0.0, factors: Any = None) -> None:
        super().__init__(0.0, np.inf, alpha, l1_ratio, factors)

    def __repr__(self) -> str:
        net = {"alpha": self.alpha, "l1_ratio": self.l1_ratio, "factors": self.factors} if self.alpha else {}
        return shown("NonNegative", **net)


def _check_bounds(lower: np.ndarray, upper: np.ndarray) -> None:
    if lower.ndim and upper.ndim and len(lower) != len(upper):
        raise InvalidInput(
            f"lower holds {len(lower)} numbers and upper {len(upper)}: pass one a column to both, or one number"
        )
    lower, upper = np.atleast_1d(*np.broadcast_arrays(lower, upper))
    wrong = ~((lower <= upper) & (lower < np.inf) & (upper > -np.inf))  # nan fails every comparison
    if wrong.any():
        j = int(np.argmax(wrong))
        raise InvalidInput(
            f"bounds must be lower ≤ upper, with -inf or inf for none: column {j} has {lower[j]} and {upper[j]}"
        )
