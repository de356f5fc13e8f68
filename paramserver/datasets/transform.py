"""The worker's half of one-hot encoding: a plan, applied to one partition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paramserver.datasets.base import need
from paramserver.errors import InvalidInput
from paramserver.workers.design import Table

if TYPE_CHECKING:
    from pandas import DataFrame, Series


class Feature(NamedTuple):
    """How one column of the source becomes float64 columns."""

    source: Any
    levels: tuple[Any, ...] | None = None  #: None: a number, passed on as (value − mean) / sd
    mean: float = 0.0
    sd: float = 1.0

    @property
    def names(self) -> list[str]:
        """Names of the columns it becomes."""
        return [str(self.source)] if self.levels is None else [f"{self.source}={level}" for level in self.levels]


Plan = tuple[Feature, ...]


def transform(frame: DataFrame, plan: Plan) -> DataFrame:
    """Encode one partition into one row-major block, so that ``to_numpy()`` copies nothing."""
    pd = need("pandas", "dataframe")
    _refuse_missing(frame, plan)
    names = list(names_of(plan))
    block = np.zeros((len(frame), len(names)))
    rows = np.arange(len(frame))
    start = 0
    for feature in plan:
        column = frame[feature.source]
        if feature.levels is None:
            block[:, start] = _scaled(column, feature)
        else:
            block[rows, start + _positions(column, feature)] = 1.0
        start += len(feature.names)
    encoded: DataFrame = pd.DataFrame(block, index=frame.index, columns=names, copy=False)
    return encoded


def tabulate(frame: DataFrame, plan: Plan) -> Table:
    """The same columns as `transform` makes of one partition, as numbers and codes."""
    _refuse_missing(frame, plan)
    numbers = [feature for feature in plan if feature.levels is None]
    levels = [len(feature.levels) for feature in plan if feature.levels is not None]
    numeric = np.empty((len(frame), len(numbers)))
    codes = np.empty((len(frame), len(levels)), dtype=np.min_scalar_type(max(levels, default=1)), order="F")
    numeric_at, code_at, place, order = 0, 0, len(numbers), []
    for feature in plan:
        column = frame[feature.source]
        if feature.levels is None:
            numeric[:, numeric_at] = _scaled(column, feature)
            order.append(numeric_at)
            numeric_at += 1
        else:
            codes[:, code_at] = _positions(column, feature)
            order += range(place, place + len(feature.levels))
            place, code_at = place + len(feature.levels), code_at + 1
    return Table(numeric, codes, levels, order, names_of(plan))


def names_of(plan: Plan) -> tuple[str, ...]:
    """Names of all columns."""
    return tuple(name for feature in plan for name in feature.names)


def _scaled(column: Series, feature: Feature) -> NDArray[np.float64]:
    return (column.to_numpy(dtype=np.float64) - feature.mean) / feature.sd


def factorize(column: Series) -> tuple[NDArray[np.intp], list[Any]]:
    """For each row, where its value is in the list of distinct values; −1 where it is missing."""
    try:
        codes, found = column.factorize()
    except TypeError as error:  # lists, arrays, dicts
        raise InvalidInput(
            f"column {column.name!r} holds values that cannot be levels ({error}); drop it or unpack it"
        ) from error
    return codes, found.tolist()


def _positions(column: Series, feature: Feature) -> NDArray[np.intp]:
    """For each row, which of the feature's levels it has."""
    codes, found = factorize(column)
    place = {level: at for at, level in enumerate(feature.levels or ())}
    unseen = [level for level in found if level not in place]
    if unseen:
        raise InvalidInput(
            f"column {feature.source!r} has the level {unseen[0]!r}"
            + (f" (and {len(unseen) - 1} more)" if len(unseen) > 1 else "")
            + f", which is not among its {len(place)} categories ({some(place)}); name every level: "
            f"encode(..., categories={{{feature.source!r}: [...]}})"
        )
    places: NDArray[np.intp] = np.array([place[level] for level in found], dtype=np.intp)
    return places[codes]


def _refuse_missing(frame: DataFrame, plan: Plan) -> None:
    sources = [feature.source for feature in plan]
    counts = frame[sources].isna().sum()
    gaps = {column: int(count) for column, count in counts.items() if count}
    if gaps:
        raise InvalidInput(
            "missing values: "
            + ", ".join(f"{count} in column {column!r}" for column, count in gaps.items())
            + f" (of {len(frame)} rows here); drop these rows with .dropna(subset={list(gaps)!r}) "
            "or fill them with .fillna(...), a level of its own such as 'missing' where the column is categorical"
        )


def some(values: Iterable[Any], most: int = 5) -> str:
    """The first few of these, for a message."""
    texts = [repr(value) for value in values]
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")
