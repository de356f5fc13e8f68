"""What users pass → one block a chunk; a block is an array, scipy sparse or a table of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from scipy.sparse import issparse

from paramserver.errors import InvalidInput
from paramserver.workers import at_hand
from paramserver.workers.design import Design

NUMBERS = "fiub"  #: kinds of dtype

Names = tuple[str, ...] | None


@dataclass(frozen=True)
class Encoded:
    """Lazy `Table`s, one a partition of the frame they encode; `launch` takes it as X.

    Attributes
    ----------
    tables : list of delayed `Table`
    names : feature names
    """

    tables: list[Delayed]
    names: tuple[str, ...]

    @property
    def npartitions(self) -> int:
        """As many as the frame's."""
        return len(self.tables)


class Blocks(NamedTuple):
    """Rows in delayed blocks that no dask array can hold, or should: Dask's fusion lost keys of such arrays."""

    delayed: list[Delayed]
    rows: tuple[float, ...]  #: of each; nan where unknown
    columns: int

    @property
    def shape(self) -> tuple[float, int]:
        """As a dask array's."""
        return sum(self.rows), self.columns

    @property
    def chunks(self) -> tuple[tuple[float, ...], tuple[int]]:
        """As a dask array's."""
        return self.rows, (self.columns,)

    @property
    def numblocks(self) -> tuple[int, int]:
        """As a dask array's."""
        return len(self.delayed), 1


def matrix(X: Any, n_chunks: int) -> tuple[Any, Names]:
    """X as a dask array or `Blocks`, one block a chunk, and its column names if there are any."""
    if isinstance(X, Encoded):
        return Blocks(X.tables, (np.nan,) * len(X.tables), len(X.names)), X.names
    if isinstance(X, Design) or issparse(X):
        return _pieces(X, n_chunks), getattr(X, "names", None)
    X, names = collection(X, "X", None, n_chunks)
    if X.ndim == 1:
        X = X[:, None]
    if X.ndim != 2:
        raise InvalidInput(f"X must have two dimensions, got shape {X.shape}")
    at_hand.check_numbers(X, "X")
    X = X.rechunk({1: -1}) if X.numblocks[1] > 1 else X
    return (X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)), names


def _pieces(X: Any, n_chunks: int) -> Blocks:
    """A sparse matrix or a design in memory, cut by rows."""
    if issparse(X):
        at_hand.check_numbers(X, "X")
        X = (X.reshape(-1, 1) if X.ndim == 1 else X).tocsr()
    take = X.take if isinstance(X, Design) else X.__getitem__
    n, d = X.shape
    rows = -(-max(n, 1) // n_chunks)
    cuts = [slice(a, min(a + rows, n)) for a in range(0, max(n, 1), rows)]
    lengths = tuple(cut.stop - cut.start for cut in cuts)
    return Blocks([dask.delayed(take(cut), traverse=False) for cut in cuts], lengths, d)


def collection(value: Any, what: str, like: Any, n_chunks: int = 1) -> tuple[Any, Names]:
    """(a dask array, column names if there are any); cut ``like`` the chunks of X, if these are given."""
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
    if not all(getattr(kind, "kind", "O") in NUMBERS for kind in kinds):
        return frame
    mixed = len({kind.kind == "b" for kind in kinds}) > 1
    return frame.astype(np.float64) if mixed or not all(isinstance(kind, np.dtype) for kind in kinds) else frame


def _numeric_columns(frame: Any, what: str) -> Names:
    if getattr(frame, "ndim", 2) != 2:
        return None
    bad = [str(name) for name, kind in frame.dtypes.items() if getattr(kind, "kind", "O") not in NUMBERS]
    if bad:
        raise InvalidInput(
            f"{what} has non-numeric columns {', '.join(bad[:6])}: encode them first, "
            "for instance with paramserver.datasets.encode(frame)"
        )
    return tuple(map(str, frame.columns))


# -- columns beside X ------------------------------------------------------------------------------


def aligned(value: Any, what: str, X: Any) -> Any:
    """y, sample_weight, offset or exposure cut into the same chunks as X; an exposure becomes an offset."""
    if not hasattr(value, "dask"):
        value = _at_hand(value, what, X)
    column, _ = collection(value, what, X.chunks[0])
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1 and not (what == "offset" and column.ndim == 2):
        raise InvalidInput(f"{what} must be one column, got shape {column.shape}")
    at_hand.check_numbers(column, what)
    column = _like(column, what, X)
    return column.map_blocks(at_hand.log, dtype=np.float64) if what == "exposure" and hasattr(value, "dask") else column


def _at_hand(value: Any, what: str, X: Any) -> Any:
    """A column in memory, checked before it is sent."""
    if not np.ndim(value) and not issparse(value):
        raise InvalidInput(f"{what} must be one column, a value a row, got {value!r}")
    if issparse(value):
        raise InvalidInput(f"{what} must be a dense column, got {type(value).__name__}: pass {what}.toarray()")
    if np.isnan(X.shape[0]):
        raise InvalidInput(
            f"{what} is in memory while X has unknown chunk sizes: call X.compute_chunk_sizes() first, "
            f"or make {what} a dask collection of the same partitions"
        )
    if np.ndim(value) and len(value) != X.shape[0]:
        raise InvalidInput(f"{what} has {len(value)} rows where X has {X.shape[0]}")
    if what == "exposure":
        return at_hand.checked_log(value)
    if what == "sample_weight":
        return at_hand.checked_weight(value)
    return at_hand.checked(value) if what == "offset" else value


def _like(column: Any, what: str, X: Any) -> Any:
    if np.isnan(X.shape[0]) or np.isnan(column.shape[0]):
        if column.numblocks[0] != X.numblocks[0]:
            raise InvalidInput(
                f"{what} has {column.numblocks[0]} chunks where X has {X.numblocks[0]} and sizes are unknown: "
                "repartition them alike, or call compute_chunk_sizes() on both"
            )
        return column if column.ndim == 1 else column.rechunk({1: -1})
    if column.shape[0] != X.shape[0]:
        raise InvalidInput(f"{what} has {column.shape[0]} rows where X has {X.shape[0]}")
    wanted = (X.chunks[0], *(-1,) * (column.ndim - 1))
    return column if column.chunks[0] == X.chunks[0] and column.ndim == 1 else column.rechunk(wanted)
