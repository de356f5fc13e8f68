"""Checkpoints seen from a client: a place for new ones, and what an old one says of its run."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any, NamedTuple

import numpy as np

import paramserver.penalties as penalties
from paramserver.consensus import Consensus, Setup, of_class
from paramserver.errors import CheckpointError, InvalidInput
from paramserver.penalties import Bound, NoPenalty, Penalty
from paramserver.server import checkpoint
from paramserver.server.store import Store
from paramserver.workers.problems.base import Start

logger = logging.getLogger("paramserver")


class Earlier(NamedTuple):
    """A run as its newest usable checkpoint says."""

    url: str
    name: str  #: of the checkpoint
    state: dict[str, Any]

    @property
    def epoch(self) -> int:
        """The last in which it was written."""
        return int(self.name.partition("-")[0])

    def consensus(self) -> Consensus:
        """Its rule, where that has a name."""
        stored = self.state["rule"]
        rule = of_class(stored["type"])
        if rule is None:
            raise InvalidInput(f"the run's rule was {stored['type']}: pass it as consensus=")
        return _again(rule, stored["settings"])  # type: ignore[no-any-return]

    def penalty(self) -> Penalty:
        """Its penalty, where that is one of ours."""
        stored = self.state["penalty"]
        known = getattr(penalties, stored["type"], None)
        if not (isinstance(known, type) and issubclass(known, Penalty)):
            raise InvalidInput(f"the run's penalty was {stored['type']}: pass it as penalty=")
        return _again(known, stored["settings"])  # type: ignore[no-any-return]


def fresh(place: str | os.PathLike[str]) -> str:
    """The URL of a place for a new run's checkpoints: it can be written to, and holds none."""
    store = Store(place)
    store.check()
    names = store.names()
    if names:
        raise InvalidInput(
            f"{store.url} holds checkpoints of another run ({names[-1]}): pass another place, "
            "or go on with that run: ps.resume(url, problem, X, y), or --resume on the command line"
        )
    return store.url


def check_storable(rule: Consensus, penalty: Penalty) -> None:
    """Refuse plug-ins that no checkpoint can hold, before any data are sent.

    Raises
    ------
    InvalidInput
        It names the field: of the settings, or of the state that the rule begins with.
    """
    state, z = None, np.zeros(2)
    with contextlib.suppress(Exception):  # no fit is of this size, so a rule may raise: the server looks again
        start = Start(z, 1.0)
        state = rule.init(Setup(2, 2, 2, start, False, Bound(NoPenalty(), np.ones(2, bool)), z))
    checkpoint.check_storable(rule, state)
    checkpoint.check_storable(penalty)


def earlier(place: str | os.PathLike[str]) -> Earlier:
    """The newest usable checkpoint there; what is wrong with newer ones is logged."""
    store = Store(place)
    name, data, problems = store.newest()
    for problem in problems:
        logger.warning("paramserver: %s: the checkpoint before it is used", problem)
    try:
        return Earlier(store.url, name, checkpoint.unpack(data))
    except CheckpointError as error:
        raise CheckpointError(f"{store.url}, {name}: {error}") from None


def _again(kind: type, settings: dict[str, Any]) -> Any:
    """An object with these settings, as it was when they were stored."""
    out: Any = object.__new__(kind)
    for name, value in settings.items():
        object.__setattr__(out, name, tuple(value) if isinstance(value, list) else value)
    return out
