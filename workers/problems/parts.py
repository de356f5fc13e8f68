"""Chunks that a user's functions read: parts as launched, and a z of known size to start from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.base import Problem, Start


@dataclass
class Parts:
    """One chunk: X, y, … as launched, those that were given; or one object."""

    parts: tuple[Any, ...]
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Of the first part, where it has a length; else 1."""
        shape = getattr(self.parts[0], "shape", None)
        if shape:
            return int(shape[0])
        return len(self.parts[0]) if hasattr(self.parts[0], "__len__") else 1


class OfParts(Problem):
    """z is a plain vector, all of it penalised; a fit starts at ``z0``."""

    z0: Array

    def prepare(self, *parts: Any) -> Parts:
        given = tuple(part for part in parts if part is not None)
        if not given:
            raise BadData(f"{type(self).__name__} was given a chunk without data")
        return Parts(given)

    def survey(self, data: Parts) -> Array:
        """[rows, p, f(z0)]."""
        value = self._value_at_z0(data) if data.rows else 0.0
        return np.array([data.rows, len(self.z0), value])

    @abstractmethod
    def _value_at_z0(self, data: Parts) -> float:
        """f(z0) of one chunk."""

    def start(self, survey: Array) -> Start:
        return Start(self.z0, float(survey[2]))


def first_z(size: int | None, z0: Any) -> Array:
    """(p,), read-only: z0, or zeros of that size."""
    if size is None and z0 is None:
        raise InvalidInput("pass size= (the length of z) or z0= (where the fit starts)")
    z = np.zeros(int(size or 0)) if z0 is None else np.array(z0, dtype=np.float64)
    if z.ndim != 1 or not len(z) or (size is not None and len(z) != size) or not np.isfinite(z).all():
        raise InvalidInput(f"z0 must be a vector of finite numbers, (size,), got shape {z.shape} and size {size}")
    z.setflags(write=False)
    return z


def vector(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """What a user's function returned as float64 of this shape, or `BadData`."""
    try:
        out = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadData(f"{what} must return {shape} numbers, got {type(value).__name__}") from None
    if out.shape != shape:
        raise BadData(f"{what} must return shape {shape}, got {out.shape}")
    return out


def scalar(value: Any, what: str) -> float:
    """What a user's function returned as one number, or `BadData`."""
    return float(vector(value, (), what))


def callables(**functions: Callable[..., Any] | None) -> None:
    """Refuse what is not callable, by name."""
    for name, function in functions.items():
        if not callable(function):
            raise InvalidInput(f"{name} must be a function, got {function!r}")
