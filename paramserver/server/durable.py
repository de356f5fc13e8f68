"""What of a server outlives it: an anchor that the supervisor keeps, and checkpoints at a URL.

The supervisor is the only authority: what it refuses, because a later epoch has the run, tells this
server that it is stale. It changes nothing from then on, and deletes no file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import cloudpickle

from paramserver.errors import InvalidInput, RunFailed, ServerGone
from paramserver.server import checkpoint
from paramserver.server.store import Store

logger = logging.getLogger("paramserver")

EVERY = 2.0  #: seconds between anchors
SHARE = 50.0  #: times what an anchor took is the shortest wait for the next
LIMIT = 10.0  #: seconds for the supervisor to take one
SAVE_LIMIT = 600.0  #: seconds for a checkpoint to be written
LAST_LIMIT = 20.0  #: seconds that the end of a run waits for its last checkpoint
KEPT = 2  #: checkpoints of an epoch that stay
PARKED = 512 << 20  #: bytes that the scheduler's process is to hold of a run without a worker


class Durable:
    """One server's anchors and checkpoints. ``superseded``: this server is none any more, or is being moved."""

    def __init__(self, server: Any) -> None:
        spec = server.core.spec
        self.server = server
        self.superseded = False
        self.store = None if spec.checkpoint is None else Store(spec.checkpoint)
        self._next = 0.0  #: the first as soon as there is a z, or a server that took over is of use
        self._next_save = time.monotonic() + spec.checkpoint_every
        self._kept: tuple[Any, ...] = self._news()  #: what the supervisor has
        self._agreed = self._terms()  #: the supervisor can make a server of
        self._saved: tuple[Any, ...] = ()
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._status = "running"  #: of the worker, when it was last looked at
        self._number = 0
        self._tried = False  #: whether the rule's state can be stored
        self._had = self._own()
        self._drained: dict[str, Any] | None = None

    def look(self) -> None:
        """Whether something is due. Called at every turn, while nobody else is at the core."""
        if self.server not in self.server.worker.state.actors.values():
            self.superseded = True  # released while this process was stopped, say
        now = time.monotonic()
        self._heed(self.server.worker.status.name)
        if self.superseded or self.server.core.params.z is None or now < min(self._next, self._next_save):
            return
        if self.store is not None and not self._tried:
            self._tried = True
            self._try(now)
        if now >= self._next and self._idle("keep") and self._news() != self._kept:
            self._start("keep", self._keep(*self._anchor()))
        if now >= self._next_save and self._idle("save") and self.store is not None:
            self._start("save", self._save(checkpoint.snapshot(self.server.core, now), SAVE_LIMIT))

    def _try(self, now: float) -> None:
        """A rule that no checkpoint can hold is told at once, not when the first is due."""
        params = self.server.core.params
        try:
            checkpoint.check_storable(params.rule, params.state)
        except InvalidInput as error:
            self.server.core.fail(RunFailed(str(error)), now)

    def _own(self) -> int:
        record = self.server.core.record
        return int(record.pushes - record.replayed)

    def _heed(self, status: str) -> None:
        """Early warnings: a worker that is paused (short of memory) or is being retired may be gone soon."""
        if status != self._status and status != "running":
            self._next = self._next_save = 0.0
        self._status = status

    def _idle(self, what: str) -> bool:
        return what not in self._tasks or self._tasks[what].done()

    def _start(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks[what] = asyncio.create_task(work)

    def _news(self) -> tuple[Any, ...]:
        core = self.server.core
        return core.params.version, core.record.pushes, core.state, core.changes

    # -- anchors ---------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Hand an anchor to the supervisor now. Nobody else may be at the core."""
        await self._keep(*self._anchor())

    def _anchor(self) -> tuple[Any, ...]:
        core = self.server.core
        self._number += 1
        head = {"number": self._number, "taken": self._own() - self._had, "blob": self._blob()}
        return self._news(), self._terms(), head, checkpoint.snapshot(core, time.monotonic(), anchor=True)

    def _terms(self) -> tuple[int, int]:
        """What a new server is made of changes with these."""
        return self.server.core.changes, self.server.core.census.left

    def _blob(self) -> bytes | None:
        """What a new server is made of; None where the supervisor has it."""
        if self._agreed == self._terms():
            return None
        core = self.server.core
        spec = core.spec if core.params.setup is None else replace(core.spec, penalty=core.params.bound.penalty)
        return bytes(cloudpickle.dumps((spec, self.server.keys)))

    async def _keep(self, news: Any, terms: tuple[int, int], head: dict[str, Any], shot: dict[str, Any]) -> None:
        began, core = time.monotonic(), self.server.core
        try:
            state = await asyncio.to_thread(checkpoint.pack, shot)
            await self._tell("keep", state=state, **head)
            self._kept, self._agreed = news, terms
        except TypeError as error:
            core.notes.say(f"the run is not kept: should its server die, it begins anew. {error}")
        except (OSError, asyncio.TimeoutError, KeyError) as error:
            logger.warning("paramserver: the supervisor did not take an anchor of %s: %r", core.spec.name, error)
        finally:
            self._next = time.monotonic() + max(EVERY, SHARE * (time.monotonic() - began))

    async def _tell(self, do: str, **what: Any) -> None:
        """The supervisor accepts, or this server is stale."""
        server = self.server
        call = server.worker.scheduler.paramserver(do=do, run_id=server.run_id, epoch=server.epoch, **what)
        reply = await asyncio.wait_for(call, LIMIT) or {"result": True}  # no supervisor: nobody to be judged by
        self.superseded = self.superseded or not reply["result"]

    # -- checkpoints -----------------------------------------------------------------------------

    async def last(self) -> None:
        """A checkpoint of how the run ended."""
        if self.store is not None and not self.superseded and self.server.core.params.z is not None:
            await self._save(checkpoint.snapshot(self.server.core, time.monotonic()), LAST_LIMIT)

    async def _save(self, shot: dict[str, Any], limit: float) -> bool:
        """Whether it is written, and accepted."""
        server, news = self.server, (shot["n"], shot["pushes"], shot["changes"])
        try:
            if news != self._saved:
                name = await asyncio.wait_for(asyncio.to_thread(self._write, shot), limit)
                await self._tell("saved", name=name)
                self._saved = news
                if not self.superseded:
                    await asyncio.wait_for(asyncio.to_thread(self._prune), limit)
            return True
        except (InvalidInput, OSError, asyncio.TimeoutError, KeyError, TypeError) as error:
            server.core.notes.say(f"no checkpoint was written: {error or type(error).__name__}")
            return False
        finally:
            self._next_save = time.monotonic() + server.core.spec.checkpoint_every

    def _write(self, shot: dict[str, Any]) -> str:
        assert self.store is not None
        return self.store.write(shot["epoch"], shot["pushes"], checkpoint.pack(shot))

    def _prune(self) -> None:
        """Accepted: older ones are not needed any more, of this epoch and of those before it."""
        assert self.store is not None
        for epoch in {int(name.partition("-")[0]) for name in self.store.names()}:
            if epoch <= self.server.epoch:
                self.store.prune(epoch, KEPT if epoch == self.server.epoch else 0)

    # -- moving ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """The state as it is now is the last."""
        self.superseded = True
        self._drained = checkpoint.snapshot(self.server.core, time.monotonic())

    async def drained(self) -> bytes:
        """The state after `drain`."""
        if self._drained is None:
            raise ServerGone(f"the server of run {self.server.run_id} was not drained: there is nothing to fetch")
        return await asyncio.to_thread(checkpoint.pack, self._drained)

    async def parked(self) -> tuple[bytes, bool]:
        """The state after `drain`, and whether the run's URL has it too; without local models where it is too large."""
        state, saved = await self.drained(), False
        if self.store is not None and self._drained is not None and self._drained["z"] is not None:
            saved = await self._save(self._drained, LAST_LIMIT)
        if len(state) > PARKED:
            shot = checkpoint.snapshot(self.server.core, time.monotonic(), anchor=True)
            state = await asyncio.to_thread(checkpoint.pack, shot)
        return state, saved
