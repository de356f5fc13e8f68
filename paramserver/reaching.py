"""Reaching a run from a client: its supervisor, and its server wherever that is now."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import Callable
from typing import Any

from paramserver.asking import ask_supervisor, scheduler_of
from paramserver.ending import Ending
from paramserver.errors import ServerGone, UnknownRun
from paramserver.server.handle import Handle

LOOK = 1.0  #: seconds of waiting for a server before the supervisor is asked whether it still is the one
TAKEOVER = 30.0  #: seconds for another server to take over from one that was lost


class Reached:
    """A run by its name, and what its supervisor last said of it."""

    def __init__(self, name: str, client: Any, summary: dict[str, Any]) -> None:
        self.name, self.client = name, client
        self._summary = summary

    async def _find(self) -> dict[str, Any]:
        summary: dict[str, Any] = await ask_supervisor(self.client, "find", name=self.name)
        self._changed(summary)
        return summary

    async def _call(self, method: str, *args: Any, timeout: float = 30.0, patience: float = TAKEOVER) -> Any:
        """Call the server, wherever it is now; None where the run is over or not begun.

        One that was lost is waited for to be replaced, for ``patience`` seconds.
        """
        limit = time.monotonic() + patience
        while True:
            summary = self._summary
            if summary["handle"] is None or summary["state"] == "waiting":
                summary = await self._find()
            if not is_live(summary) or summary["state"] == "waiting":
                return None
            if summary["handle"] is not None:
                with contextlib.suppress(ServerGone):
                    return await self._ask_at(Handle(*summary["handle"]), method, *args, timeout=timeout)
                await self._find()  # it ended or moved since
            if time.monotonic() > limit:
                raise ServerGone(f"run {self.name!r} has no server, {summary.get('waits') or 'and none took over yet'}")
            await asyncio.sleep(0.05)

    async def _ask_at(self, handle: Handle, method: str, *args: Any, timeout: float) -> Any:
        """Ask this server, as long as it is the run's: a dead worker's address may leave a call unanswered for long."""
        call = asyncio.ensure_future(handle.through(scheduler_of(self.client), method, *args, timeout=timeout))
        try:
            while not (await asyncio.wait([call], timeout=LOOK))[0]:
                now = (await self._find())["handle"]
                if now is None or Handle(*now) != handle:
                    raise ServerGone(f"the server of run {self.name!r} is at {handle.address} no more")
        finally:
            call.cancel()
        return call.result()

    async def _outcome(self) -> Ending | None:
        summary = self._summary if self._summary["outcome"] else await self._find()
        out: Ending | None = pickle.loads(summary["outcome"]) if summary["outcome"] else None
        return out

    def _changed(self, summary: dict[str, Any]) -> None:
        """Take what the supervisor said, if it is of this run and not of a later one of its name."""
        if summary["run_id"] != self._summary["run_id"]:
            raise UnknownRun(f"run {self.name!r} ended, and another of its name was launched since: connect again")
        self._summary = summary

    def _sync(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.client.sync(function, *args, **kwargs)


def is_live(summary: dict[str, Any]) -> bool:
    """Whether a run so described is not over."""
    return summary["state"] in ("waiting", "live", "converged")
