"""What a message must be before anything looks into it: the right types, and numbers that are numbers.

Only TLS keeps strangers out. This keeps a runner of another version, or a message gone wrong, from ending
a run or from leaving in it what nobody can use. A few microseconds a push.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Failure, Push, Request, Task, Version

HUGE = 2**62  #: counters stay below: msgpack has 64 bits
FAR = 2**53  #: a sequence number from which counting on would still do
LONGEST = 1e9  #: seconds that anything may have taken
TROUBLES = ("too_far", "busy")
_PLAIN = (np.ndarray, np.float64, float)


def head(push: Push | Failure) -> bool:
    """Whether a push says which chunk it is of, what it answers and at which z; or a failure, which chunk's."""
    if type(push) is Failure:
        known = _fingerprint(push.fingerprint) and _count(push.edition)
        return _count(push.chunk) and isinstance(push.error, Exception) and known
    return (
        type(push) is Push
        and _count(push.chunk)
        and _count(push.seq)
        and type(push.task) is Task
        and _version(push.version)
        and _count(push.edition)
        and (push.base is None or (type(push.base) is int and -HUGE < push.base < HUGE))
        and (push.trouble is None or (type(push.trouble) is str and push.trouble in TROUBLES))
    )


def body(push: Push) -> Push | None:
    """The push with its payload as arrays and floats, whatever shape they have; None where that cannot be."""
    if not (_seconds(push.seconds) and _seconds(push.loading) and _fingerprint(push.fingerprint)):
        return None
    payload = push.payload
    if type(payload) is not dict:
        return None
    if not all(type(value) in _PLAIN for value in payload.values()):
        try:
            payload = {name: np.asarray(value) for name, value in payload.items()}
        except Exception:  # of whatever class a user's rule pushes
            return None
        push = push._replace(payload=payload)
    return push if "every" not in payload or _every(payload["every"]) else None


def sound(push: Any) -> bool:
    """Whether a push may be looked into by those who only watch: clocks and counts."""
    return type(push) is Push and head(push) and body(push) is not None


def check(request: Any) -> None:
    """Refuse what is not a runner's call. What it pushes is looked at where that is absorbed.

    Raises
    ------
    InvalidInput
        Which part cannot be read.
    """
    if type(request) is not Request:
        raise InvalidInput(f"a runner's call must be a Request, got {type(request).__name__}")
    wrong = [name for name, right in _REQUEST.items() if not right(getattr(request, name))]
    if wrong:
        shown = repr(getattr(request, wrong[0]))[:80]
        raise InvalidInput(f"a runner's call cannot have {wrong[0]} {shown}: is paramserver another one there?")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < HUGE


def _version(value: Any) -> bool:
    return type(value) is Version and _count(value.epoch) and _count(value.n)


def _seconds(value: Any) -> bool:
    return isinstance(value, (float, int)) and 0.0 <= value < LONGEST


def _every(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype == np.float64 and 1.0 <= float(value) < LONGEST


def _fingerprint(value: Any) -> bool:
    return value is None or (type(value) is tuple and all(isinstance(v, float) for v in value))


def _copied(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and _count(value[0]) and _seconds(value[1])


def _chunks(value: Any) -> bool:
    return value is None or (isinstance(value, frozenset) and all(map(_count, value)))


_REQUEST: dict[str, Callable[[Any], bool]] = {
    "run_id": lambda value: type(value) is str,
    "epoch": _count,
    "runner": lambda value: type(value) is str and "#" in value,
    "have": lambda value: value is None or _version(value),
    "held": _chunks,
    "roster": _count,
    "looking": _seconds,
    "copied": _copied,
    "leaving": lambda value: type(value) is bool,
}
