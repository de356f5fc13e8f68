"""Everything that paramserver raises on purpose.

ParamServerError
├── InvalidInput (ValueError)     what was passed cannot be used
│   └── MissingMethod             a plug-in lacks a method its partner needs
├── UnknownRun (LookupError)      no run of that name on this scheduler
├── NameTaken                     a run of that name is already running
├── NoScheduler                   nothing answers at the scheduler's address
├── EnvironmentMismatch           a host lacks paramserver or has another one
├── CallTimeout (TimeoutError)    an answer did not come within its limit
├── ServerGone                    the run's server cannot be reached any more
├── CheckpointError               a checkpoint cannot be used
└── RunFailed                     the run ended with an error
    ├── BadData                   a chunk holds what cannot be fitted
    ├── ChunkChanged              a recomputed chunk has other values
    ├── ChunkLost                 a chunk is gone and cannot be recomputed
    ├── ClusterRestarted          somebody called Client.restart()
    ├── ServerLost                the server died
    └── StepFailed                a local solve or an update raised
"""

from __future__ import annotations


class ParamServerError(Exception):
    """Root of the tree: ``except ParamServerError`` catches all of them."""


class InvalidInput(ParamServerError, ValueError):
    """What was passed cannot be used; the message says what to pass instead."""


class MissingMethod(InvalidInput):
    """A plug-in lacks a method that its partner needs."""


class UnknownRun(ParamServerError, LookupError):
    """No run of that name on this scheduler."""


class NameTaken(ParamServerError):
    """A run of that name is already running."""


class NoScheduler(ParamServerError, ConnectionError):
    """Nothing answers at the scheduler's address."""


class EnvironmentMismatch(ParamServerError):
    """A host cannot import paramserver, or imports another version."""


class CallTimeout(ParamServerError, TimeoutError):
    """An answer did not come within its limit."""


class ServerGone(ParamServerError, ConnectionError):
    """The run's server cannot be reached (any more)."""


class CheckpointError(ParamServerError):
    """A checkpoint cannot be used: truncated, damaged, foreign, or of a newer version.

    The message says which file and which of these.
    """


class RunFailed(ParamServerError):
    """The run ended with an error."""


class BadData(RunFailed):
    """A chunk holds what cannot be fitted; the message names chunk and row."""


class ChunkChanged(RunFailed):
    """A chunk was recomputed to other values than it had before."""


class ChunkLost(RunFailed):
    """A chunk's data are gone and cannot be recomputed."""


class ClusterRestarted(RunFailed):
    """`Client.restart` made the scheduler forget all data and tasks, the run's among them."""


class ServerLost(RunFailed):
    """The worker that held the server died."""


class StepFailed(RunFailed):
    """A local solve on a worker, or an update on the server, raised."""

    @classmethod
    def of(cls, where: str, error: Exception) -> StepFailed:
        """What was raised there, and by what."""
        out = cls(f"{where}: {type(error).__name__}: {error}")
        out.__cause__ = error
        return out
