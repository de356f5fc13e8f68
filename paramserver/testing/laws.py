"""How a law is stated, and what it is tried with."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import cloudpickle
import numpy as np

Check = TypeVar("Check", bound=Callable[..., None])


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


def apart(a: Any, b: Any) -> str:
    """How far two arrays are from each other, in words."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype.kind not in "fiub":
        return f"{a!r} and {b!r}"
    return f"by up to {np.abs(a - b).max(initial=0.0):.1e}"


def hands_off(check: Check) -> Check:
    """What writes into an argument is a broken law too, and the line that does it is said."""

    @wraps(check)
    def checked(*args: Any, **options: Any) -> None:
        try:
            check(*args, **options)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            text = "arguments are read-only, for others have them too: copy before you write"
            raise AssertionError(f"broken: {text}. Line {at.lineno} of {at.filename}: {at.line}") from error

    return checked  # type: ignore[return-value]
