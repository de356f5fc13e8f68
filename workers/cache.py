"""A worker's chunks of one run: those Dask holds there, and copies of others.

Shared by the worker's runners. A chunk that Dask holds on this worker is used where it is, never
copied within the process; one from elsewhere is copied in the background, when the server asks for
it and the worker's memory target allows. (Dask's own replicas would not last: its policy drops them.)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from distributed.utils_comm import gather_from_workers
from threadpoolctl import threadpool_limits

from paramserver.errors import RunFailed
from paramserver.workers.fingerprint import fingerprint, nbytes
from paramserver.workers.ledger import Ledger
from paramserver.workers.problems.base import Problem

SCAN = 0.5  #: seconds between looks at what Dask holds
FETCH_LIMIT = 120.0  #: seconds for one copy
SMALL_LIMIT = 1.0  #: seconds a runner waits for the small parts of chunks whose X is here


class Loaded(NamedTuple):
    """A chunk ready to work on."""

    parts: tuple[Any, ...]
    data: Any
    fingerprint: tuple[float, ...] | None

    @property
    def nbytes(self) -> int:
        """Of the parts that are arrays, sparse or tables."""
        return sum(map(nbytes, self.parts))


class ChunkCache:
    """The chunks at hand on one worker, for one run."""

    _open: ClassVar[dict[tuple[str, str], tuple[ChunkCache, int]]] = {}
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, worker: Any, problem: Problem, keys: Mapping[int, tuple[Any, ...]], roster: int = 0) -> None:
        self.worker, self.problem, self.keys, self.roster = worker, problem, keys, roster
        self._copies: dict[Any, Any] = {}
        self.ledger = Ledger(worker.memory_manager.memory_limit)
        self.copied = (0, 0.0)  #: chunks copied so far, and the seconds of it
        self._loaded: dict[int, Loaded] = {}
        self._editions: dict[int, int] = {}  #: the last that was heard of, of chunks whose data changed
        self._lock = threading.Lock()
        self._fetching = False
        self._patient = True  #: waiting for small parts has not been in vain yet
        self._held: frozenset[int] = frozenset()
        self._scanned = -np.inf

    @classmethod
    @contextlib.contextmanager
    def shared(
        cls, worker: Any, run_id: str, problem: Problem, keys: Mapping[int, tuple[Any, ...]], roster: int = 0
    ) -> Iterator[ChunkCache]:
        """One cache a worker and run, gone with its last runner."""
        place = (worker.address, run_id)
        with cls._open_lock:
            cache, users = cls._open.get(place) or (cls(worker, problem, keys, roster), 0)
            cls._open[place] = (cache, users + 1)
        try:
            with one_blas_thread():
                yield cache
        finally:
            with cls._open_lock:
                cache, users = cls._open.pop(place)
                if users > 1:
                    cls._open[place] = (cache, users - 1)

    def renew(self, keys: Mapping[int, tuple[Any, ...]], roster: int) -> None:
        """Chunks came or went: let go of what is of none."""
        with self._lock:
            if roster <= self.roster:
                return  # another runner was first
            kept = {key for parts in keys.values() for key in parts}
            self._copies = {key: value for key, value in self._copies.items() if key in kept}
            self._loaded = {i: loaded for i, loaded in self._loaded.items() if i in keys}
            self.keys, self.roster, self._scanned = keys, roster, -np.inf

    # -- what is here ----------------------------------------------------------------------------

    def held(self) -> frozenset[int]:
        """The chunks at hand, looked up a few times a second."""
        now = time.monotonic()
        with self._lock:
            if now - self._scanned < SCAN:
                return self._held
            self._scanned = now
        data = self.worker.data
        resident = getattr(data, "memory", data)
        held = self._complete()
        half = [i for i, keys in self.keys.items() if i not in held and keys[0] in data]
        if half:  # X is here, its y elsewhere: fetch the small parts unasked
            self._wait_for(half)
            held = self._complete()
        for i in list(self._loaded):
            if any(not (key is None or key in resident or key in self._copies) for key in self.keys.get(i, ())):
                self._loaded.pop(i, None)  # Dask spilled or dropped it: do not pin the memory
        self._relieve()
        self._held = frozenset(held)
        return self._held

    def _complete(self) -> set[int]:
        """Chunks of which every part is here."""
        data, copies = self.worker.data, self._copies
        return {i for i, keys in self.keys.items() if all(key is None or key in data or key in copies for key in keys)}

    def _wait_for(self, chunks: list[int]) -> None:
        """Fetch these, and wait a little: the server has nothing for this worker without them."""
        fetching = self.fetch(*chunks)
        if fetching is None or not self._patient:
            return
        done, _ = concurrent.futures.wait([fetching], SMALL_LIMIT)
        self._patient = bool(done)  # else whoever holds them is stopped or far: never wait again

    def load(self, chunk: int, edition: int = 0) -> Loaded | None:
        """The chunk's data, checked and prepared; None if it has left meanwhile."""
        self._at(chunk, edition)
        try:
            parts = tuple(self._part(key) for key in self.keys[chunk])
        except KeyError:
            self._scanned = -np.inf
            return None
        with self._lock:
            old = self._loaded.get(chunk)
        if old is not None and all(a is b for a, b in zip(old.parts, parts, strict=True)):
            return old
        if len(parts) == 1 and isinstance(parts[0], tuple):
            unpacked: tuple[Any, ...] = parts[0]
        else:
            unpacked = parts
        try:
            prints = fingerprint(unpacked)
            data = self.problem.prepare(*unpacked)
        except RunFailed as error:
            raise type(error)(f"chunk {chunk}: {error}") from None
        loaded = Loaded(parts, data, prints)
        with self._lock:
            self._loaded[chunk] = loaded
        return loaded

    def _at(self, chunk: int, edition: int) -> None:
        """The chunk's data are others by now: what Dask holds here is of these, copies made before may be of what was.

        Also those of the worker that found the change: X copied before a loss and y after it are of neither.
        """
        with self._lock:
            if edition <= self._editions.get(chunk, 0):
                return
            self._editions[chunk] = edition
            for key in self.keys.get(chunk, ()):
                self._copies.pop(key, None)
            self._loaded.pop(chunk, None)
            self._scanned = -np.inf

    def _part(self, key: Any) -> Any:
        copies = self._copies
        if key is None:
            return None
        return copies[key] if key in copies else self.worker.data[key]

    # -- copies ----------------------------------------------------------------------------------

    def fetch(self, *chunks: int) -> concurrent.futures.Future[None] | None:
        """Begin to copy chunks here; one call at a time, within the memory target."""
        with self._lock:
            if self._fetching or not self._room():
                return None
            self._fetching = True
        return asyncio.run_coroutine_threadsafe(self._fetch(chunks), self.worker.loop.asyncio_loop)

    async def _fetch(self, chunks: tuple[int, ...]) -> None:
        began = time.monotonic()
        try:
            data, editions = self.worker.data, dict(self._editions)
            keys = {key for i in chunks for key in self.keys.get(i, ()) if key is not None and key not in data}
            there = await asyncio.wait_for(self.worker.scheduler.who_has(keys=list(keys)), 10.0)
            who_has = {key: workers for key, workers in there.items() if workers}
            gathered = await asyncio.wait_for(gather_from_workers(who_has, rpc=self.worker.rpc), FETCH_LIMIT)
            self._keep(gathered[0], {i for i in chunks if self._editions.get(i) == editions.get(i)})
            self._scanned = -np.inf
            count, seconds = self.copied
            self.copied = count + len(chunks), seconds + time.monotonic() - began
        except (OSError, asyncio.TimeoutError, RuntimeError):
            pass  # its holder is slow, stopped or gone: the server asks again while the chunk waits
        finally:
            self._fetching = False

    def _keep(self, gathered: Mapping[Any, Any], chunks: set[int]) -> None:
        """Copies of these chunks; of others, whose data changed since, they may be of what was."""
        with self._lock:
            wanted = {key for i in chunks for key in self.keys.get(i, ())}
            self._copies.update({key: value for key, value in gathered.items() if key in wanted})

    def _room(self) -> bool:
        manager = self.worker.memory_manager
        limit, target = manager.memory_limit, manager.memory_target_fraction or 0.6
        if not limit:
            return True
        largest = max((loaded.nbytes for loaded in self._loaded.values()), default=0)
        return bool(self.worker.monitor.get_process_memory() + largest < target * limit)

    def _relieve(self) -> None:
        """Drop copies while the process is over its memory target."""
        if self._copies and not self._room():
            for key in list(self._copies)[: max(len(self._copies) // 2, 1)]:
                del self._copies[key]


class _BlasThreads:
    """BLAS keeps to one thread while any runner of this process is at work: the limit is global."""

    lock: ClassVar[threading.Lock] = threading.Lock()
    users: ClassVar[int] = 0
    limits: ClassVar[Any] = None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS until the last user leaves."""
    with _BlasThreads.lock:
        if _BlasThreads.users == 0:
            _BlasThreads.limits = threadpool_limits(1)
        _BlasThreads.users += 1
    try:
        yield
    finally:
        with _BlasThreads.lock:
            _BlasThreads.users -= 1
            if _BlasThreads.users == 0:
                _BlasThreads.limits.restore_original_limits()
