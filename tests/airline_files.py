"""Files in the layout of the Data Expo, made up: deterministic, with all that the real ones are known for."""

from __future__ import annotations

import bz2
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = [
    "Year", "Month", "DayofMonth", "DayOfWeek", "DepTime", "CRSDepTime", "ArrTime", "CRSArrTime", "UniqueCarrier",
    "FlightNum", "TailNum", "ActualElapsedTime", "CRSElapsedTime", "AirTime", "ArrDelay", "DepDelay", "Origin", "Dest",
    "Distance", "TaxiIn", "TaxiOut", "Cancelled", "CancellationCode", "Diverted", "CarrierDelay", "WeatherDelay",
    "NASDelay", "SecurityDelay", "LateAircraftDelay",
]  # fmt: skip
#: Carriers came and went: year → those that flew
CARRIERS = {1987: ["AA", "EA", "PA (1)", "PI"], 1995: ["AA", "DL", "HP", "UA"], 2008: ["9E", "AA", "B6", "DL"]}
AIRPORTS = ["ABQ", "ATL", "BOS", "JFK", "ORD", "SFO"]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def year(number: int, n: int = 600) -> pd.DataFrame:
    """A year's flights, everything as text: what a plain reader of the file sees."""
    rng = np.random.default_rng(number)
    day = pd.Timestamp(f"{number}-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 365, n)), "D")
    departs = rng.integers(0, 24 * 60, n)
    departs[:3] = 0, 24 * 60, 24 * 60 - 1
    miles = rng.integers(80, 2700, n)
    lasts = 40 + miles // 8
    arrives = departs + lasts
    origin, carrier = rng.integers(0, 6, n), rng.integers(0, 4, n)
    delay = np.round(rng.gumbel(-6 + 0.006 * departs + 5 * (carrier == 1) + 4 * (origin == 4), 15)).astype(int)
    frame = pd.DataFrame("NA", index=range(n), columns=COLUMNS)
    frame["Year"], frame["Month"], frame["DayofMonth"] = number, day.month, day.day
    frame["DayOfWeek"] = day.day_of_week + 1
    frame["CRSDepTime"], frame["CRSArrTime"] = _clock(departs), _clock(np.where(arrives == 24 * 60, 0, arrives))
    frame["DepTime"], frame["ArrTime"] = _clock(departs + 5), _clock(arrives + delay)
    frame["UniqueCarrier"] = np.array(CARRIERS[number])[carrier]
    frame["FlightNum"] = rng.integers(1, 3000, n)
    frame["TailNum"] = "NA" if number < 1995 else "N" + pd.Series(rng.integers(100, 999, n)).astype(str) + "\xc9"
    frame["CRSElapsedTime"], frame["ActualElapsedTime"] = lasts, lasts + delay - 5
    frame["ArrDelay"], frame["DepDelay"] = delay, 5
    frame["Origin"], frame["Dest"] = (
        np.array(AIRPORTS)[origin],
        np.array(AIRPORTS)[(origin + rng.integers(1, 6, n)) % 6],
    )
    frame["Distance"], frame["Cancelled"], frame["Diverted"] = miles, 0, 0
    frame = frame.astype(str)
    cancelled, diverted = np.arange(n) % 41 == 7, np.arange(n) % 97 == 11
    frame.loc[cancelled, ["DepTime", "ArrTime", "ActualElapsedTime", "ArrDelay", "DepDelay"]] = "NA"
    frame.loc[cancelled, ["Cancelled", "CancellationCode"]] = ["1", "A" if number > 2002 else "NA"]
    frame.loc[diverted, ["ArrTime", "ActualElapsedTime", "ArrDelay"]] = "NA"
    frame.loc[diverted, "Diverted"] = "1"
    frame.loc[frame.index % 89 == 5, "Distance"] = "NA"
    return frame


def _clock(minutes: np.ndarray) -> np.ndarray:
    """hhmm without leading zeros; midnight at the end of a day is 2400, past it the next day begins."""
    wrapped = np.where(minutes > 24 * 60, minutes % (24 * 60), minutes)
    return wrapped // 60 * 100 + wrapped % 60


def write_csv(frame: pd.DataFrame, path: Path, quoting: int = csv.QUOTE_MINIMAL) -> None:
    """Plain, or bz2 by its suffix; in an encoding that is not UTF-8, as files of some years are."""
    text = io.StringIO()
    frame.to_csv(text, index=False, quoting=quoting, lineterminator="\r\n" if quoting else "\n")
    data = text.getvalue().encode("latin-1")
    path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)


def write_parquet(frame: pd.DataFrame, path: Path, rows_a_group: int) -> None:
    """Of the same columns, the numbers as numbers with gaps."""
    numbers = [column for column in COLUMNS if column not in ("UniqueCarrier", "TailNum", "Origin", "Dest")]
    numbers.remove("CancellationCode")
    typed = frame.mask(frame == "NA").astype(dict.fromkeys(numbers, "Float64")).astype({"Month": "Int64"})
    typed.to_parquet(path, row_group_size=rows_a_group, index=False)


def one_hot(frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The features and the target that the file stands for, worked out plainly with pandas."""
    kept = frame[(frame[["ArrDelay", "Distance"]] != "NA").all(axis=1)]
    clocks = {end: kept[f"CRS{end}Time"].astype(int) for end in ("Dep", "Arr")}
    minutes = {end: (clock // 100 * 60 + clock % 100) % 1440 for end, clock in clocks.items()}
    codes = pd.DataFrame(
        {
            "carrier": kept["UniqueCarrier"],
            "origin": kept["Origin"],
            "dest": kept["Dest"],
            "month": pd.Categorical(kept["Month"].astype(int), range(1, 13)),
            "hour": pd.Categorical(minutes["Dep"] // 60, range(24)),
            "weekday": pd.Categorical(np.array(WEEKDAYS)[kept["DayOfWeek"].astype(int) - 1], WEEKDAYS),
        }
    )
    numbers = pd.DataFrame(
        {
            "distance": kept["Distance"].astype(float),
            "sched_dep_minute": minutes["Dep"],
            "sched_arr_minute": minutes["Arr"],
        }
    )
    scaled = (numbers - numbers.mean()) / numbers.std(ddof=0)
    X = pd.get_dummies(codes, prefix_sep="=").astype(float).join(scaled)
    return X, (kept["ArrDelay"].astype(int) > 15).to_numpy(float)
