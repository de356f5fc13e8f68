"""Settings that users pass as a number or as one a column: checked, and spread over w."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array

Setting = float | tuple[float, ...]  #: plain values: settings are compared, hashed and stored in checkpoints


def number(name: str, value: Any) -> float:
    """``value`` as a finite number ≥ 0."""
    try:
        out = float(value)
    except (TypeError, ValueError):
        out = np.nan
    if not (np.isfinite(out) and out >= 0):
        remedy = "; for no penalty pass NoPenalty()" if name == "alpha" else ""
        raise InvalidInput(f"{name} must be a finite number ≥ 0, got {value!r}{remedy}")
    return out


def ratio(value: Any) -> float:
    """``value`` as an l1_ratio."""
    if not (isinstance(value, (int, float, np.number)) and 0 <= value <= 1):
        raise InvalidInput(f"l1_ratio must lie in [0, 1] (1: all L1, 0: all L2), got {value!r}")
    return float(value)


def factors_of(value: Any, each: str = "column") -> tuple[float, ...] | None:
    """One finite factor ≥ 0 each, as a tuple; None stays None."""
    if value is None:
        return None
    out = floats("factors", value, each)
    if isinstance(out, float):
        raise InvalidInput(f"factors must hold one number a {each}, got {out!r}; for one strength for all use alpha")
    wrong = [i for i, v in enumerate(out) if not (np.isfinite(v) and v >= 0)]
    if wrong:
        raise InvalidInput(
            f"factors must be finite and ≥ 0 (0: that {each} is free), factors[{wrong[0]}] is {out[wrong[0]]!r}"
        )
    return out


def floats(name: str, value: Any, each: str = "column") -> Setting:
    """``value`` as a float, or as a tuple of one float each."""
    try:
        array = np.asarray(list(value) if isinstance(value, Iterable) else value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if value is None:  # which numpy would read as nan
        array = np.empty((0, 0))
    if array.ndim > 1 or array.size == 0:
        raise InvalidInput(f"{name} must be a number or a one-dimensional sequence, one number a {each}: got {value!r}")
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def spread(name: str, value: Setting, d: int) -> Array:
    """One number a coordinate of w, (d,); a shorter sequence that divides d is repeated (d = K·len: K classes)."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return np.full(d, float(array))
    if d % len(array):
        raise InvalidInput(
            f"{name} holds {len(array)} numbers, but this problem has {d} penalised coefficients (the intercept is "
            f"none of them): pass {d}, or one a column where every class has the columns again"
        )
    return np.tile(array, d // len(array))


def check_length(name: str, value: Setting | None, n_columns: int, d: int) -> None:
    """One number a column, or one a coefficient where several classes have the columns."""
    if isinstance(value, tuple) and len(value) not in (n_columns, d):
        each = f"{n_columns}" if d == n_columns else f"{n_columns} (one a column) or {d} (one a coefficient)"
        raise InvalidInput(
            f"{name} holds {len(value)} numbers, but X has {n_columns} columns: pass {each}; the intercept has none"
        )


def shown(name: str, **settings: Any) -> str:
    """A short repr: long sequences by their length, settings at None not at all."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, (tuple, list)) and len(value) > 4:
            parts.append(f"{key}=<{len(value)}>")
        elif value is not None:
            parts.append(f"{key}={value!r}")
    return f"{name}({', '.join(parts)})"
