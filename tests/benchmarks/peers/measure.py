"""Peers' processes: started on the same two cores, asked in turn, watched for memory, ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from .base import Peer, Point
from .cases import Case, Setting

LOADING = 300.0  #: seconds to load the data, start a cluster, warm up
GRACE = 30.0  #: seconds past its limit that a run is waited for: a round of ADMM is not cut
HELPER = 30e6  #: bytes: smaller processes only help multiprocessing
LEAVING = 10.0  #: seconds to end by itself


class Failed(Exception):
    """A peer's process ended, raised or took too long: its words."""


class Memory(NamedTuple):
    """Peak proportional set size of all of a peer's processes together, and how many of them do the work."""

    nbytes: int
    processes: int


class Process:
    """A peer that has loaded a case and waits to be asked."""

    def __init__(self, name: str, peer: Peer, case: Case, folder: Path) -> None:
        self.name, self.folder = name, folder
        threads = {f"{lib}_NUM_THREADS": str(peer.blas_threads) for lib in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        here = [sys.executable, "-m", f"{__package__}.serve", name, case.name, str(folder)]
        self.log = folder / f"{case.name} {name}.log"
        with self.log.open("w") as log:
            self._child = subprocess.Popen(
                here,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **threads},
                bufsize=0,
            )
        self._tree = {self._child.pid: psutil.Process(self._child.pid)}
        self._rest = b""

    def ready(self) -> None:
        """Wait until it is."""
        self._answer(LOADING)

    def run(self, setting: Setting, limit: float) -> list[Point]:
        """One fit, or a `Failed`."""
        out = self.folder / f"{self._child.pid}.npz"
        request = {"options": setting.options, "limit": limit, "out": str(out)}
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        seconds = self._answer(limit + GRACE)["seconds"]
        with np.load(out) as zs:
            return [Point(s, zs[key]) for s, key in zip(seconds, zs.files, strict=True)]

    def memory(self, setting: Setting, limit: float) -> Memory:
        """Of one more fit, whose seconds do not count: looking at memory takes time."""
        peaks, done = [self._now()], threading.Event()

        def look() -> None:
            while not done.wait(0.05):
                peaks.append(self._now())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            self.run(setting, limit)
        finally:
            done.set()
            thread.join()
        return max(peaks)

    def stop(self) -> None:
        """End it: as it wishes, or else with all it started."""
        self._find()
        assert self._child.stdin is not None
        self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(LEAVING)
        for process in self._tree.values():
            with contextlib.suppress(psutil.Error):
                process.kill()  # by its own start time too: never another's
        self._child.wait(LEAVING)

    def _answer(self, limit: float) -> dict[str, Any]:
        end = time.monotonic() + limit
        while b"\n" not in self._rest:
            assert self._child.stdout is not None
            if not select.select([self._child.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failed(f"took more than {limit:.0f} s")
            more = os.read(self._child.stdout.fileno(), 1 << 16)
            if not more:
                raise Failed(f"ended: {self.log.read_text()[-300:]}")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _find(self) -> None:
        with contextlib.suppress(psutil.Error):
            for process in self._tree[self._child.pid].children(recursive=True):
                self._tree.setdefault(process.pid, process)

    def _now(self) -> Memory:
        self._find()
        sizes = []
        for process in list(self._tree.values()):
            with contextlib.suppress(psutil.Error):
                sizes.append(process.memory_full_info().pss)
        return Memory(sum(sizes), sum(size > HELPER for size in sizes))


def two_cores() -> None:
    """Hold this process and all that it starts to two cores."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))


@contextlib.contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """While nobody else measures who holds the same file's lock."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
