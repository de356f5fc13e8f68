"""A problem that one worker is slow at: after every pass it sleeps so many times what the pass took."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from distributed import get_worker

from paramserver.workers.problems.base import CAPABILITIES, Problem

PASSES = ("prepare", "survey", *CAPABILITIES)  #: what goes over a chunk's rows
_here = threading.local()  #: whether a pass is under way in this thread, which may call others


class Delay:
    """What makes a problem slow; a subclass of this and of the problem's own class is made where it is needed."""

    straggler: tuple[float, str]

    def __reduce__(self) -> Any:
        return slowed, (plain(self), *self.straggler)


def slowed(problem: Problem, times: float, worker: str) -> Problem:
    """The same problem, for which the worker at this address is ``1 + times`` as slow."""
    return _made(_class(type(problem)), {**vars(problem), "straggler": (times, worker)})


def plain(problem: Any) -> Problem:
    """The problem that was slowed."""
    return _made(type(problem).__mro__[2], {k: v for k, v in vars(problem).items() if k != "straggler"})


def _made(cls: type[Problem], settings: dict[str, Any]) -> Problem:
    """As a copy is: no ``__init__`` is asked."""
    out = object.__new__(cls)
    vars(out).update(settings)
    return out


@functools.cache
def _class(cls: type[Problem]) -> type[Problem]:
    methods = {name: _delayed(getattr(cls, name)) for name in PASSES if callable(getattr(cls, name, None))}
    bound = {"at": _bound(cls.at), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (Delay, cls), {**methods, **bound})


def _delayed(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        times, worker = self.straggler
        if getattr(_here, "busy", False) or not _is(worker):
            return method(self, *args, **kwargs)
        _here.busy, began = True, time.perf_counter()
        try:
            out = method(self, *args, **kwargs)
        finally:
            _here.busy = False
        time.sleep(times * (time.perf_counter() - began))
        return out

    return run


def _bound(at: Callable[..., Any]) -> Callable[..., Any]:
    """`Problem.at` may make another object."""

    @functools.wraps(at)
    def run(self: Any, survey: Any) -> Any:
        out: Any = at(self, survey)
        return slowed(plain(out) if isinstance(out, Delay) else out, *self.straggler)

    return run


def _is(worker: str) -> bool:
    try:
        return bool(get_worker().address == worker)
    except ValueError:  # no worker: the client
        return False
