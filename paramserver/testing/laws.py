"""How a law is stated, and what it is tried with."""

from __future__ import annotations

from typing import Any

import cloudpickle
import numpy as np


def law(holds: Any, text: str) -> None:
    """Raise with the law's text where it does not hold."""
    if not holds:
        raise AssertionError(f"broken: {text}")


def same(a: Any, b: Any, text: str, rtol: float = 1e-10) -> None:
    """Equal to rounding, nan where the other is."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    close = a.shape == b.shape and np.abs(a - b).max(initial=0.0) <= rtol * (1e-12 + np.abs(b).max(initial=0.0))
    law(close or np.array_equal(a, b, equal_nan=True), f"{text}: {a} is not {b}")


def travelled(thing: Any) -> Any:
    """What arrives where this is sent."""
    return cloudpickle.loads(cloudpickle.dumps(thing))


def frozen(thing: Any) -> Any:
    """A copy whose arrays are read-only: whoever writes into what it was given is found out."""
    if isinstance(thing, dict):
        return {key: frozen(value) for key, value in thing.items()}
    if isinstance(thing, np.ndarray):
        thing = thing.copy()
        thing.setflags(write=False)
    return thing
