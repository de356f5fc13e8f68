"""What travels between a runner and the server: one exchange, both ways."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Fields = dict[str, Any]


class Version(NamedTuple):
    """Which z: the server's epoch and its count of consensus updates.

    Compared for equality only: after a recovery the order of versions means nothing.
    """

    epoch: int
    n: int


class Task(str, Enum):
    """What a runner is to do with its chunk."""

    SURVEY = "survey"  #: the null model's statistics: rows, weights, label moments
    NULL = "null"  #: the losses of a model without coefficients
    SOLVE = "solve"  #: the rule's local step
    VERIFY = "verify"  #: exact value, gradient and Hessian at this z
    CONJUGATE = "conjugate"  #: the exact Fenchel term along a step from this z
    LINE = "line"  #: values along a step from this z
    INFER = "infer"  #: the moments that standard errors are made of, at the last z
    LIKELIHOOD = "likelihood"  #: the log-likelihood there, the dispersion being known


#: Tasks about a z that is not the published one.
ELSEWHERE = (Task.NULL, Task.LINE)


class Assignment(NamedTuple):
    """One piece of work: a chunk, what to do with it, and the current parameters."""

    chunk: int
    seq: int  #: the push that answers this must carry it; first valid one wins
    task: Task
    version: Version
    z: Array | None  #: None where the runner already holds this version
    fields: Fields  #: the chunk's slot fields that the task needs
    whole: bool  #: a delta will not do: send everything
    fetch: int | None = None  #: a chunk to copy to this worker meanwhile
    setup: Any = None  #: (problem, rule) as settled since, for a runner that holds no z yet; pickled on the wire
    roster: int = 0  #: how often chunks came or went: a runner that knows of fewer says hello again
    edition: int = 0  #: how often the chunk's data became others: copies from before are of what was


class Wait(NamedTuple):
    """Nothing to do now; ask again, after copying ``fetch`` to this worker if given."""

    fetch: int | None = None
    roster: int = 0  #: as in `Assignment`


class Stop(NamedTuple):
    """The run is over, or this runner is not of it."""

    reason: str


Reply = Assignment | Wait | Stop


class Push(NamedTuple):
    """The answer to one assignment."""

    chunk: int
    seq: int
    task: Task
    version: Version  #: of the z it was computed with
    payload: Fields
    base: int | None = None  #: for a delta: the sequence number it builds on
    seconds: float = 0.0  #: what it took the worker
    fingerprint: tuple[float, ...] | None = None  #: of the chunk's data; None for objects of a user's own
    trouble: str | None = None  #: "too_far" (no finite value at this z) or "busy" (not done)
    loading: float = 0.0  #: of the seconds, those until the chunk was ready
    edition: int = 0  #: the assignment's


class Failure(NamedTuple):
    """A chunk that cannot be worked on at all: ends the run."""

    chunk: int
    error: Exception
    fingerprint: tuple[float, ...] | None = None  #: as a push's: values that came to be others may not fit at all
    edition: int = 0


class Request(NamedTuple):
    """A runner's half of one exchange; one message, so that it is serialised once."""

    run_id: str
    epoch: int
    runner: str  #: "worker address#number"
    push: Push | Failure | None
    have: Version | None  #: the version of z that the runner holds
    held: frozenset[int] | None  #: the chunks at hand on its worker, where that changed
    roster: int = 0  #: the last that it heard of
    looking: float = 0.0  #: seconds it took to see which chunks are at hand, their small parts waited for
    copied: tuple[int, float] = (0, 0.0)  #: chunks copied to its worker so far, and the seconds of it
    leaving: bool = False  #: its worker is about to end: it wants no more work


def worker_of(runner: str) -> str:
    """The address of a runner's worker."""
    return runner.rpartition("#")[0]


class Outcome(str, Enum):
    """What became of a push. All but the first two are counted as refused."""

    ACCEPTED = "accepted"
    TOO_FAR = "too_far"  #: an answer, not a refusal: the step was too long
    LATE = "late"  #: another push with this sequence number was first
    STALE_EPOCH = "stale epoch"
    NO_BASE = "no base"  #: a delta whose base is absent: send whole
    SHAPE = "wrong shape or dtype"
    NOT_FINITE = "not finite"
    UNKNOWN_CHUNK = "unknown chunk"
    OTHER_DATA = "other data"  #: the chunk was computed again to other values
    MALFORMED = "malformed"  #: it does not say what it is, or of which z: no runner of this version sends that
