"""What is at hand: the columns beside X, checked before they are sent. (An exposure is the log of an offset's.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array


def is_rows(X: Any) -> bool:
    """A list of numbers or of rows of numbers is an array that was not made one yet."""
    first = X[0] if len(X) else None
    if isinstance(first, (list, tuple)) and len(first):
        return isinstance(first[0], (int, float, np.number))
    return isinstance(first, (int, float, np.number))


def check_one(offset: Any, exposure: Any) -> None:
    """Refuse both."""
    if offset is not None and exposure is not None:
        raise InvalidInput("pass offset or exposure, not both: exposure=e is offset=log(e)")


def log(exposure: Any) -> Array:
    """Quietly: what comes out not finite is found, with its row, when the chunk is prepared."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(exposure, dtype=np.float64))


def checked_log(exposure: Any) -> Array:
    """The logarithm of an exposure at hand; `InvalidInput` names the first value that is not finite and > 0."""
    return np.log(_checked(exposure, "exposure", "finite and > 0", lambda values: values > 0))


def checked(offset: Any) -> Array:
    """An offset at hand; `InvalidInput` names the first row that is not finite."""
    return _checked(offset, "offset", "finite", np.isfinite)


def checked_weight(weight: Any) -> Array:
    """Sample weights at hand; `InvalidInput` names the first that is not finite and ≥ 0."""
    return _checked(weight, "sample_weight", "finite and ≥ 0", lambda values: values >= 0)


def _checked(column: Any, what: str, must_be: str, good: Callable[[Array], Any]) -> Array:
    values = floats(column, what)
    bad = ~(np.isfinite(values) & good(values))
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise InvalidInput(f"{what} must be {must_be}, got {values[bad][0]} in row {row}")
    return values


def floats(values: Any, what: str) -> Array:
    """float64, or `InvalidInput`."""
    array = np.asarray(values)
    check_numbers(array, what)
    return array.astype(np.float64)


def check_numbers(array: Any, what: str) -> None:
    """Refuse strings and objects, with a line to paste."""
    if array.dtype.kind not in "fiub":
        how = "encode it first"
        if what == "y":
            how += ': (y == "yes").astype(float) for two classes, np.unique(y, return_inverse=True)[1] for several'
        raise InvalidInput(f"{what} must be numbers, got dtype {array.dtype}: {how}")
