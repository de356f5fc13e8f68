"""What a command wants of a batch system: how many jobs, how large, for how long it waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paramserver.cluster.systems import system
from paramserver.errors import InvalidInput

WAIT = 300.0  #: seconds for the first worker


@dataclass(frozen=True)
class Request:
    """Jobs of a batch system, for one command.

    Parameters
    ----------
    system : str
        The batch system's name.
    jobs : int
        How many; those that end come back.
    adapt : (int, int)
        Instead: at least and at most, as many as the run has work for. One stays as long as the run lives.
    wait : float
        Seconds for the first worker.
    tls : bool
        Encrypt everything, with a certificate made for this cluster.
    warning : float
        As for `settings`.
    keywords : dict
        Of dask-jobqueue's class.
    head : dict
        What is different for the job of scheduler and server, where the fit is detached.
    lines : dict
        Where keywords were written, as the messages about them begin.
    """

    system: str
    jobs: int | None = None
    adapt: tuple[int, int] | None = None
    wait: float = WAIT
    tls: bool = False
    warning: float = 60.0
    keywords: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        system(self.system)
        if self.jobs is not None and self.adapt is not None:
            raise InvalidInput("jobs says how many, adapt lets the run's work say it: leave one of both out")
        if self.jobs is not None and self.jobs < 1:
            raise InvalidInput(f"jobs must be ≥ 1, got {self.jobs}")
        if not 0 < self.wait < math.inf:
            raise InvalidInput(f"wait must be seconds > 0, got {self.wait:g}")

    @property
    def least(self) -> int:
        """Jobs that there always are."""
        return self.jobs or 1 if self.adapt is None else max(self.adapt[0], 1)

    @property
    def most(self) -> int:
        """Jobs that there may be."""
        return self.least if self.adapt is None else self.adapt[1]


def between(text: str) -> tuple[int, int]:
    """``MIN:MAX`` as two numbers of jobs."""
    least, colon, most = text.partition(":")
    if not (colon and least.isdecimal() and most.isdecimal() and int(least) <= int(most) and int(most) >= 1):
        raise InvalidInput(f"adapt must be MIN:MAX jobs, such as 0:8, got {text!r}")
    return int(least), int(most)
