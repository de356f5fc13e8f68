"""What users pass as data → chunks: for each, the Dask keys of its parts (X, y, sample_weight, offset)."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import dask
import numpy as np
from dask.core import flatten
from dask.delayed import Delayed
from distributed import Future

from paramserver.errors import InvalidInput
from paramserver.workers import at_hand
from paramserver.workers.blocks import Blocks, Encoded, aligned, matrix
from paramserver.workers.problems.base import Problem

PER_THREAD = 8  #: chunks a worker thread, where we choose
MIN_ROWS = 256  #: rows a chunk, where we choose


class Given(NamedTuple):
    """The data as the user passed them."""

    X: Any
    y: Any = None
    sample_weight: Any = None
    offset: Any = None
    exposure: Any = None


class Chunks(NamedTuple):
    """The data of a run.

    Attributes
    ----------
    keys : one tuple of Dask keys a chunk, by position X, y, sample_weight, offset; None for a part
        that there is not, the last ones left out
    held : what keeps the keys alive until the run holds them, or does not: see `let_go`
    names : feature names, or None
    """

    keys: list[tuple[Any, ...]]
    held: list[Any]
    names: tuple[str, ...] | None

    def let_go(self) -> None:
        """The run has none of them: an error's traceback would keep them on the cluster until it is collected."""
        self.held.clear()


def make(client: Any, problem: Problem, given: Given, n_chunks: int | None = None) -> Chunks:
    """Send what is to be sent, persist what is lazy, and name the keys; computes nothing itself."""
    if isinstance(given.X, (list, tuple)) and not at_hand.is_rows(given.X):
        return _from_list(client, given)
    X, names = matrix(given.X, n_chunks or default(given.X, 2))
    if X.shape[0] == 0:
        raise InvalidInput("X has no rows")
    if given.y is not None and not hasattr(given.y, "dask") and np.asarray(given.y).dtype.kind in "fiub":
        problem.check_target(np.asarray(given.y))
    columns = [None if value is None else aligned(value, what, X) for what, value in _beside(given)]
    parts = [X, *columns]
    lazy = [part for whole in parts if whole is not None for part in _lazy_parts(whole, isinstance(X, Blocks))]
    with warnings.catch_warnings():  # for data in memory a large graph is what was asked for
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        held = client.persist(lazy)
    keys = iter([key for part in held for key in flatten(part.__dask_keys__())])
    n = X.numblocks[0]
    table = [[None if part is None else next(keys) for _ in range(n)] for part in parts]
    return Chunks([_short(row) for row in zip(*table, strict=True)], list(held), names)


def _lazy_parts(part: Any, apart: bool) -> list[Any]:
    """``apart``: as delayed blocks, which Dask does not fuse."""
    if isinstance(part, Blocks):
        return part.delayed
    return list(part.to_delayed(optimize_graph=False).ravel()) if apart else [part]


def _beside(given: Given) -> list[tuple[str, Any]]:
    """(name, value) of the parts after X; an exposure stands where its offset will."""
    last = ("offset", given.offset) if given.exposure is None else ("exposure", given.exposure)
    return [("y", given.y), ("sample_weight", given.sample_weight), last]


def _short(row: Any) -> tuple[Any, ...]:
    """Without the Nones at the end."""
    row = list(row)
    while row and row[-1] is None:
        row.pop()
    return tuple(row)


def default(X: Any, threads: int) -> int:
    """How many chunks for data in memory."""
    return max(1, min(PER_THREAD * (threads or 2), rows_at_hand(X) // MIN_ROWS))


def rows_at_hand(X: Any) -> int:
    """Rows of data in memory; 0 of others."""
    if hasattr(X, "dask") or isinstance(X, Encoded):
        return 0
    shape = getattr(X, "shape", None) or (len(X) if hasattr(X, "__len__") else 0,)
    return int(shape[0])


# -- lists of chunks -------------------------------------------------------------------------------


def _from_list(client: Any, given: Given) -> Chunks:
    """Futures, delayed values, tuples of either, or objects: one chunk each."""
    X, beside = list(given.X), _beside(given)
    if given.y is None and any(value is not None for _, value in beside) and any(isinstance(x, tuple) for x in X):
        raise InvalidInput(
            "the chunks are tuples: put each one's sample_weight and offset there, (X, y, weight, offset)"
        )
    columns = [None if value is None else list(value) for _, value in beside]
    lengths = {what: len(column) for (what, _), column in zip(beside, columns, strict=True) if column is not None}
    if any(n != len(X) for n in lengths.values()):
        raise InvalidInput(f"X is a list of {len(X)} chunks beside lists of {lengths}: pass as many of each")
    if given.exposure is not None and columns[-1] is not None:
        columns[-1] = [_log_of(part, k) for k, part in enumerate(columns[-1])]
    if any(column is not None for column in columns):
        rows = [_short(row) for row in zip(X, *(c or [None] * len(X) for c in columns), strict=True)]
    else:
        rows = X
    lazy = [_lazy(part) for row in rows for part in _parts(row) if part is not None]
    persisted = iter(_persist(client, lazy))
    held = [tuple(None if part is None else next(persisted) for part in _parts(row)) for row in rows]
    return Chunks([_short(None if part is None else part.key for part in row) for row in held], held, None)


def _log_of(part: Any, chunk: int) -> Any:
    if isinstance(part, (Future, Delayed)):
        return dask.delayed(at_hand.log)(part)
    try:
        return at_hand.checked_log(part)
    except InvalidInput as error:
        raise InvalidInput(f"chunk {chunk}: {error}") from None


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
