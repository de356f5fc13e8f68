"""A core's state ↔ msgpack: plain values and arrays, no pickle.

What a user plugged in is stored by name and settings only; `load` takes the objects themselves
from the run's spec. A verification under way is not stored: the next epoch asks anew. An *anchor*
leaves out the slots' local models and the rule's sums of them: it is small, and what it lacks comes
from what runners push again, and from new steps.
"""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass
from typing import Any

import msgpack
import numpy as np

from paramserver.consensus import Auto
from paramserver.errors import CheckpointError, InvalidInput
from paramserver.messages import Version
from paramserver.server.core import Core
from paramserver.server.parameters import Parameters, Published
from paramserver.server.slots import Slot
from paramserver.server.spec import RunSpec
from paramserver.views import Verified
from paramserver.workers.problems.base import Start

FORMAT = 1
_ARRAY = 1  #: msgpack extension code


def dump(core: Core, now: float, *, anchor: bool = False) -> bytes:
    """The state as msgpack, at once."""
    return pack(snapshot(core, now, anchor=anchor))


def snapshot(core: Core, now: float, *, anchor: bool = False) -> dict[str, Any]:
    """The state as of now, for `pack` in another thread: what the core changes in place is copied."""
    params = core.params
    whole = not anchor and params.state is not None
    return {
        "format": FORMAT,
        "run_id": core.spec.run_id,
        "epoch": core.epoch,
        "n": params.version.n,
        "seconds": now - core.started,
        "bound_by": None if params.setup is None else params.bound_by,
        "survey": None if params.setup is None else params.survey,
        "start": None if params.setup is None else [params.setup.start.z, params.setup.start.objective],
        "z": params.z,
        "rule": _named(params.rule),
        "penalty": _named(params.spec.penalty if params.setup is None else params.bound.penalty),
        "rule_state": _copied(params.state) if whole else None,
        "slots": [_slot(slot, whole) for slot in params.slots],
        "newcomers": sorted(core.census.newcomers),
        "left_out": list(core.census.left_out.items()),
        "counting": core.state == "surveying",
        "fresh": sorted(params.fresh) if whole else [],
        "tol": core.stopping.tol,
        "pushes": core.record.pushes,
        "changes": core.changes,
        "replayed": core.record.replayed,
        "verified": None if core.verifier.verified is None else list(core.verifier.verified),
        "notes": [note for note in core.notes if note not in core.notes.found],
    }


def pack(state: dict[str, Any]) -> bytes:
    """A snapshot as bytes."""
    out: bytes = msgpack.packb(state, default=_pack)
    return out


def unpack(data: bytes) -> dict[str, Any]:
    """A snapshot again.

    Raises
    ------
    CheckpointError
        It is none, or of a format that this version does not read.
    """
    try:
        state: dict[str, Any] = msgpack.unpackb(data, ext_hook=_unpack, strict_map_key=False)
        form = state["format"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise CheckpointError(f"this is no state of a run: {error!r}") from None
    if form != FORMAT:
        raise CheckpointError(f"the state has format {form!r}, this version reads {FORMAT}")
    return state


def load(data: bytes, spec: RunSpec, epoch: int, now: float) -> Core:
    """A core that goes on where ``data`` left off, in a new epoch.

    Raises
    ------
    InvalidInput
        The state is of another run, or of a format this version does not read.
    """
    state = unpack(data)
    if state["run_id"] != spec.run_id:
        raise InvalidInput(f"the state is of run {state['run_id']}, not of {spec.run_id}")
    core = Core(spec, epoch, now - state["seconds"])
    core.stopping.tol = state["tol"]
    core.changes = state["changes"]
    core.record.pushes, core.record.replayed = state["pushes"], state["replayed"]
    core.notes.extend(state["notes"])
    params = core.params
    core.census.add(len(state["slots"]) - len(params.slots), now)
    for slot, kept in zip(params.slots, state["slots"], strict=True):
        _restore_slot(slot, kept)
    core.census.newcomers = set(state["newcomers"])
    core.census.left_out = dict(state["left_out"])
    core.census.open()
    if state["z"] is None:
        return core
    rule = spec.rule.named(state["rule"]["type"]) if isinstance(spec.rule, Auto) else None
    params.rule = _renamed(rule or spec.rule, state["rule"])
    core.stopping.superlinear = params.rule.adopts
    _restore_parameters(params, state, epoch, now)
    if not state["counting"]:
        core.verifier.gather = None
        core.state = "running"
    assert params.setup is not None
    core.stopping.scale = spec.scale(params.setup.start.objective)
    if state["verified"] is not None:
        version, *rest = state["verified"]
        core.verifier.verified = Verified(Version(*version), *rest)
    return core


def _restore_parameters(params: Parameters, state: dict[str, Any], epoch: int, now: float) -> None:
    params.bind_problem(state["bound_by"])
    params.survey = state["survey"]
    params.begin(Start(*state["start"]), now)
    params.bind(_renamed(params.spec.penalty, state["penalty"]))
    for name, value in (state["rule_state"] or {}).items():
        setattr(params.state, name, value)
    params.fresh = set(state["fresh"])
    z = np.array(state["z"])
    z.setflags(write=False)
    params.published = Published(Version(epoch, state["n"]), z, now)


def _slot(slot: Slot, whole: bool) -> dict[str, Any]:
    names = ("seq", "version", "survey", "fingerprint", "edition", "pushes", "gone")
    return {**{name: getattr(slot, name) for name in names}, "fields": slot.fields if whole else None}


def _restore_slot(slot: Slot, kept: dict[str, Any]) -> None:
    for name in ("seq", "fields", "survey", "edition", "pushes", "gone"):
        setattr(slot, name, kept[name])
    slot.version = None if kept["version"] is None else Version(*kept["version"])
    slot.fingerprint = None if kept["fingerprint"] is None else tuple(kept["fingerprint"])


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _copied(state: Any) -> dict[str, Any]:
    """A rule may change its own arrays in place."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in _fields(state).items()}


def _named(plugin: Any) -> dict[str, Any]:
    return {"type": type(plugin).__qualname__, "settings": _fields(plugin) if is_dataclass(plugin) else {}}


def _renamed(plugin: Any, stored: dict[str, Any]) -> Any:
    """The spec's object with the stored settings, where it is still of the stored type."""
    if type(plugin).__qualname__ != stored["type"]:
        raise InvalidInput(
            f"the state was made with {stored['type']}, the run has {type(plugin).__qualname__}: "
            "pass the object it was updated to"
        )
    out = copy.copy(plugin)
    for name, value in stored["settings"].items():
        object.__setattr__(out, name, value)
    return out


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return msgpack.ExtType(_ARRAY, msgpack.packb((array.dtype.str, array.shape, array.tobytes())))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a rule's state and slots must be arrays and plain values, got {type(value).__name__}")


def _unpack(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        return msgpack.ExtType(code, data)
    dtype, shape, raw = msgpack.unpackb(data)
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
