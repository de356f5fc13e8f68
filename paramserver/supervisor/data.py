"""The chunks' keys of a run: held on the scheduler as long as the run needs them."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import Iterable
from typing import Any

from distributed.scheduler import KilledWorker

from paramserver.errors import ChunkLost
from paramserver.supervisor.record import RunRecord

RETRIES = 2  #: times that a chunk is computed again after Dask gave it up, because workers died meanwhile
KEYS_LIMIT = 120.0  #: seconds for the chunks' keys to appear on the scheduler


class Holder:
    """Holds data as a client would that has futures of them."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._retried: dict[Any, int] = {}  #: key → how often since it last was there

    async def hold(self, record: RunRecord, chunks: Iterable[tuple[Any, ...]]) -> None:
        """Hold these chunks' keys; their graph may still be under way on the client's stream."""
        keys, limit = data_keys(chunks), time.monotonic() + KEYS_LIMIT
        while not all(key in self.scheduler.tasks for key in keys):
            if not record.live:
                return  # stopped, or the cluster was restarted: they may never come
            if time.monotonic() > limit:
                missing = [key for key in keys if key not in self.scheduler.tasks]
                raise ChunkLost(
                    f"{len(missing)} of {len(keys)} chunk keys did not reach the scheduler within "
                    f"{KEYS_LIMIT:g} s, for instance {missing[0]!r}"
                )
            await asyncio.sleep(0.005)
        if record.live:
            self.scheduler.client_desires_keys(list(keys), record.holder)

    def perishable(self, chunks: Iterable[tuple[Any, ...]]) -> int:
        """How many of these chunks nothing can compute again, once the worker that has their data is gone.

        Data without a recipe were put on a worker as they are (`Client.scatter`). Arrays that a client passes are not
        of that kind: they travel inside the graph, and the scheduler keeps it. Nor does it help to hear of data in
        the scheduler's own process, where all there is ends together.
        """
        chunks = list(chunks)
        lost = self._made_of(task for task in self._lineage(chunks) if not task.run_spec and _apart(task))
        return sum(any(key in lost for key in parts) for parts in chunks)

    def _lineage(self, chunks: Iterable[tuple[Any, ...]]) -> set[Any]:
        """The tasks of these chunks, and all that they come from."""
        known = self.scheduler.tasks
        return _closure((known[key] for key in data_keys(chunks) if key in known), "dependencies")

    def _made_of(self, tasks: Iterable[Any]) -> set[Any]:
        """The keys of these tasks, and of what is computed from them."""
        return {task.key for task in _closure(tasks, "dependents")}

    def let_go(self, record: RunRecord, chunks: Iterable[tuple[Any, ...]]) -> None:
        """Release these chunks' keys, as far as no chunk of the run has them."""
        self._release(record, data_keys(chunks) - data_keys(record.keys.values()))

    def _release(self, record: RunRecord, keys: set[Any]) -> None:
        self.scheduler.client_releases_keys(list(keys), record.holder)
        for key in keys & self._retried.keys():
            del self._retried[key]

    def cross_off(self, record: RunRecord, there: frozenset[int], asked: set[int]) -> None:
        """Chunks that left since: the server has them no more."""
        left = [record.keys.pop(chunk) for chunk in asked - there if chunk in record.keys]
        if left:
            self.let_go(record, left)

    def release(self, record: RunRecord) -> None:
        """Let go of all."""
        if record.holder in self.scheduler.clients:
            self._release(record, data_keys(record.keys.values()))
            self.scheduler.clients.pop(record.holder, None)

    def lost(self, chunk: int, parts: tuple[Any, ...]) -> str:
        """Why a chunk cannot be had; nothing where it can."""
        for key in (key for key in parts if key is not None):
            task = self.scheduler.tasks.get(key)
            if task is None or task.state == "forgotten":
                return (
                    f"chunk {chunk} is gone: the worker that held it left and it cannot be computed again "
                    "(scattered data?); pass lazy or persisted collections instead"
                )
            if task.state == "memory":
                self._retried.pop(key, None)
            if task.state == "erred" and not self._retry(task):
                blame = task.exception_blame or task
                why = blame.exception_text or str(_exception(blame) or "its task failed")
                return f"chunk {chunk} cannot be computed: {why}"
        return ""

    def _retry(self, task: Any) -> bool:
        """Whether a task is computed once more: not its own fault, for all that Dask knows, workers died at it."""
        key, blame = task.key, task.exception_blame or task
        if self._retried.get(key, 0) >= RETRIES or not isinstance(_exception(blame), KilledWorker):
            return False
        self._retried[key] = self._retried.get(key, 0) + 1
        blame.suspicious = 0
        self.scheduler.stimulus_retry([key])
        return True


def _closure(tasks: Iterable[Any], way: str) -> set[Any]:
    found: set[Any] = set()
    rest = list(tasks)
    while rest:
        task = rest.pop()
        if task not in found:
            found.add(task)
            rest += getattr(task, way)
    return found


def _apart(task: Any) -> bool:
    """Whether some worker in another process than the scheduler's has it."""
    return any(not worker.address.startswith("inproc://") for worker in task.who_has or ())


def _exception(task: Any) -> Any:
    with contextlib.suppress(Exception):  # of a class that is not known here
        return pickle.loads(task.exception) if isinstance(task.exception, bytes) else None
    return None


def data_keys(chunks: Iterable[tuple[Any, ...]]) -> set[Any]:
    """The keys of all parts of these chunks."""
    return {key for parts in chunks for key in parts if key is not None}
