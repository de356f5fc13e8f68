"""One-hot encoding with names kept: the plan is made here, and applied to each partition where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from numbers import Number
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from paramserver.datasets.base import need
from paramserver.datasets.transform import Feature, Plan, factorize, names_of, some, tabulate, transform
from paramserver.errors import InvalidInput
from paramserver.workers.blocks import Encoded

if TYPE_CHECKING:
    from pandas import DataFrame

FrameT = TypeVar("FrameT")

#: Levels that are looked for, not given, end here: an identifier or free text would make a matrix that fits nowhere.
MAX_LEVELS = 5_000

#: Kinds of dtype that are neither numbers nor levels, and what to make of them
REMEDIES = {
    "M": "extract the parts that matter, such as .dt.month, .dt.day_of_week or .dt.hour, and drop the column",
    "m": "pass a number instead: .dt.total_seconds()",
    "c": "pass its real and imaginary parts as two columns",
}


@overload
def encode(
    frame: FrameT,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
    expand: Literal[True] = True,
) -> FrameT: ...


@overload
def encode(
    frame: Any,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
    expand: bool,
) -> Any: ...


def encode(
    frame: Any,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
    expand: bool = True,
) -> Any:
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
    expand : bool
        False: the same columns as numbers and codes, a few bytes a row for each categorical column
        however many levels it has. `launch` takes it in the place of X.

    Returns
    -------
    pandas or dask DataFrame
        The kind that came; float64. A dask frame stays lazy, with the same partitions. With
        ``expand=False`` a `Table` for a pandas frame, for a dask frame an `Encoded` of lazy tables.

    Raises
    ------
    InvalidInput
        A column cannot be encoded, has missing values, or has a level that is not among its
        categories. For a dask frame the last two are raised where the partition is encoded.
    """
    return apply(frame, make_plan(frame, columns, categories=categories), expand)


def make_plan(
    frame: Any,
    columns: Sequence[str] | str | None = None,
    *,
    categories: Mapping[str, Iterable[Any]] | None = None,
) -> Plan:
    """How ``encode`` encodes this frame; computes the levels of a dask frame that are not known."""
    meta = frame if is_pandas(frame) else frame._meta
    given = {column: given_levels(column, levels) for column, levels in (categories or {}).items()}
    wanted = {columns} if isinstance(columns, str) else set(columns or ())
    _check_columns(meta, wanted | set(given))

    categorical = {column for column in meta.columns if column in wanted or not _is_number(meta, column)}
    known = {column: tuple(meta[column].cat.categories) for column in categorical if _levels_known(frame, column)}
    known |= given
    for column, levels in _find_levels(frame, [c for c in meta.columns if c in categorical - set(known)]).items():
        _check_found(column, levels, asked=column in wanted)
        known[column] = _sorted(levels)
    plan = tuple(Feature(column, known.get(column)) for column in meta.columns)
    _check_names(plan)
    return plan


def apply(frame: Any, plan: Plan, expand: bool = True) -> Any:
    """Encode a pandas frame now, a dask frame lazily, by a plan."""
    if not expand:
        return tabulate(frame, plan) if is_pandas(frame) else _lazy_tables(frame, plan)
    if is_pandas(frame):
        return transform(frame, plan)
    meta = transform(frame._meta, plan)
    return frame.map_partitions(transform, plan, meta=meta, enforce_metadata=False)


def _lazy_tables(frame: Any, plan: Plan) -> Encoded:
    dask = need("dask", "dataframe")
    encode_part = dask.delayed(tabulate, pure=True)
    # Not optimised: dask might merge partitions, and y's would no longer match.
    parts = frame.to_delayed(optimize_graph=False)
    return Encoded([encode_part(part, plan) for part in parts], names_of(plan))


def is_pandas(frame: object) -> bool:
    """True for a pandas DataFrame, False for a dask one; InvalidInput for anything else."""
    if isinstance(frame, need("pandas", "dataframe").DataFrame):
        return True
    if isinstance(frame, need("dask.dataframe", "dataframe").DataFrame):
        return False
    raise InvalidInput(f"encode takes a pandas or dask DataFrame, got {type(frame).__name__}")


def _find_levels(frame: Any, columns: list[Any]) -> dict[Any, set[Any]]:
    """The levels of these columns, in one pass over the data."""
    if not columns:
        return {}
    if is_pandas(frame):
        found = [_distinct(frame[columns])]
    else:
        import dask

        distinct = dask.delayed(_distinct)
        found = dask.compute(*[distinct(part) for part in frame[columns].to_delayed()])
    return {column: set().union(*(part[column] for part in found)) for column in columns}


def _distinct(frame: DataFrame) -> dict[Any, list[Any]]:
    return {column: factorize(frame[column])[1] for column in frame.columns}


def _check_found(column: Any, levels: set[Any], *, asked: bool) -> None:
    """Refuse levels that nobody meant as levels."""
    if any(isinstance(level, date) for level in levels):  # Parquet's dates have no dtype of their own
        raise InvalidInput(f"column {column!r} holds dates, which cannot be encoded: {REMEDIES['M']}")
    if levels and not asked and all(isinstance(level, Number) and not isinstance(level, bool) for level in levels):
        raise InvalidInput(
            f"column {column!r} holds numbers as objects ({some(levels)}): convert it with .astype('float64'), "
            f"or pass columns=[{column!r}] to encode each number as a level"
        )
    if len(levels) > MAX_LEVELS:
        raise InvalidInput(
            f"column {column!r} has {len(levels)} levels ({some(levels)}), more than {MAX_LEVELS}: "
            f"drop it, group its levels, or name the levels to keep it: categories={{{column!r}: [...]}}"
        )


def _sorted(levels: set[Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(levels))
    except TypeError:  # 1 and "a"
        return tuple(sorted(levels, key=str))


def given_levels(column: Any, levels: Iterable[Any]) -> tuple[Any, ...]:
    """Levels that a user named, if they are a list of them."""
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
    # Arrow and time-zone dtypes have a kind as well; periods say "O"
    kind = "M" if str(dtype).startswith("period") else getattr(dtype, "kind", "O")
    if kind in REMEDIES:
        raise InvalidInput(f"column {column!r} is {dtype}, which cannot be encoded: {REMEDIES[kind]}")
    return bool(types.is_numeric_dtype(dtype))


def _check_columns(meta: DataFrame, named: set[Any]) -> None:
    if not meta.columns.is_unique:
        raise InvalidInput(f"column names must be unique, got twice: {some(meta.columns[meta.columns.duplicated()])}")
    unknown = named - set(meta.columns)
    if unknown:
        raise InvalidInput(f"no such column: {some(unknown)}; the frame has {some(meta.columns, 50)}")


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
