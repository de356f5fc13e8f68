"""A runner: ask, solve, push, in one loop a worker thread. Submitted by the supervisor, seceded."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from typing import Any

import cloudpickle
from distributed import get_worker, secede
from distributed.core import Status as WorkerStatus

from paramserver.errors import CallTimeout, RunFailed, ServerGone, StepFailed
from paramserver.messages import ELSEWHERE, Array, Assignment, Failure, Push, Reply, Request, Stop, Task, Version
from paramserver.server.handle import Handle
from paramserver.workers.cache import ChunkCache
from paramserver.workers.tasks import answer

logger = logging.getLogger("paramserver")

CALL_LIMIT = 60.0  #: seconds for one exchange
GIVE_UP = 30.0  #: seconds without a server before a runner ends; the supervisor starts another if need be
ALIVE = (WorkerStatus.running, WorkerStatus.paused, WorkerStatus.init)


def run(handle: Handle, number: int) -> str:
    """The task: returns why it ended."""
    worker = get_worker()
    secede()  # long-running: leave the thread to the users' tasks, and to a server to come
    runner = Runner(worker, handle, number)
    problem, rule, keys, roster = runner.call("hello", handle.run_id)
    with ChunkCache.shared(worker, handle.run_id, problem, keys, roster) as cache:
        return runner.loop(problem, rule, cache)


class Runner:
    """One loop on one worker."""

    def __init__(self, worker: Any, handle: Handle, number: int) -> None:
        self.worker, self.handle = worker, handle
        self.name = f"{worker.address}#{number}"
        self.have: tuple[Version, Array] | None = None
        self.told: frozenset[int] | None = None

    def call(self, method: str, value: Any) -> Any:
        """A call to the server; the limit is this thread's, and holds even if the event loop is gone."""
        coroutine = self.handle.packed(self.worker, method, value)
        future = asyncio.run_coroutine_threadsafe(coroutine, self.worker.loop.asyncio_loop)
        try:
            return future.result(CALL_LIMIT)
        except concurrent.futures.TimeoutError:  # not the builtin before Python 3.11
            future.cancel()
            raise CallTimeout(f"no answer to {method} within {CALL_LIMIT:g} s") from None

    def loop(self, problem: Any, rule: Any, cache: ChunkCache) -> str:
        """Ask, solve, push, until told to stop or the worker closes."""
        push: Push | Failure | None = None
        lost_at: float | None = None
        while self.worker.status in ALIVE:
            try:
                reply = self._exchange(push, cache)
            except (CallTimeout, ServerGone) as error:
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > GIVE_UP:
                    return f"server lost: {error}"
                time.sleep(0.2)
                continue  # the same push again: the server takes it once
            lost_at, push = None, None
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

    def _learn(self, cache: ChunkCache) -> None:
        """Chunks came or went; if the server cannot be asked now, its next answer says so again."""
        with contextlib.suppress(CallTimeout, ServerGone):
            _, _, keys, roster = self.call("hello", self.handle.run_id)
            cache.renew(keys, roster)

    def _exchange(self, push: Push | Failure | None, cache: ChunkCache) -> Reply:
        began = time.monotonic()
        held = cache.held()
        looking = time.monotonic() - began
        news = held if held != self.told else None
        have = None if self.have is None else self.have[0]
        handle = self.handle
        request = Request(handle.run_id, handle.epoch, self.name, push, have, news, cache.roster, looking, cache.copied)
        reply: Reply = self.call("exchange", request)
        self.told = held
        return reply

    def _work(self, problem: Any, rule: Any, cache: ChunkCache, work: Assignment) -> Push | Failure:
        began = time.monotonic()
        z = work.z if self.have is None or work.z is not None else self.have[1]
        if work.z is not None and work.task not in ELSEWHERE:
            self.have = (work.version, work.z)
        head = (work.chunk, work.seq, work.task, work.version)
        try:
            loaded = cache.load(work.chunk)
            loading = time.monotonic() - began
            if loaded is None:
                return Push(*head, {}, seconds=loading, trouble="busy", loading=loading)
            # A survey is as launched: bound to what the first chunks told, a problem knows no other classes.
            asked = cache.problem if work.task is Task.SURVEY else problem
            payload = answer(rule, asked, loaded.data, work, z)
        except RunFailed as error:
            return Failure(work.chunk, error)
        except Exception as error:
            logger.exception("paramserver: chunk %d, %s", work.chunk, work.task.value)
            text = f"chunk {work.chunk}: {work.task.value} raised {type(error).__name__}: {error}"
            return Failure(work.chunk, StepFailed(text))
        base = None if work.whole else work.seq - 1
        seconds = time.monotonic() - began
        trouble = "too_far" if payload is None else None
        return Push(*head, payload or {}, base, seconds, loaded.fingerprint, trouble, loading)
