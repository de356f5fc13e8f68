"""The columns beside X that are at hand: checked before they are sent. (An exposure is the log of an offset's.)"""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array


def check_one(offset: Any, exposure: Any) -> None:
    """Refuse both."""
    if offset is not None and exposure is not None:
        raise InvalidInput("pass offset or exposure, not both: exposure=e is offset=log(e)")


def log(exposure: Any) -> Array:
    """Quietly: what comes out not finite is found, with its row, when the chunk is prepared."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(exposure, dtype=np.float64))


def checked_log(exposure: Any) -> Array:
    """Of values at hand: `InvalidInput` naming the first that is not finite and > 0."""
    values = floats(exposure, "exposure")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise InvalidInput(f"exposure must be finite and > 0, got {values[bad][0]} in row {_row(bad)}")
    return np.log(values)


def checked(offset: Any) -> Array:
    """An offset at hand: `InvalidInput` naming the first row that is not finite."""
    values = floats(offset, "offset")
    bad = ~np.isfinite(values)
    if bad.any():
        raise InvalidInput(f"offset must be finite, got {values[bad][0]} in row {_row(bad)}")
    return values


def checked_weight(weight: Any) -> Array:
    """Sample weights at hand: `InvalidInput` naming the first that is not finite and ≥ 0."""
    values = floats(weight, "sample_weight")
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise InvalidInput(f"sample_weight must be finite and ≥ 0, got {values[bad][0]} in row {_row(bad)}")
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


def _row(bad: np.ndarray) -> int:
    return int(np.argwhere(bad)[0][0])
