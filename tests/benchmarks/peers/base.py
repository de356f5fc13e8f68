"""What a peer is to the harness."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .cases import Case, Setting
from .data import Store


class Point(NamedTuple):
    """A z in the caller's hands, so many seconds after the caller asked."""

    seconds: float
    z: np.ndarray


class Peer:
    """One way to fit, in a process of its own.

    `load` is called once: data into memory as the peer's user has them, and a warm-up on something tiny. `fit` is
    timed by the peer itself, from data in memory to z in hand, conversions included.
    """

    package: ClassVar[str] = ""  #: what must be importable
    blas_threads: ClassVar[int] = 2  #: 1 where two processes share the work

    def lacks(self, case: Case) -> str:
        """Why it cannot fit this case; empty if it can."""
        return ""

    def settings(self, case: Case) -> tuple[Setting, ...]:
        """From loose to tight."""
        raise NotImplementedError

    def load(self, case: Case, store: Store) -> None:
        """Data in memory, everything warm."""
        raise NotImplementedError

    def fit(self, limit: float, **options: Any) -> list[Point]:
        """One run, or one run's points on its way; it may end itself after ``limit`` seconds."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing running."""

    def missing(self) -> str:
        """What is not installed; empty if all is."""
        return "" if not self.package or find_spec(self.package) else f"{self.package} is not installed"


def grid(name: str, *values: Any, **more: Any) -> tuple[Setting, ...]:
    """One setting a value of one option."""
    return tuple(Setting(f"{name}={value:g}", {name: value, **more}) for value in values)


class Watch:
    """Seconds since it was made, and points on the way."""

    def __init__(self, limit: float) -> None:
        self.began, self.limit = time.perf_counter(), limit
        self.points: list[Point] = []

    def point(self, z: Any) -> None:
        """Note a z in hand now."""
        self.points.append(Point(time.perf_counter() - self.began, np.array(z, dtype=float).ravel()))

    @property
    def over(self) -> bool:
        """Whether the limit is."""
        return time.perf_counter() - self.began > self.limit
