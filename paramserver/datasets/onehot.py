"""One-hot encoding with names kept: a plan made once, applied to every partition where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from paramserver.datasets.base import need
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FrameT = TypeVar("FrameT")

#: Levels that are looked for, not given, end here: an identifier or free text would make a matrix that fits nowhere.
MAX_LEVELS = 5_000


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


def encode(
    frame: FrameT,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
) -> FrameT:
    """One-hot encode the categorical columns of a pandas or dask DataFrame, names kept.

    Strings, objects and categories become one 0/1 column a level, named ``column=level``, no level
    dropped; numbers and bools pass as float64. The order of the columns is kept. A categorical
    dtype brings its own levels, in its order, used or not; other levels are sorted.

    Parameters
    ----------
    frame : pandas or dask DataFrame
        Without missing values and without dates.
    columns : str or sequence of str, optional
        Numeric columns to treat as categorical too, such as the month.
    categories : mapping of column to levels, optional
        The levels of these columns. For a dask frame this saves the pass over the data that finds them.

    Returns
    -------
    pandas or dask DataFrame
        The kind that came; float64. A dask frame stays lazy, with the same partitions.

    Raises
    ------
    InvalidInput
        A column cannot be encoded, has missing values, or has a level that is not among its
        categories. For a dask frame the last two are raised where the partition is encoded.
    """
    encoded: FrameT = apply(frame, make_plan(frame, columns, categories=categories))
    return encoded


def make_plan(
    frame: Any,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
) -> Plan:
    """How ``encode`` encodes this frame; computes the levels of a dask frame that are not known."""
    meta = frame if is_pandas(frame) else frame._meta
    given = {column: _given_levels(column, levels) for column, levels in (categories or {}).items()}
    wanted = {columns} if isinstance(columns, str) else set(columns or ())
    _check_columns(meta, wanted | set(given))

    categorical = {column for column in meta.columns if column in wanted or not _is_number(meta, column)}
    known = {column: tuple(meta[column].cat.categories) for column in categorical if _levels_known(frame, column)}
    known |= given
    known |= _find_levels(frame, [column for column in meta.columns if column in categorical - set(known)])
    plan = tuple(Feature(column, known.get(column)) for column in meta.columns)
    _check_names(plan)
    return plan


def apply(frame: Any, plan: Plan) -> Any:
    """Encode a pandas frame now, a dask frame lazily, by a plan."""
    if is_pandas(frame):
        return transform(frame, plan)
    meta = transform(frame._meta, plan)
    return frame.map_partitions(transform, plan, meta=meta, enforce_metadata=False)


def transform(frame: DataFrame, plan: Plan) -> DataFrame:
    """Encode one partition into one row-major block, so that ``to_numpy()`` copies nothing."""
    pd = need("pandas", "dataframe")
    _refuse_missing(frame, plan)
    names = [name for feature in plan for name in feature.names]
    block = np.zeros((len(frame), len(names)))
    rows = np.arange(len(frame))
    start = 0
    for feature in plan:
        column = frame[feature.source]
        if feature.levels is None:
            block[:, start] = (column.to_numpy(dtype=np.float64) - feature.mean) / feature.sd
        else:
            block[rows, start + _positions(column, feature)] = 1.0
        start += len(feature.names)
    encoded: DataFrame = pd.DataFrame(block, index=frame.index, columns=names, copy=False)
    return encoded


def is_pandas(frame: object) -> bool:
    """True for a pandas DataFrame, False for a dask one; InvalidInput for anything else."""
    if isinstance(frame, need("pandas", "dataframe").DataFrame):
        return True
    if isinstance(frame, need("dask.dataframe", "dataframe").DataFrame):
        return False
    raise InvalidInput(f"encode takes a pandas or dask DataFrame, got {type(frame).__name__}")


def _positions(column: Series, feature: Feature) -> NDArray[np.intp]:
    """For each row, which of the feature's levels it has."""
    codes, found = _factorize(column)
    place = {level: at for at, level in enumerate(feature.levels or ())}
    unseen = [level for level in found if level not in place]
    if unseen:
        raise InvalidInput(
            f"column {feature.source!r} has the level {unseen[0]!r}"
            + (f" (and {len(unseen) - 1} more)" if len(unseen) > 1 else "")
            + f", which is not among its {len(place)} categories ({_some(place)}); name every level: "
            f"encode(..., categories={{{feature.source!r}: [...]}})"
        )
    places: NDArray[np.intp] = np.array([place[level] for level in found], dtype=np.intp)
    return places[codes]


def _factorize(column: Series) -> tuple[NDArray[np.intp], list[Any]]:
    try:
        codes, found = column.factorize()
    except TypeError as error:  # lists, arrays, dicts
        raise InvalidInput(
            f"column {column.name!r} holds values that cannot be levels ({error}); drop it or unpack it"
        ) from error
    return codes, found.tolist()


def _find_levels(frame: Any, columns: list[Any]) -> dict[Any, tuple[Any, ...]]:
    """The sorted levels of these columns, in one pass over the data."""
    if not columns:
        return {}
    if is_pandas(frame):
        found = [_distinct(frame[columns])]
    else:
        import dask

        distinct = dask.delayed(_distinct)
        found = dask.compute(*[distinct(part) for part in frame[columns].to_delayed()])
    return {column: _sorted_levels(column, set().union(*(part[column] for part in found))) for column in columns}


def _distinct(frame: DataFrame) -> dict[Any, list[Any]]:
    return {column: _factorize(frame[column])[1] for column in frame.columns}


def _sorted_levels(column: Any, levels: set[Any]) -> tuple[Any, ...]:
    if len(levels) > MAX_LEVELS:
        raise InvalidInput(
            f"column {column!r} has {len(levels)} levels ({_some(levels)}), more than {MAX_LEVELS}: "
            f"drop it, group its levels, or name the levels to keep it: categories={{{column!r}: [...]}}"
        )
    try:
        return tuple(sorted(levels))
    except TypeError:  # 1 and "a"
        return tuple(sorted(levels, key=str))


def _given_levels(column: Any, levels: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(levels, (str, bytes)):
        raise InvalidInput(f"categories[{column!r}] must be a list of levels, got {levels!r}")
    return tuple(levels)


def _levels_known(frame: Any, column: Any) -> bool:
    if not hasattr(frame[column], "cat"):
        return False
    return is_pandas(frame) or bool(frame[column].cat.known)


def _is_number(meta: DataFrame, column: Any) -> bool:
    """True for numbers and bools, False for what has levels, InvalidInput for the rest."""
    types = need("pandas", "dataframe").api.types
    dtype = meta.dtypes[column]
    remedy = {
        "M": "extract the parts that matter, such as .dt.month, .dt.dayofweek or .dt.hour, and drop the column",
        "m": "pass a number instead: .dt.total_seconds()",
        "c": "pass its real and imaginary parts as two columns",
    }
    # Arrow and time-zone dtypes have a kind as well; periods say "O"
    kind = "M" if str(dtype).startswith("period") else getattr(dtype, "kind", "O")
    if kind in remedy:
        raise InvalidInput(f"column {column!r} is {dtype}, which cannot be encoded: {remedy[kind]}")
    return bool(types.is_numeric_dtype(dtype))


def _check_columns(meta: DataFrame, named: set[Any]) -> None:
    if not meta.columns.is_unique:
        raise InvalidInput(f"column names must be unique, got twice: {_some(meta.columns[meta.columns.duplicated()])}")
    unknown = named - set(meta.columns)
    if unknown:
        raise InvalidInput(f"no such column: {_some(unknown)}; the frame has {_some(meta.columns, 50)}")


def _check_names(plan: Plan) -> None:
    seen: set[str] = set()
    for feature in plan:
        for name in feature.names:
            if name in seen:
                raise InvalidInput(
                    f"column {feature.source!r} makes a second column called {name!r}: "
                    "rename it, or make its levels differ as text"
                )
            seen.add(name)


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


def _some(values: Iterable[Any], most: int = 5) -> str:
    texts = [repr(value) for value in values]
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")
