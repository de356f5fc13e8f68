"""What becomes of jobs when they are submitted, which dask-jobqueue logs and forgets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from distributed.core import Status

RETRY = 30.0  #: seconds until a job that was refused is submitted again


@dataclass
class Submissions:
    """Of one cluster."""

    accepted: list[str] = field(default_factory=list)  #: the jobs' ids
    refused: list[str] = field(default_factory=list)  #: what the batch system said


def recorded(kind: Any, submissions: Submissions) -> Any:
    """A class of jobs as dask-jobqueue has it, which writes down what was accepted and what was refused."""

    class Recorded(kind):  # type: ignore[misc]
        @staticmethod
        async def _call(cmd: list[str], **options: Any) -> Any:
            """In a session of its own: a Ctrl-C in the terminal is not for commands that submit and cancel."""
            heard = [word.removesuffix(" 2> /dev/null") for word in cmd]  # LSF's, which says there why it refuses
            return await kind._call(heard, start_new_session=True, **options)

        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                submissions.refused.append(said(error))
                # An error here would stop the other jobs; a cluster that has forgotten this one tries it again
                self.status = Status.running
                asyncio.get_running_loop().call_later(RETRY, self._forget)
            else:
                submissions.accepted.append(self.job_id)

        def _forget(self) -> None:
            cluster = self._cluster()
            if cluster is not None and cluster.workers.get(self.name) is self:
                del cluster.workers[self.name]

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    return Recorded


def said(error: Exception) -> str:
    """The batch system's words in one line: of its stderr or, where that is empty, of its stdout."""
    before, _, stderr = str(error).partition("stderr:\n")
    _, _, stdout = before.partition("stdout:\n")
    words = next((text for text in (stderr, stdout) if text.strip()), str(error))
    return "; ".join(line.strip() for line in words.splitlines() if line.strip())
