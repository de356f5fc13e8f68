"""Targets, weights and offsets as vectors of float64, or words on what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array


def column(values: Any, what: str, n: int) -> Array:
    """A (n,) float64 vector, or BadData."""
    out = _numbers(values, what)
    out = out.reshape(-1) if out.ndim == 2 and out.shape[1] == 1 else out
    if out.shape != (n,):
        raise BadData(f"{what} has shape {out.shape} where X has {n} rows")
    return _finite(out, what)


def offsets(values: Any, n: int, width: int | None) -> Array:
    """A (n,) float64 vector, or (n, width) where there are several margins a row; or BadData."""
    if width == 1:
        return column(values, "offset", n)
    out = _numbers(values, "offset")
    if out.ndim != 2 or len(out) != n or width not in (None, out.shape[1]):
        raise BadData(f"offset has shape {out.shape} where one column a class was needed, ({n}, {width or 'classes'})")
    return _finite(out, "offset")


def _numbers(values: Any, what: str) -> Array:
    try:
        return np.asarray(values).astype(np.float64)
    except (TypeError, ValueError):
        how = "encode it first" + ", over all of it, as np.unique(y, return_inverse=True)[1]" * (what == "y")
        raise BadData(f"{what} must be numbers, got dtype {np.asarray(values).dtype}: {how}") from None


def _finite(out: Array, what: str) -> Array:
    bad = ~np.isfinite(out)
    if bad.any():
        raise BadData(f"{what} is {out[bad][0]} in row {int(np.argwhere(bad)[0][0])}")
    return out
