"""Flights within the United States, in the layout of the Data Expo of 2009: 1987 to 2008, a file a year."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from paramserver.datasets.base import Dataset, need
from paramserver.datasets.nycflights import CATEGORICAL, LATE, NUMERIC, WEEKDAYS
from paramserver.datasets.onehot import apply, given_levels
from paramserver.datasets.pieces import Layout, Piece, cut, read
from paramserver.datasets.transform import Feature, Plan, factorize, some
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LAYOUT = Layout(
    "Data Expo airline",
    ("UniqueCarrier", "Origin", "Dest"),
    ("Month", "DayOfWeek", "CRSDepTime", "CRSArrTime", "Distance", "ArrDelay"),
)
CALENDAR: dict[str, Sequence[Any]] = {"month": range(1, 13), "hour": range(24), "weekday": WEEKDAYS}
RANGES = {"Month": (1, 12), "DayOfWeek": (1, 7)}
LAST_CLOCK = 2959  #: 2400 and what is past it is of the next day


def airlines(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    rows: int = 250_000,
    categories: Mapping[str, Iterable[Any]] | None = None,
    scale: Mapping[str, tuple[float, float]] | None = None,
    expand: bool = False,
    client: Any = None,
) -> Dataset:
    """Airline on-time data in the layout of the Data Expo, to predict which flights come late: as `flights`, but many.

    Workers look for the files, cut them into partitions and read these; the client opens none. One
    pass over the files is made now, for the levels of carrier, origin and dest and for the scale of
    the numbers, unless ``categories`` and ``scale`` give all of them.

    Parameters
    ----------
    paths : str, path or sequence of them
        Files, globs, folders of Parquet files, or URLs that fsspec knows, as every worker sees them;
        local ones are taken from the client's working directory. The suffix decides: ``.csv``,
        compressed too (``.csv.bz2``), or Parquet of the same columns. Of these are used Month,
        DayOfWeek, CRSDepTime, CRSArrTime, UniqueCarrier, Origin, Dest, Distance and ArrDelay.
    rows : int
        About how many rows of the files a partition holds. Plain CSV is cut to measure and Parquet
        between its row groups; a compressed CSV file is one partition, however long.
    categories : mapping of feature to levels, optional
        For carrier, origin, dest: their levels, in this order. Files read with the same categories
        and scale have the same columns, so that a run can be given those of another year.
    scale : mapping of feature to (mean, sd), optional
        For distance, sched_dep_minute, sched_arr_minute; otherwise those of all rows.
    expand : bool
        True: one-hot columns as numbers, 8 bytes each. With hundreds of airports that is kilobytes a
        row, too much for a file a year; codes take 36 bytes, hence the default, not that of `flights`.
    client : distributed.Client, optional
        Whose workers look and pass; the current one if not given, this process if there is none.

    Returns
    -------
    Dataset
        ``X``: carrier, origin, dest, month (1 to 12), hour (0 to 23) and weekday, one-hot or as
        codes, then the distance and the scheduled times (minutes since midnight), each with mean 0
        and standard deviation 1: the names of `flights`. ``y``: 1.0 where a flight arrived more than
        15 minutes late, else 0.0.

    Raises
    ------
    InvalidInput
        Nothing matches a path; a file, which is named, is not of the layout or cannot be read; an
        argument cannot be used. Where no pass is made, what is wrong within a file is an error of
        its partition.

    Notes
    -----
    Flights without a known delay on arrival (cancelled, diverted) and those that lack one of the
    used columns are left out. The hour is that of the scheduled departure, as in `flights`; 2400 is
    midnight, hour 0. The year is no feature, since `flights` has one year only.
    """
    if not (isinstance(rows, (int, np.integer)) and rows >= 1):
        raise InvalidInput(f"rows must be a whole number ≥ 1, got {rows!r}")
    levels, scale = _checked_levels(categories or {}), _checked_scale(scale or {})

    pieces = _compute([dask.delayed(cut)(_absolute(paths), LAYOUT, int(rows))], client)[0]
    parts = [dask.delayed(compact)(piece) for piece in pieces]
    plan = _plan(parts, levels, scale, client)
    frame = need("dask.dataframe", "dataframe").from_delayed(parts, meta=_typed({}), verify_meta=False)
    late = apply(frame[[LATE]], (Feature(LATE),))[LATE]
    return Dataset(apply(frame, plan, expand), late)


def _absolute(paths: Any) -> list[str]:
    """Where the client means them to be, for workers in other directories."""
    single = isinstance(paths, (str, os.PathLike))
    texts = [os.fspath(path) for path in ([paths] if single else paths)]
    if not all(texts) or not texts:
        raise InvalidInput("no paths: name a file or a glob, such as 'data/*.csv.bz2'")
    return [text if "://" in text else os.path.abspath(os.path.expanduser(text)) for text in texts]


def _compute(lazy: list[Any], client: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = dask.compute(*lazy, scheduler=client)
    return found


# -- on the workers --------------------------------------------------------------------------------


def compact(piece: Piece) -> DataFrame:
    """The features of a piece's flights, as codes and numbers, and whether they were late."""
    pd = need("pandas", "dataframe")
    raw = read(piece, LAYOUT).dropna(ignore_index=True)
    for column, (low, high) in RANGES.items():
        _refuse(piece, raw[column], ~raw[column].between(low, high), f"not within {low} … {high}")
    departs, arrives = _minutes(piece, raw["CRSDepTime"]), _minutes(piece, raw["CRSArrTime"])
    return _typed(
        {
            "carrier": raw["UniqueCarrier"],
            "origin": raw["Origin"],
            "dest": raw["Dest"],
            "month": raw["Month"],
            "hour": departs // 60,
            "weekday": pd.Categorical.from_codes(raw["DayOfWeek"].astype(np.int8) - 1, WEEKDAYS),
            "distance": raw["Distance"],
            "sched_dep_minute": departs,
            "sched_arr_minute": arrives,
            LATE: raw["ArrDelay"] > 15,
        }
    )


def _typed(columns: dict[str, Any]) -> DataFrame:
    """A few bytes a value; without any, no rows of all columns."""
    pd = need("pandas", "dataframe")
    weekday = pd.CategoricalDtype(WEEKDAYS)
    small = {"month": np.int8, "hour": np.int8, "weekday": weekday, "distance": np.float32, LATE: np.bool_}
    kinds: dict[str, Any] = {**dict.fromkeys(CATEGORICAL, "category"), **dict.fromkeys(NUMERIC, np.int16), **small}
    flights: DataFrame = pd.DataFrame(columns, columns=[*CATEGORICAL, *NUMERIC, LATE]).astype(kinds)
    return flights


def _minutes(piece: Piece, clock: Series) -> Series:
    """Minutes since midnight: 1745 is a quarter to six, 2400 is 0."""
    _refuse(piece, clock, ~clock.between(0, LAST_CLOCK) | (clock % 100 >= 60), "no time of day as hhmm")
    return (clock // 100 * 60 + clock % 100) % (24 * 60)


def _refuse(piece: Piece, column: Series, wrong: Series, why: str) -> None:
    if wrong.any():
        raise InvalidInput(
            f"{piece.url} is not of the {LAYOUT.name} layout: its {column.name} is {column[wrong].iloc[0]:g} "
            f"in a row (and in {int(wrong.sum()) - 1} more), which is {why}"
        )


# -- the pass over the files -----------------------------------------------------------------------


class Look(NamedTuple):
    """What one piece has."""

    rows: int
    levels: dict[str, set[Any]]
    sums: Any  #: of each number, and of its square: of whole numbers, and so exact
    squares: Any


def look(flights: DataFrame) -> Look:
    """What one piece has: the levels of its texts, the sums of its numbers."""
    numbers = flights[NUMERIC].to_numpy(np.float64)
    levels = {name: set(factorize(flights[name])[1]) for name in CATEGORICAL if name not in CALENDAR}
    return Look(len(flights), levels, numbers.sum(axis=0), (numbers**2).sum(axis=0))


def _plan(parts: list[Any], levels: dict[str, Any], scale: dict[str, tuple[float, float]], client: Any) -> Plan:
    """How to encode all pieces alike, from what was given and else from one pass over them."""
    levels = {**CALENDAR, **levels}
    if not (levels.keys() >= set(CATEGORICAL) and scale.keys() >= set(NUMERIC)):
        looks = _compute([dask.delayed(look)(part) for part in parts], client)
        if not sum(one.rows for one in looks):
            raise InvalidInput("no flight with a known ArrDelay in these files: nothing to fit")
        found = {name: sorted(set().union(*(one.levels[name] for one in looks))) for name in looks[0].levels}
        levels, scale = {**found, **levels}, {**_moments(looks), **scale}
    texts = [Feature(name, tuple(levels[name])) for name in CATEGORICAL]
    return (*texts, *(Feature(name, None, *scale[name]) for name in NUMERIC))


def _moments(looks: Sequence[Look]) -> dict[str, tuple[float, float]]:
    rows = sum(one.rows for one in looks)
    means = sum(one.sums for one in looks) / rows
    variances = sum(one.squares for one in looks) / rows - means**2
    sds = [math.sqrt(variance) if variance > 0 else 1.0 for variance in variances]
    return dict(zip(NUMERIC, zip(map(float, means), sds, strict=True), strict=True))


# -- what is given ---------------------------------------------------------------------------------


def _checked_levels(categories: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Any, ...]]:
    open_ = [name for name in CATEGORICAL if name not in CALENDAR]
    unknown = set(categories) - set(open_)
    if unknown:
        raise InvalidInput(f"categories has {some(unknown)}; levels can be given for {some(open_)}")
    return {name: given_levels(name, levels) for name, levels in categories.items()}


def _checked_scale(scale: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    checked = {}
    for name, value in scale.items():
        if name not in NUMERIC:
            raise InvalidInput(f"scale has {name!r}; it is for {some(NUMERIC)}")
        try:
            mean, sd = map(float, value)
        except (TypeError, ValueError):
            raise InvalidInput(f"scale[{name!r}] must be (mean, sd), got {value!r}") from None
        if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
            raise InvalidInput(f"scale[{name!r}] must be a finite mean and an sd > 0, got {value!r}")
        checked[name] = (mean, sd)
    return checked
