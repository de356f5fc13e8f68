"""The data of ``paramserver fit`` and ``compare``: the flights, airline files, or files and their columns' names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

from paramserver.errors import InvalidInput

BESIDE = ("sample_weight", "offset", "exposure")  #: keywords that name a column beside the target
AIRLINES = "airlines"  #: before a colon and the path of files in the layout of the Data Expo
COLUMNS = ("y", *BESIDE)
CHUNKS = 16  #: that the flights are cut into


def add(parser: argparse.ArgumentParser) -> None:
    """The options that say which columns are what."""
    parser.add_argument("--target", dest="y", metavar="COL", help="the column to predict, for files")
    parser.add_argument("--sample-weight", metavar="COL", help="the column of each row's weight, for files")
    parser.add_argument("--offset", metavar="COL", help="the column added to each row's margin, for files")
    parser.add_argument("--exposure", metavar="COL", help="the column whose log is the offset, for files")
    parser.add_argument("--no-expand", action="store_true", help="keep categorical columns as codes: less memory")


def load(
    data: Sequence[str], given: Mapping[str, Any], chunks: int, expand: bool
) -> tuple[Callable[[], dict[str, Any]], str]:
    """What reads these data, into keywords of `launch`, once there is a cluster; and a name for the run.

    ``given`` names the columns. Mistakes that can be seen without a cluster are seen here.
    """
    columns = {what: given[what] for what in BESIDE if what in given}
    name = name_of(data)
    if list(data) == ["flights"] or _are_airlines(data):
        _check_own_target(name, given, columns)
        return (partial(_airlines, data) if _are_airlines(data) else partial(_flights, chunks, expand)), name
    target, what = given.get("y"), " ".join(data)
    if target is None:
        raise InvalidInput(f"say which column of {what} to predict: --target COL, or y: in the job file")
    if target in columns.values():
        raise InvalidInput(f"{target!r} is the target: it cannot be a weight, offset or exposure as well")
    from paramserver.datasets.files import opened

    frame = opened(data, [target, *columns.values()])
    return partial(_files, frame, target, columns, expand), name


def name_of(data: Sequence[str]) -> str:
    """What a run of these data is called, where its user does not say."""
    stem = AIRLINES if _are_airlines(data) else PurePath(next(iter(data), "")).stem
    return "".join(c if c.isalnum() or c in "-_" else "" for c in stem) or "fit"


def _are_airlines(data: Sequence[str]) -> bool:
    return any(path.startswith(f"{AIRLINES}:") for path in data)


def _check_own_target(what: str, given: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    if "y" in given:
        raise InvalidInput(f"{what} have their own target, arr_delay > 15: leave --target out")
    if columns:
        raise InvalidInput(f"{what} have no such column: leave --{min(columns).replace('_', '-')} out")


def _files(frame: Any, target: str, columns: Mapping[str, str], expand: bool) -> dict[str, Any]:
    from paramserver.datasets.files import encoded

    X, (y, *beside) = encoded(frame, [target, *columns.values()], expand=expand)
    return {"X": X, "y": y, **dict(zip(columns, beside, strict=True))}


def _flights(chunks: int, expand: bool) -> dict[str, Any]:
    from paramserver import datasets

    return datasets.flights(chunks=chunks, expand=expand)._asdict()


def _airlines(data: Sequence[str]) -> dict[str, Any]:
    """Always as codes: expanded, a file a year does not fit a worker."""
    from paramserver import datasets

    return datasets.airlines([path.removeprefix(f"{AIRLINES}:") for path in data])._asdict()
