"""A runner: ask, solve, push, in one loop a worker thread. Submitted by the supervisor, seceded.

Where its server does not answer it asks the supervisor, follows the run to the server that took over,
and pushes again what that one lacks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any
from weakref import WeakSet

import cloudpickle
from distributed import get_worker, secede
from distributed.core import Status as WorkerStatus

from paramserver.errors import CallTimeout, NoScheduler, RunFailed, ServerGone, StepFailed
from paramserver.messages import ELSEWHERE, Array, Assignment, Failure, Push, Reply, Request, Stop, Task, Version
from paramserver.server.handle import Handle
from paramserver.workers.cache import ChunkCache
from paramserver.workers.ledger import nbytes
from paramserver.workers.tasks import answer

logger = logging.getLogger("paramserver")

CALL_LIMIT = 60.0  #: seconds for one exchange
LOOK = 3.0  #: seconds of waiting before the supervisor is asked whether the run has moved
ASK_LIMIT = 5.0  #: seconds for the supervisor to answer
GIVE_UP = 30.0  #: seconds without server and supervisor before a runner ends
AGAIN = 0.1  #: seconds between attempts
ALIVE = (WorkerStatus.running, WorkerStatus.paused, WorkerStatus.init)
BATCH = 16 << 20  #: bytes of pushes sent again at once

_leaving: WeakSet[Any] = WeakSet()  #: workers of this process that are about to end


def run(handle: Handle, number: int) -> str:
    """The task: returns why it ended."""
    worker = get_worker()
    secede()  # long-running: leave the thread to the users' tasks, and to a server to come
    runner = Runner(worker, handle, number)
    try:
        problem, rule, keys, roster, _ = runner.call("hello", handle.run_id)
    except (CallTimeout, ServerGone) as error:
        return f"server lost: {error}"  # the supervisor starts another runner, for the server that takes over
    with ChunkCache.shared(worker, handle.run_id, problem, keys, roster) as cache:
        return runner.loop(problem, rule, cache)


def leave(worker: Any) -> bool:
    """A worker is about to end: its runners finish what they are at, push it, and end. False where they know."""
    known = worker in _leaving
    _leaving.add(worker)
    return not known


class Runner:
    """One loop on one worker."""

    def __init__(self, worker: Any, handle: Handle, number: int) -> None:
        self.worker, self.handle = worker, handle
        self.name = f"{worker.address}#{number}"
        self.have: tuple[Version, Array] | None = None
        self.told: frozenset[int] | None = None

    # -- calls -----------------------------------------------------------------------------------

    def call(self, method: str, value: Any) -> Any:
        """A call to the server; the limit is this thread's, and holds even if the event loop is gone."""
        future = self._begin(self.handle.packed(self.worker, method, value))
        limit = time.monotonic() + CALL_LIMIT
        while True:
            try:
                return future.result(LOOK)
            except concurrent.futures.TimeoutError:  # not the builtin before Python 3.11
                moved = self._where() not in (self.handle, None)
                if moved or time.monotonic() > limit:
                    future.cancel()
                    text = "the run has moved" if moved else f"no answer to {method} within {CALL_LIMIT:g} s"
                    raise CallTimeout(text) from None

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.worker.loop.asyncio_loop)

    def _where(self) -> Handle | str | None:
        """The run's server now; None while there is none, and where nobody can say; why, where it is over."""
        with contextlib.suppress(NoScheduler):
            return self._asked()
        return None

    def _asked(self) -> Handle | str | None:
        call = self.worker.scheduler.paramserver(do="where", run_id=self.handle.run_id)
        future = self._begin(asyncio.wait_for(call, ASK_LIMIT))
        try:
            result = future.result(ASK_LIMIT + 1.0)["result"]
        except (OSError, asyncio.TimeoutError, concurrent.futures.TimeoutError, KeyError, TypeError) as error:
            future.cancel()
            raise NoScheduler(f"the scheduler does not say where the run is: {error!r}") from None
        return result if isinstance(result, str) or result is None else Handle(*result)

    # -- the loop --------------------------------------------------------------------------------

    def loop(self, problem: Any, rule: Any, cache: ChunkCache) -> str:
        """Ask, solve, push, until told to stop or the worker closes."""
        push: Push | Failure | None = None
        heard = time.monotonic()
        while self.worker.status in ALIVE:
            try:
                reply = self._exchange(push, cache)
            except (CallTimeout, ServerGone) as error:
                before = self.handle
                end, heard = self._lost(cache, error, heard)
                if end is not None:
                    return end
                if self.handle is not before and isinstance(push, Push):
                    push = None  # of another epoch; what may be taken of it was sent again
                continue  # else the same push again: the server takes it once
            heard, push = time.monotonic(), None
            if isinstance(reply, Stop):
                return reply.reason
            if reply.roster > cache.roster:
                self._learn(cache)
            if reply.fetch is not None:
                cache.fetch(reply.fetch)
            if isinstance(reply, Assignment):
                if reply.setup is not None:
                    problem, rule = cloudpickle.loads(reply.setup)
                push = self._work(problem, rule, cache, reply)
        return "worker closing"

    def _exchange(self, push: Push | Failure | None, cache: ChunkCache) -> Reply:
        began = time.monotonic()
        held = cache.held()
        looking = time.monotonic() - began
        news = held if held != self.told else None
        have = None if self.have is None else self.have[0]
        handle = self.handle
        request = Request(
            handle.run_id, handle.epoch, self.name, push, have, news, cache.roster, looking, cache.copied,
            self.worker in _leaving,
        )  # fmt: skip
        reply: Reply = self.call("exchange", request)
        self.told = held
        return reply

    def _learn(self, cache: ChunkCache) -> None:
        """Chunks came or went; if the server cannot be asked now, its next answer says so again."""
        with contextlib.suppress(CallTimeout, ServerGone):
            _, _, keys, roster, _ = self.call("hello", self.handle.run_id)
            cache.renew(keys, roster)

    # -- a server that is lost -------------------------------------------------------------------

    def _lost(self, cache: ChunkCache, error: Exception, heard: float) -> tuple[str | None, float]:
        """(why this runner ends, if it does; when somebody was heard of last)."""
        try:
            there = self._asked()
        except NoScheduler:
            there, heard_now = None, heard
        else:
            heard_now = time.monotonic()
        if isinstance(there, str):
            return there, heard_now
        if there is not None and there.epoch > self.handle.epoch:
            with contextlib.suppress(CallTimeout, ServerGone):  # lost too: to be asked again
                self._follow(there, cache)
                return None, heard_now
        time.sleep(AGAIN)
        gone = time.monotonic() - heard_now > GIVE_UP
        return (f"server lost: {error}" if gone else None), heard_now

    def _follow(self, handle: Handle, cache: ChunkCache) -> None:
        """Go on with the server that took over: first with what it lacks."""
        old, self.handle = self.handle, handle
        try:
            _, _, keys, roster, seqs = self.call("hello", handle.run_id)
            cache.renew(keys, roster)
            for batch in _batches(cache.ledger.since(seqs)):
                self.call("replay", batch)
        except (CallTimeout, ServerGone):
            self.handle = old
            raise
        self.have = self.told = None

    # -- work ------------------------------------------------------------------------------------

    def _work(self, problem: Any, rule: Any, cache: ChunkCache, work: Assignment) -> Push | Failure:
        began = time.monotonic()
        z = work.z if self.have is None or work.z is not None else self.have[1]
        if work.z is not None and work.task not in ELSEWHERE:
            self.have = (work.version, work.z)
        head = (work.chunk, work.seq, work.task, work.version)
        loaded = None
        try:
            loaded = cache.load(work.chunk, work.edition)
            loading = time.monotonic() - began
            if loaded is None:
                return Push(*head, {}, seconds=loading, trouble="busy", loading=loading)
            # A survey is as launched: bound to what the first chunks told, a problem knows no other classes.
            asked = cache.problem if work.task is Task.SURVEY else problem
            payload = answer(rule, asked, loaded.data, work, z)
        except RunFailed as error:
            return Failure(work.chunk, error, loaded and loaded.fingerprint, work.edition)
        except Exception as error:
            logger.exception("paramserver: chunk %d, %s", work.chunk, work.task.value)
            text = f"chunk {work.chunk}: {work.task.value} raised {type(error).__name__}: {error}"
            return Failure(work.chunk, StepFailed(text), loaded and loaded.fingerprint, work.edition)
        base = None if work.whole else work.seq - 1
        seconds = time.monotonic() - began
        trouble = "too_far" if payload is None else None
        push = Push(*head, payload or {}, base, seconds, loaded.fingerprint, trouble, loading, work.edition)
        if work.task is Task.SOLVE and payload is not None:
            cache.ledger.add(push, whole=not rule.is_delta(payload))
        return push


def _batches(pushes: list[Push]) -> list[list[Push]]:
    """In order, each of a size that one message may have."""
    out: list[list[Push]] = []
    size = BATCH
    for push in pushes:
        if size >= BATCH:
            out.append([])
            size = 0
        out[-1].append(push)
        size += nbytes(push)
    return out
