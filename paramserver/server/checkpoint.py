"""A core's state ↔ msgpack: plain values and arrays, no pickle.

What a user plugged in is stored by name and settings only; `load` takes the objects themselves
from the run's spec. A verification under way is not stored: the next epoch asks anew. An *anchor*
leaves out the slots' local models and the rule's sums of them: it is small, and what it lacks comes
from what runners push again, and from new steps.
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgpack
import numpy as np

from paramserver.consensus import Auto
from paramserver.errors import CheckpointError, InvalidInput
from paramserver.messages import Version
from paramserver.server import stored
from paramserver.server.core import Core
from paramserver.server.parameters import Parameters, Published
from paramserver.server.slots import Slot
from paramserver.server.spec import RunSpec
from paramserver.views import Verified
from paramserver.workers.problems.base import Start

FORMAT = 1
_ARRAY = 1  #: msgpack extension code
_DTYPE = re.compile(r"[<>|=][biufcSU]\d{1,6}")  #: of plain values: nothing that needs to be unpickled
_CHECKSUM = 4  #: bytes
PLAIN = "numpy arrays, numbers, text, None, and lists and dicts of them"  #: what can be stored


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
    """A snapshot as bytes, a checksum first: a state that went wrong on its way must not look like another."""
    try:
        packed: bytes = msgpack.packb(state, default=_pack)
    except TypeError as error:
        raise TypeError(_culprit(state) or str(error)) from None
    return _checksum(packed) + packed


def unpack(data: bytes) -> dict[str, Any]:
    """A snapshot again; only what `stored.check` finds to be one.

    Raises
    ------
    CheckpointError
        It is truncated, damaged, no state at all, or of a format that this version does not read.
    """
    if len(data) < _CHECKSUM or data[:_CHECKSUM] != _checksum(memoryview(data)[_CHECKSUM:]):
        raise CheckpointError(f"the state ({len(data)} bytes) is damaged: its checksum does not fit")
    try:
        state = msgpack.unpackb(memoryview(data)[_CHECKSUM:], ext_hook=_unpack, strict_map_key=False)
    except Exception as error:  # msgpack has a dozen of its own
        raise CheckpointError(f"the state cannot be read: {type(error).__name__}: {error}") from error
    if type(state) is dict and type(state.get("format")) is int and state["format"] != FORMAT:
        raise CheckpointError(f"the state has format {state['format']}, this version reads {FORMAT}")
    stored.check(state)
    return state  # type: ignore[no-any-return]


def again(value: Any) -> Any:
    """A part of a state as a checkpoint brings it back."""
    return msgpack.unpackb(msgpack.packb(value, default=_pack), ext_hook=_unpack, strict_map_key=False)


def unstorable(whose: str, parts: Mapping[str, Any] | None) -> str | None:
    """Which of these no checkpoint can hold, and what it can hold; None: all can be."""
    for name, value in (parts or {}).items():
        try:
            again(value)
        except (TypeError, ValueError, OverflowError):
            return f"{whose} {name} is of type {type(value).__name__}: a checkpoint holds {PLAIN}"
    return None


def check_storable(plugin: Any, state: Any = None) -> None:
    """Refuse a rule or a penalty whose settings, or whose state, no checkpoint can hold.

    Raises
    ------
    InvalidInput
        It names the field.
    """
    who = type(plugin).__name__
    settings = unstorable(f"{who}'s setting", _named(plugin)["settings"])
    wrong = settings or (unstorable(f"{who}'s state: its", _fields(state)) if is_dataclass(state) else None)
    if wrong:
        raise InvalidInput(f"{wrong}. Keep it so, or launch without checkpoint=")


def _culprit(state: Mapping[str, Any]) -> str | None:
    """What of a snapshot cannot be stored."""
    parts = [(f"{state[who]['type']}'s setting", state[who]["settings"]) for who in ("rule", "penalty")]
    parts += [("the rule's state: its", state["rule_state"])]
    parts += [(f"chunk {i}'s slot: its", slot["fields"]) for i, slot in enumerate(state["slots"])]
    return next((wrong for whose, fields in parts if (wrong := unstorable(whose, fields))), None)


def load(data: bytes, spec: RunSpec, epoch: int, now: float) -> Core:
    """A core that goes on where ``data`` left off, in a new epoch; whole, or not at all.

    Raises
    ------
    CheckpointError
        The state is damaged, of another format, or does not fit what was launched.
    InvalidInput
        The state is of another run, rule or penalty.
    """
    state = unpack(data)
    if state["run_id"] != spec.run_id:
        raise InvalidInput(f"the state is of run {state['run_id']}, not of {spec.run_id}")
    try:
        return _restored(state, spec, epoch, now)
    except (CheckpointError, InvalidInput):
        raise
    except Exception as error:  # of the problem, the rule or the penalty, given what is not theirs
        raise CheckpointError(f"the state does not fit the run: {type(error).__name__}: {error}") from error


def _restored(state: dict[str, Any], spec: RunSpec, epoch: int, now: float) -> Core:
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
    _restore_rule(params, state["rule_state"])
    params.fresh = set(state["fresh"])
    z = np.array(state["z"])
    z.setflags(write=False)
    if len(params.problem.start(params.survey).z) != len(z):
        raise CheckpointError(f"the state's z has {len(z)} entries, its data are for another number")
    params.problem.unpack(z)
    params.published = Published(Version(epoch, state["n"]), z, now)


def _restore_rule(params: Parameters, kept: dict[str, Any] | None) -> None:
    """The rule's sums; tried with the slots, for only the rule can tell whether they are its own."""
    assert params.setup is not None
    slots, z, rule = params.fields(), params.setup.start.z, params.rule
    stored.check_slots(slots)
    if kept is not None:
        stored.check_sums(kept, _fields(params.state), params.setup.p)
        for name, value in kept.items():
            object.__setattr__(params.state, name, value)  # which may be frozen
    if slots:
        rule.residuals(rule.rebuild(copy.deepcopy(params.state), slots, z), slots, params.bound, z)
        rule.objective(slots, params.bound, z)
    for slot in slots.values():
        rule.plan(params.state, slot, z)


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


def _renamed(plugin: Any, kept: dict[str, Any]) -> Any:
    """The spec's object with the stored settings, where it is still of the stored type."""
    if type(plugin).__qualname__ != kept["type"]:
        raise InvalidInput(
            f"the state was made with {kept['type']}, the run has {type(plugin).__qualname__}: "
            "pass the object it was updated to"
        )
    settings = kept["settings"]
    had = _named(plugin)["settings"]
    if settings.keys() != had.keys():
        raise CheckpointError(f"{kept['type']} has the settings {', '.join(had)}; stored are {', '.join(settings)}")
    if msgpack.packb(settings, default=_pack) == msgpack.packb(had, default=_pack):
        return plugin
    out = copy.copy(plugin)
    for name, value in settings.items():
        object.__setattr__(out, name, value)
    if callable(again := getattr(out, "__post_init__", None)):
        again()  # refuses what is no setting
    return out


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return msgpack.ExtType(_ARRAY, msgpack.packb((array.dtype.str, array.shape, array.tobytes())))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a rule's state and slots must be {PLAIN}, got {type(value).__name__}")


def _unpack(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is not known")
    dtype, shape, raw = msgpack.unpackb(data)
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"an array of {dtype!r} is not known")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()


def _checksum(packed: bytes | memoryview) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM, "big")
