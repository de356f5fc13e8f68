"""What ``simulate=`` says: how many workers, and how many of them are how slow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from paramserver.errors import InvalidInput
from paramserver.simulator import Network

ALLOWED = (
    "simulate takes workers=64, slow=8x1 (one worker 8 times slower) and latency, copies, fetch, lost, late and "
    "doubled of paramserver.Network"
)
OTHERS = {field.name for field in dataclasses.fields(Network)} - {"speeds", "deaths"}
WORKERS = 8


def network(simulate: Any) -> Network:
    """The network that a dict, text such as "workers=64,slow=8x1" or a `Network` stands for."""
    if isinstance(simulate, Network):
        if not simulate.speeds:
            raise InvalidInput("the network has no workers: Network(speeds=(1, 1, 8)) has three")
        return simulate
    settings = _read(simulate) if isinstance(simulate, str) else simulate
    if not isinstance(settings, Mapping):
        raise InvalidInput(f"{ALLOWED}; got {simulate!r}")
    unknown = sorted(settings.keys() - OTHERS - {"workers", "slow"})
    if unknown:
        raise InvalidInput(f"{ALLOWED}; got {unknown[0]!r}")
    others: dict[str, Any] = {name: _number(name, settings[name]) for name in settings.keys() & OTHERS}
    workers = _whole("workers", settings.get("workers", WORKERS))
    factor, count = _slow(settings.get("slow", (1.0, 0)))
    if count >= workers:
        raise InvalidInput(f"slow={factor:g}x{count} leaves none of {workers} workers as they are: say fewer")
    return Network(speeds=(1.0,) * (workers - count) + (factor,) * count, **others)


def even(network: Network) -> Network:
    """The same without its stragglers."""
    return dataclasses.replace(network, speeds=(min(network.speeds),) * len(network.speeds))


def _read(text: str) -> dict[str, str]:
    """``name=value``, separated by commas."""
    settings = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidInput(f"{ALLOWED}; got {part!r}")
        settings[name.strip()] = value.strip()
    return settings


def _slow(value: Any) -> tuple[float, int]:
    """(how many times slower, how many workers), of (8, 1) or "8x1"."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d*)?)x(\d+)", value)
        value = found.groups() if found else None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InvalidInput("slow must say how many times slower and how many workers, as in 8x1")
    factor = _number("slow", value[0])
    if factor < 1.0:
        raise InvalidInput(f"slow must be at least 1 time slower, got {factor:g}")
    return factor, _whole("slow", value[1], least=0)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be a number, got {value!r}; {ALLOWED}") from None
    if not number >= 0 or (name in ("copies", "workers", "slow") and number == float("inf")):
        raise InvalidInput(f"{name} must be a finite number ≥ 0, got {value!r}")
    return int(number) if name == "copies" else number


def _whole(name: str, value: Any, least: int = 1) -> int:
    number = _number(name, value)
    if number != int(number) or number < least:
        raise InvalidInput(f"{name} must be a whole number ≥ {least}, got {value!r}")
    return int(number)
