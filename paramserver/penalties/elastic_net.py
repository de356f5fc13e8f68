"""The elastic net, the lasso, ridge, and no penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.penalties.base import KnownForm
from paramserver.penalties.columns import check_length, factors_of, number, ratio, shown, spread
from paramserver.penalties.terms import Terms


@dataclass(frozen=True, repr=False)
class ElasticNet(KnownForm):
    """Σ_j factor_j·alpha·(l1_ratio·|w_j| + (1 − l1_ratio)/2·w_j²), Zou & Hastie 2005 in scikit-learn's terms.

    Parameters
    ----------
    alpha : float
        Strength, ≥ 0, against the *sum* of losses (not their mean).
    l1_ratio : float
        In [0, 1].
    factors : sequence of float, optional
        One a penalised column, finite and ≥ 0; 0 frees that column. Where w holds K classes of d
        columns, d factors serve every class, and K·d say each its own.
    """

    alpha: float = 1.0
    l1_ratio: float = 0.5
    factors: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
        object.__setattr__(self, "l1_ratio", ratio(self.l1_ratio))
        object.__setattr__(self, "factors", factors_of(self.factors))

    def check_columns(self, n_columns: int, d: int) -> None:
        check_length("factors", self.factors, n_columns, d)

    def terms(self, d: int) -> Terms:
        strength = self.alpha * spread("factors", 1.0 if self.factors is None else self.factors, d)
        return Terms(strength * self.l1_ratio, strength * (1 - self.l1_ratio), np.full(d, -np.inf), np.full(d, np.inf))

    def __repr__(self) -> str:
        return shown("ElasticNet", alpha=self.alpha, l1_ratio=self.l1_ratio, factors=self.factors)


class L1(ElasticNet):
    """alpha·Σ factor_j·|w_j| (the lasso, Tibshirani 1996); see `ElasticNet`."""

    def __init__(self, alpha: float = 1.0, factors: Any = None) -> None:
        super().__init__(alpha, 1.0, factors)

    def __repr__(self) -> str:
        return shown("L1", alpha=self.alpha, factors=self.factors)


class L2(ElasticNet):
    """alpha/2·Σ factor_j·w_j² (ridge); see `ElasticNet`."""

    def __init__(self, alpha: float = 1.0, factors: Any = None) -> None:
        super().__init__(alpha, 0.0, factors)

    def __repr__(self) -> str:
        return shown("L2", alpha=self.alpha, factors=self.factors)


class NoPenalty(ElasticNet):
    """R = 0."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0)

    def __repr__(self) -> str:
        return "NoPenalty()"
