"""The group lasso."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.penalties.base import KnownForm
from paramserver.penalties.columns import factors_of, number, shown
from paramserver.penalties.norms import Norms


@dataclass(frozen=True, repr=False)
class GroupL1(KnownForm):
    """alpha·Σ_g factor_g·‖w_g‖₂ (the group lasso, Yuan & Lin 2006, eq. 2.1): groups are in or out as one.

    Parameters
    ----------
    groups : list of lists of int, or int
        Column indices of each group, no column in two; columns in none are free. A number k makes
        groups of k columns each, in their order.
    alpha : float
        Strength, ≥ 0, against the *sum* of losses.
    factors : sequence of float, optional
        One a group, finite and ≥ 0 (0: that group is free); √(its size) by default.
    """

    groups: Any
    alpha: float = 1.0
    factors: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _groups(self.groups))
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
        object.__setattr__(self, "factors", factors_of(self.factors, "group"))
        if self.factors is not None and not isinstance(self.groups, int):
            self._check_factors(len(self.groups))

    def terms(self, d: int) -> Norms:
        ids = self._ids(d)
        sizes = np.bincount(ids + 1, minlength=1)[1:]
        if self.factors is not None:
            self._check_factors(len(sizes))
        weights = self.alpha * np.asarray(np.sqrt(sizes) if self.factors is None else self.factors, dtype=float)
        kept = np.append(np.where(weights > 0, np.cumsum(weights > 0) - 1, -1), -1)
        return Norms(kept[ids], weights[weights > 0])

    def _ids(self, d: int) -> np.ndarray:
        if isinstance(self.groups, int):
            if d % self.groups:
                raise InvalidInput(
                    f"groups of {self.groups} columns each do not fit {d} penalised coefficients: "
                    "pass a divisor, or the groups as lists of column indices"
                )
            return np.arange(d) // self.groups
        last = max(max(group) for group in self.groups)
        if last >= d:
            raise InvalidInput(
                f"groups name column {last}, but this problem has {d} penalised coefficients, "
                f"0 to {d - 1} (the intercept is none of them)"
            )
        ids = np.full(d, -1)
        for g, group in enumerate(self.groups):
            ids[list(group)] = g
        return ids

    def _check_factors(self, n_groups: int) -> None:
        if len(self.factors) != n_groups:
            raise InvalidInput(f"factors must hold one number a group: {n_groups} needed, {len(self.factors)} came")

    def __repr__(self) -> str:
        groups = self.groups if isinstance(self.groups, int) or len(self.groups) <= 4 else f"<{len(self.groups)}>"
        return shown("GroupL1", groups=groups, alpha=self.alpha, factors=self.factors)


def _groups(value: Any) -> int | tuple[tuple[int, ...], ...]:
    """Checked groups, as plain values."""
    try:
        size = index(value)
    except TypeError:
        return _lists(value)
    if size < 1 or isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"groups as a number is the size of each: ≥ 1, got {value!r}")
    return size


def _lists(value: Any) -> tuple[tuple[int, ...], ...]:
    try:
        groups = tuple(tuple(index(j) for j in group) for group in value)
    except TypeError:
        raise InvalidInput(
            f"groups must be lists of column indices such as [[0, 1], [2, 3, 4]], or one size: got {value!r}"
        ) from None
    empty = [g for g, group in enumerate(groups) if not group]
    if empty or not groups:
        raise InvalidInput(
            f"every group needs a column: {f'group {empty[0]} is empty' if groups else 'none was given'}"
        )
    seen: dict[int, int] = {}
    for g, group in enumerate(groups):
        for j in group:
            if j < 0:
                raise InvalidInput(f"column indices count from 0: group {g} names {j}")
            if j in seen:
                raise InvalidInput(
                    f"groups must not overlap: column {j} is in groups {seen[j]} and {g}; keep it in one"
                )
            seen[j] = g
    return groups
