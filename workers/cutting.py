"""Data at hand → the parts of each chunk, without a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import issparse

from paramserver.errors import InvalidInput
from paramserver.workers import at_hand
from paramserver.workers.design import Design


def cut(X: Any, y: Any, weight: Any, offset: Any, exposure: Any, chunks: int | Iterable[Any]) -> list[Any]:
    """Each chunk's parts, as `Problem.prepare` takes them; of a list, one each."""
    at_hand.check_one(offset, exposure)
    if isinstance(X, (list, tuple)) and not at_hand.is_rows(X):
        if any(part is not None for part in (y, weight, offset, exposure)):
            raise InvalidInput("a list of chunks holds all that is theirs: pass [(X_0, y_0, weight_0, offset_0), …]")
        return [chunk if isinstance(chunk, tuple) else (chunk,) for chunk in X]
    offset = at_hand.checked_log(exposure) if exposure is not None else offset
    offset = at_hand.checked(offset) if offset is not None else None
    parts = [_as_rows(part) for part in (X, y, weight, offset)]
    lengths = [part.shape[0] for part in parts if part is not None]
    if len(set(lengths)) != 1:
        raise InvalidInput(f"X, y, sample_weight and offset differ in length: {lengths}")
    if isinstance(chunks, int):
        objects = getattr(getattr(parts[0], "dtype", None), "kind", "") == "O"  # of one's own: no chunk is empty
        chunks = np.array_split(np.arange(lengths[0]), min(chunks, lengths[0]) if objects else chunks)
    return [tuple(_rows(part, rows) for part in parts) for rows in chunks]


def _as_rows(part: Any) -> Any:
    """An array, CSR or a design, of which rows can be taken."""
    if part is None or isinstance(part, Design):
        return part
    return part.tocsr() if issparse(part) else np.asarray(part)


def _rows(part: Any, rows: Any) -> Any:
    if part is None:
        return None
    return part.take(rows) if isinstance(part, Design) else part[rows]
