"""What users pass as data → chunks: for each, the Dask keys of its parts (X, y, sample_weight)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.core import flatten
from dask.delayed import Delayed
from distributed import Future

from paramserver.errors import InvalidInput
from paramserver.workers.problems.base import Problem

PER_THREAD = 8  #: chunks a worker thread, where we choose
MIN_ROWS = 256  #: rows a chunk, where we choose


class Chunks(NamedTuple):
    """The data of a run.

    Attributes
    ----------
    keys : one tuple of Dask keys a chunk
    held : what keeps the keys alive until the run holds them
    names : feature names, or None
    """

    keys: list[tuple[Any, ...]]
    held: Any
    names: tuple[str, ...] | None


def make(client: Any, problem: Problem, X: Any, y: Any, weight: Any, n_chunks: int | None = None) -> Chunks:
    """Send what is to be sent, persist what is lazy, and name the keys; computes nothing itself."""
    if isinstance(X, (list, tuple)) and not _is_rows(X):
        return _from_list(client, X, y, weight)
    X, names = _collection(X, "X", None, n_chunks or default(X, 2))
    if X.ndim == 1:
        X = X[:, None]
    if X.ndim != 2:
        raise InvalidInput(f"X must have two dimensions, got shape {X.shape}")
    if X.shape[0] == 0:
        raise InvalidInput("X has no rows")
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    parts = [_floats(X, "X")]
    for what, value in (("y", y), ("sample_weight", weight)):
        if value is not None:
            if what == "y" and not hasattr(value, "dask") and np.asarray(value).dtype.kind in "fiub":
                problem.check_target(np.asarray(value))
            parts.append(_aligned(value, what, X))
    with warnings.catch_warnings():  # for data in memory a large graph is what was asked for
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        parts = list(client.persist(parts))
    keys = [list(flatten(part.__dask_keys__())) for part in parts]
    return Chunks(list(zip(*keys, strict=True)), parts, names)


def _is_rows(X: Any) -> bool:
    """A list of numbers or of rows of numbers is an array that was not made one yet."""
    first = X[0] if len(X) else None
    if isinstance(first, (list, tuple)) and len(first):
        return isinstance(first[0], (int, float, np.number))
    return isinstance(first, (int, float, np.number))


def default(X: Any, threads: int) -> int:
    """How many chunks for data in memory."""
    rows = len(X) if hasattr(X, "__len__") and not hasattr(X, "dask") else 0
    return max(1, min(PER_THREAD * (threads or 2), rows // MIN_ROWS))


def _collection(value: Any, what: str, like: Any, n_chunks: int = 1) -> tuple[Any, tuple[str, ...] | None]:
    """(a dask array, column names if there are any)."""
    names = None
    if hasattr(value, "to_dask_array"):
        names = _numeric_columns(value, what)
        return _frame_array(_plain(value)), names
    if isinstance(value, da.Array):
        return value, None
    if hasattr(value, "to_numpy"):
        names = _numeric_columns(value, what)
        value = _plain(value).to_numpy()
    array = np.asarray(value)
    if array.ndim == 0:
        raise InvalidInput(
            f"{what} must be an array, a dask collection or a list of chunks, got {type(value).__name__}"
        )
    if like is not None:
        return da.from_array(array, chunks=(like, *array.shape[1:])), names
    rows = -(-max(len(array), 1) // n_chunks)
    return da.from_array(array, chunks=(rows, *(-1,) * (array.ndim - 1))), names


def _frame_array(frame: Any) -> Any:
    """A frame's values with the frame's own partitions.

    Dask may merge the partitions of a frame read with few columns while it optimises; X and y of one
    file would not match any more. (Optimising both together is no way out: it computed wrong values.)
    """
    array = frame.to_dask_array()
    if array.numblocks[0] == frame.npartitions:
        return array
    blocks = [dask.delayed(np.asarray)(part) for part in frame.to_delayed(optimize_graph=False)]
    columns = () if frame.ndim == 1 else (len(frame.columns),)
    return da.concatenate([da.from_delayed(block, (np.nan, *columns), dtype=array.dtype) for block in blocks])


def _plain(frame: Any) -> Any:
    """Columns that pandas would make an array of objects, as floats: bools among numbers, nullable types."""
    kinds = set(frame.dtypes) if getattr(frame, "ndim", 2) == 2 else {frame.dtype}
    if not all(getattr(kind, "kind", "O") in "fiub" for kind in kinds):
        return frame
    mixed = len({kind.kind == "b" for kind in kinds}) > 1
    return frame.astype(np.float64) if mixed or not all(isinstance(kind, np.dtype) for kind in kinds) else frame


def _numeric_columns(frame: Any, what: str) -> tuple[str, ...] | None:
    if getattr(frame, "ndim", 2) != 2:
        return None
    bad = [str(name) for name, kind in frame.dtypes.items() if getattr(kind, "kind", "O") not in "fiub"]
    if bad:
        raise InvalidInput(
            f"{what} has non-numeric columns {', '.join(bad[:6])}: encode them first, "
            "for instance with paramserver.datasets.encode(frame)"
        )
    return tuple(map(str, frame.columns))


def _floats(array: Any, what: str) -> Any:
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise InvalidInput(f"{what} must be numbers, got dtype {array.dtype}: encode it first")
    return array


def _aligned(value: Any, what: str, X: Any) -> Any:
    """The column cut into the same chunks as X."""
    known = not np.isnan(X.shape[0])
    if not hasattr(value, "dask") and not known:
        raise InvalidInput(
            f"{what} is in memory while X has unknown chunk sizes: call X.compute_chunk_sizes() first, "
            f"or make {what} a dask collection of the same partitions"
        )
    if not hasattr(value, "dask") and len(value) != X.shape[0]:
        raise InvalidInput(f"{what} has {len(value)} rows where X has {X.shape[0]}")
    column, _ = _collection(value, what, X.chunks[0])
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise InvalidInput(f"{what} must be one column, got shape {column.shape}")
    if column.dtype.kind not in "fiub":
        raise InvalidInput(f"{what} must be numbers, got dtype {column.dtype}: encode it first")
    if known and not np.isnan(column.shape[0]):
        if column.shape[0] != X.shape[0]:
            raise InvalidInput(f"{what} has {column.shape[0]} rows where X has {X.shape[0]}")
        return column if column.chunks[0] == X.chunks[0] else column.rechunk((X.chunks[0],))
    if column.numblocks[0] != X.numblocks[0]:
        raise InvalidInput(
            f"{what} has {column.numblocks[0]} chunks where X has {X.numblocks[0]} and sizes are unknown: "
            "repartition them alike, or call compute_chunk_sizes() on both"
        )
    return column


def _from_list(client: Any, X: Sequence[Any], y: Any, weight: Any) -> Chunks:
    """Futures, delayed values, tuples of either, or objects: one chunk each."""
    columns = [list(part) for part in (X, y, weight) if part is not None]
    if len({len(column) for column in columns}) != 1:
        raise InvalidInput(
            f"X, y and sample_weight are lists of {[len(c) for c in columns]} chunks: pass as many of each"
        )
    rows = [row[0] if len(columns) == 1 else tuple(row) for row in zip(*columns, strict=True)]
    lazy = [_lazy(part) for row in rows for part in _parts(row)]
    persisted = iter(_persist(client, lazy))
    held = [tuple(next(persisted) for _ in _parts(row)) for row in rows]
    return Chunks([tuple(part.key for part in row) for row in held], held, None)


def _parts(row: Any) -> tuple[Any, ...]:
    """A tuple of futures or delayed values is X, y, …; anything else is one object."""
    split = isinstance(row, tuple) and any(isinstance(part, (Future, Delayed)) for part in row)
    return row if split else (row,)


def _lazy(part: Any) -> Any:
    return part if isinstance(part, (Future, Delayed)) else dask.delayed(part, traverse=False)


def _persist(client: Any, values: list[Any]) -> list[Any]:
    lazy = [value for value in values if isinstance(value, Delayed)]
    made = iter(client.persist(lazy)) if lazy else iter(())
    return [next(made) if isinstance(value, Delayed) else value for value in values]
