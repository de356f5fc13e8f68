"""Parquet and CSV files as features and target."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from paramserver.datasets.base import Dataset, need
from paramserver.datasets.onehot import apply, make_plan
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    import dask.dataframe as dd

PARQUET = {".parquet", ".parq", ".pq"}
PARTITION = 32 << 20  #: bytes of Parquet, uncompressed, that a partition holds where row groups allow it
COMPRESSED = {".gz", ".bz2", ".xz", ".zip", ".zst"}


def from_files(path: str | Sequence[str], target: str, *, expand: bool = True) -> Dataset:
    """Read Parquet or CSV files into features and target; the data stay where they are until computed.

    Workers read them, and must see them under the path that the client does; the client looks only at
    what files say of themselves (the footers of Parquet, the first lines of CSV). Parquet is cut between
    row groups into partitions of about 32 MB, a plain CSV file anywhere.

    Parameters
    ----------
    path : str, or list of them
        A file, a glob, a folder of Parquet files, or a URL that fsspec knows. The suffix decides:
        ``.parquet``, ``.parq``, ``.pq``, or ``.csv``, compressed too (``.csv.gz``, one partition a file).
    target : str
        The column to predict, numeric or bool. All other columns are features: numbers and bools
        as float64, the rest one-hot by `encode`, which takes one pass over these columns.
    expand : bool
        False: one-hot columns stay codes, see `encode`.

    Returns
    -------
    Dataset
        ``X`` and ``y``, partition by partition from the same rows of the files.

    Raises
    ------
    InvalidInput
        Nothing matches the path, its files cannot be read, ``target`` is not among the columns or
        not numeric, no feature is left, or a feature cannot be encoded.
    """
    X, (y,) = split(path, [target], expand)
    return Dataset(X, y)


def split(paths: str | Sequence[str], apart: Sequence[str], expand: bool = True) -> tuple[Any, list[Any]]:
    """X, and the numeric columns that are no features: the target first, then weights and the like."""
    return encoded(opened(paths, apart), apart, expand)


def opened(paths: str | Sequence[str], apart: Sequence[str]) -> dd.DataFrame:
    """The files as they are; whatever they say of themselves is checked here, and nothing else is read."""
    every = [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if not every:
        raise InvalidInput("no paths: name a file or a glob, such as 'data/*.parquet'")
    path, frame = every[0], _read_all(every)
    names = list(frame.columns)
    for name in apart:
        if name not in names:
            raise InvalidInput(f"no column {name!r} in {path}; its columns are {', '.join(map(repr, names))}")
        if not need("pandas", "dataframe").api.types.is_numeric_dtype(frame.dtypes[name]):
            what = f"the target {name!r}" if name == apart[0] else f"the column {name!r}"
            raise InvalidInput(f"{what} is {frame.dtypes[name]}: it must be numeric or bool, such as 0/1")
    if not set(names) - set(apart):
        raise InvalidInput(f"{path} has no column but the target {apart[0]!r}: nothing to fit with")
    return frame


def encoded(frame: dd.DataFrame, apart: Sequence[str], expand: bool = True) -> tuple[Any, list[Any]]:
    """`split`'s other half, with its pass over the data."""
    plan = make_plan(frame[[name for name in frame.columns if name not in apart]])
    plans = [make_plan(frame[[name]]) for name in apart]
    # Through Delayed: dask merges partitions of a Parquet file that is read for few of its columns,
    # and y would no longer match X. It also makes both share one reading of the file.
    whole = need("dask.dataframe", "dataframe").from_delayed(frame.to_delayed(), meta=frame._meta, verify_meta=False)
    columns = [apply(whole, one)[name] for one, name in zip(plans, apart, strict=True)]
    return apply(whole, plan, expand), columns


def _read_all(paths: Sequence[str]) -> dd.DataFrame:
    """One after the other; they have the same columns."""
    frames = [_read(path) for path in paths]
    for path, frame in zip(paths[1:], frames[1:], strict=True):
        if list(frame.columns) != list(frames[0].columns):
            other = sorted(set(map(str, frame.columns)) ^ set(map(str, frames[0].columns)))
            what = f"not both have {', '.join(other)}" if other else "they are in another order"
            raise InvalidInput(f"{path} and {paths[0]} have other columns: {what}")
    return frames[0] if len(frames) == 1 else need("dask.dataframe", "dataframe").concat(frames)


def _read(path: str) -> dd.DataFrame:
    dd = need("dask.dataframe", "dataframe")
    try:
        kind, compressed = _kind(path)
        if kind == "parquet":
            # By row groups, small ones of a file together: a file may be all there is, and workers many
            return dd.read_parquet(path, split_row_groups="adaptive", blocksize=PARTITION)
        # All numbers become float64 anyway; a whole number in the first lines promises no whole numbers below
        blocks: dict[str, Any] = {"blocksize": None} if compressed else {}
        return dd.read_csv(path, assume_missing=True, **blocks)
    except InvalidInput:
        raise
    except (ImportError, OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def _kind(path: str) -> tuple[str, bool]:
    """parquet or csv, and whether the files are compressed as a whole."""
    fs, names = found(path)
    kinds = {kind_of(fs, name) for name in names}
    if len(kinds) > 1:
        raise InvalidInput(f"{path} matches files of different kinds; name one kind, such as '*.csv'")
    return kinds.pop()


def found(path: str) -> tuple[Any, list[str]]:
    """The file system of a path, glob or URL, and what it matches there: something, or it raises InvalidInput."""
    fs, _, matched = need("fsspec.core", "dataframe").get_fs_token_paths(path)
    names = [name for name in matched if fs.exists(name)]
    if not names:
        raise InvalidInput(f"nothing matches {path} on {socket.gethostname()} (working directory {os.getcwd()})")
    return fs, names


def kind_of(fs: Any, name: str) -> tuple[str, bool]:
    """parquet or csv, by the suffix or what a folder holds, and whether the file is compressed as a whole."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if fs.isdir(name):
        if not parquet_in(fs, name):
            raise InvalidInput(f"the folder {name} holds no Parquet files; for CSV files pass {name}/*.csv")
        return "parquet", False
    if suffixes and suffixes[-1] in PARQUET:
        return "parquet", False
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSED
    if ".csv" in suffixes[-2:] if compressed else suffixes[-1:] == [".csv"]:
        return "csv", compressed
    raise InvalidInput(f"{name} has no suffix that says what it is: .parquet, .parq, .pq, .csv or .csv.gz")


def parquet_in(fs: Any, folder: str) -> list[str]:
    """The Parquet files in a folder, at any depth."""
    return [name for name in sorted(fs.find(folder)) if PurePosixPath(name).suffix.lower() in PARQUET]
