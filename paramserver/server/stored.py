"""Whether what was stored is a state: checked before any of it becomes part of a core.

A checksum tells damage; this tells what was never a state, or one that another version wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from paramserver.errors import CheckpointError
from paramserver.messages import Fields

LARGEST = 2**63  #: of a counter

Form = Callable[[Any], bool]


def check(state: Any) -> None:
    """Refuse what is not the dictionary of a state, by the first part that cannot be.

    Raises
    ------
    CheckpointError
    """
    if type(state) is not dict:
        raise CheckpointError(f"this is no state: a {type(state).__name__}, not a dictionary")
    _check("the state's", state, _STATE)
    for i, slot in enumerate(state["slots"]):
        _check(f"chunk {i}'s", slot, _SLOT)
    numbers = [*state["newcomers"], *state["fresh"]]
    if any(number >= len(state["slots"]) for number in numbers):
        raise CheckpointError(f"the state names chunk {max(numbers)}, and has {len(state['slots'])}")
    if state["z"] is not None:
        _check_begun(state)


def _check_begun(state: dict[str, Any]) -> None:
    """A run that has z has what z was made from, of that size."""
    lacking = [name for name in ("bound_by", "survey", "start") if state[name] is None]
    if lacking:
        raise CheckpointError(f"the state has z, and no {lacking[0]}")
    if state["bound_by"][1] != state["survey"][1]:
        raise CheckpointError("the state's surveys, at its start and now, are of other numbers of columns")
    if len(state["start"][0]) != len(state["z"]):
        raise CheckpointError(f"the state's z has {len(state['z'])} entries, its start {len(state['start'][0])}")


def _check(whose: str, part: Mapping[str, Any], forms: Mapping[str, Form]) -> None:
    for name, form in forms.items():
        if name not in part:
            raise CheckpointError(f"{whose} {name} is missing")
        if not form(part[name]):
            raise CheckpointError(f"{whose} {name} cannot be {repr(part[name])[:80]}")


def check_slots(slots: Mapping[int, Fields]) -> None:
    """Refuse local models that no rule can have made; what is in them only the rule can tell."""
    for i, slot in slots.items():
        if not _number(slot.get("rows")):
            raise CheckpointError(f"chunk {i}'s model has no number of rows")
        for name, value in slot.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isnan(value).any():
                raise CheckpointError(f"chunk {i}'s {name} has NaN in it")


def check_sums(kept: Mapping[str, Any], fresh: Mapping[str, Any], p: int) -> None:
    """Refuse a rule's state that has other parts than one that begins, or other kinds of them."""
    if kept.keys() != fresh.keys():
        raise CheckpointError(f"a rule's state of {', '.join(fresh)} cannot be made from {', '.join(kept)}")
    for name, value in kept.items():
        if not _alike(value, fresh[name], p):
            raise CheckpointError(f"the rule's {name} cannot be {repr(value)[:80]}")


def _alike(value: Any, fresh: Any, p: int) -> bool:
    """The same kind of value; of an array, as long where it is as long as z."""
    if value is None or fresh is None:
        return value is None or isinstance(value, np.ndarray) or fresh is None
    if not isinstance(fresh, np.ndarray):
        return isinstance(value, bool) is isinstance(fresh, bool) and (
            type(value) is type(fresh) or _numbers(value, fresh)
        )
    if not isinstance(value, np.ndarray) or value.dtype != fresh.dtype or value.ndim != fresh.ndim:
        return False
    if any(side == p != size for side, size in zip(fresh.shape, value.shape, strict=True)):
        return False
    return value.dtype.kind != "f" or not np.isnan(value).any()


def _numbers(value: Any, fresh: Any) -> bool:
    """A float that was a whole number may be either."""
    return isinstance(value, (int, float)) and isinstance(fresh, (int, float)) and value == value


# -- forms -----------------------------------------------------------------------------------------


def _or_none(form: Form) -> Form:
    return lambda value: value is None or form(value)


def _list_of(form: Form) -> Form:
    return lambda value: type(value) is list and all(map(form, value))


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _real(value: Any) -> bool:
    """A number, inf and nan among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return type(value) is str


def _bool(value: Any) -> bool:
    return type(value) is bool


def _vector(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.ndim == 1
        and value.dtype == np.float64
        and bool(np.isfinite(value).all())
    )


def _survey(value: Any) -> bool:
    return _vector(value) and len(value) >= 2 and bool((value[:2] >= 0).all() and (value[:2] % 1 == 0).all())


def _version(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_count, value))


def _left_out(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and _count(value[0]) and (value[1] is None or _count(value[1]))


def _plugin(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"type", "settings"}
        and _text(value["type"])
        and _named(value["settings"])
    )


def _named(value: Any) -> bool:
    return type(value) is dict and all(map(_text, value))


def _verified(value: Any) -> bool:
    if type(value) is not list or len(value) != 5:
        return False
    version, *numbers, kind = value
    return _version(version) and all(map(_real, numbers)) and _text(kind)


def _start(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and _vector(value[0]) and _real(value[1])


def _tolerance(value: Any) -> bool:
    return _number(value) and value > 0


_STATE: dict[str, Form] = {
    "format": _count,
    "run_id": _text,
    "epoch": _count,
    "n": _count,
    "seconds": _number,
    "bound_by": _or_none(_survey),
    "survey": _or_none(_survey),
    "start": _or_none(_start),
    "z": _or_none(_vector),
    "rule": _plugin,
    "penalty": _plugin,
    "rule_state": _or_none(_named),
    "slots": _list_of(lambda value: type(value) is dict),
    "newcomers": _list_of(_count),
    "counting": _bool,
    "fresh": _list_of(_count),
    "tol": _or_none(_tolerance),
    "pushes": _count,
    "changes": _count,
    "left_out": _list_of(_left_out),
    "replayed": _count,
    "verified": _or_none(_verified),
    "notes": _list_of(_text),
}
_SLOT: dict[str, Form] = {
    "seq": _count,
    "version": _or_none(_version),
    "survey": _or_none(_survey),
    "fingerprint": _or_none(_list_of(_real)),
    "edition": _count,
    "pushes": _count,
    "gone": _bool,
    "fields": _or_none(_named),
}
