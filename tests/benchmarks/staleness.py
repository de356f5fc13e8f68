"""Staleness with the launching client idle, holding its GIL in C, stopped and gone; and the 2017 driver loop beside it.

    python tests/benchmarks/staleness.py [ROUNDS]

Scheduler and two workers are processes of their own. "ours" is a run launched by a client process; the driver loop is
the article's: the client holds z, keeps 2 tasks a core in flight, and applies each result as it comes back. Both solve
the same 16 chunks (10,000 × 50). An observer reads versions and staleness over a window in each condition.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from common import median, separate
from distributed import Client

import paramserver as ps

WINDOW = 3.0
CONDITIONS = ("idle", "gil", "stopped", "gone")

CLIENT = """
import ctypes, sys, threading
sys.path.insert(0, {here!r})
import staleness
def listen():
    for line in sys.stdin:
        if line.startswith("gil"):
            ctypes.PyDLL(None).usleep(int({window} * 1e6))  # PyDLL keeps the GIL
threading.Thread(target=listen, daemon=True).start()
staleness.{what}({address!r})
"""


def problem_data(client: Client) -> Any:
    """The chunks, as persisted futures; deterministic."""
    futures = client.map(_chunk, range(16), pure=True, key="stale-chunk")
    client.gather(client.map(len, futures))
    return futures


def _chunk(k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    X = rng.standard_normal((10_000, 50))
    return X, (rng.random(len(X)) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)


def launching_client(address: str) -> None:
    """Launch, then live on doing nothing."""
    from common import Endless, Uncertified

    client = Client(address)
    ps.launch(Uncertified(), problem_data(client), penalty=ps.L2(1.0), consensus=Endless(), name="ours")
    print("ready", flush=True)
    while True:
        time.sleep(1.0)


def _solve(part: Any, z: np.ndarray) -> np.ndarray:
    """A local step of about the same cost as ours: one gradient."""
    problem = ps.Logistic()
    return z - 1e-5 * problem.evaluate(problem.prepare(*part), z).gradient


def driver_loop(address: str) -> None:
    """The article's loop; prints (version, staleness in versions and seconds) of every update."""
    from distributed import as_completed

    client = Client(address)
    chunks = problem_data(client)
    z, version, made = np.zeros(51), 0, {}
    print("ready", flush=True)

    def submit(k: int) -> Any:
        future = client.submit(_solve, chunks[k % 16], z, pure=False)
        made[future.key] = (version, time.monotonic())
        return future

    pool = as_completed([submit(k) for k in range(4)], with_results=True)
    for k, (future, x) in enumerate(pool):
        born, when = made.pop(future.key)
        z, version = 0.9 * z + 0.1 * x, version + 1
        print(json.dumps([version, version - 1 - born, time.monotonic() - when]), flush=True)
        pool.add(submit(k + 4))


class Other:
    """A client process and its conditions."""

    def __init__(self, what: str, address: str) -> None:
        here = os.path.dirname(os.path.abspath(__file__))
        code = CLIENT.format(here=here, what=what, address=address, window=WINDOW + 1)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                break
        os.set_blocking(self.process.stdout.fileno(), False)
        self._rest = ""

    def lines(self) -> list[list[float]]:
        """What the driver loop printed since."""
        assert self.process.stdout is not None
        try:
            text = os.read(self.process.stdout.fileno(), 1 << 22).decode()
        except BlockingIOError:
            text = ""
        *whole, self._rest = (self._rest + text).split("\n")
        return [json.loads(line) for line in whole if line.startswith("[")]

    def enter(self, condition: str) -> None:
        if condition == "gil":
            assert self.process.stdin is not None
            self.process.stdin.write("gil\n")
            self.process.stdin.flush()
        elif condition == "stopped":
            self.process.send_signal(signal.SIGSTOP)
        elif condition == "gone":
            self.process.kill()
            self.process.wait()
        time.sleep(0.3)

    def leave(self, condition: str) -> None:
        if condition == "stopped":
            self.process.send_signal(signal.SIGCONT)
        time.sleep(1.0)


def ours(rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """(versions/s, median staleness in versions, in ms) by condition."""
    out: dict[str, list[tuple[float, float, float]]] = {c: [] for c in CONDITIONS}
    for _ in range(rounds):
        with separate() as address, Client(address, set_as_default=False) as observer:
            other = Other("launching_client", address)
            run = ps.connect("ours", client=observer)
            time.sleep(2.0)
            for condition in CONDITIONS:
                other.enter(condition)
                a = run.status()
                time.sleep(WINDOW)
                b = run.status()
                rate = (b.version.n - a.version.n) / (b.seconds - a.seconds)
                out[condition].append((rate, b.staleness.versions_median, b.staleness.ms_median))
                other.leave(condition)
            run.stop()
    return out


def driver(rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """The same of the driver loop; staleness of the updates made in or just after the window."""
    out: dict[str, list[tuple[float, float, float]]] = {c: [] for c in CONDITIONS}
    for _ in range(rounds):
        with separate() as address:
            other = Other("driver_loop", address)
            time.sleep(2.0)
            for condition in CONDITIONS:
                other.enter(condition)
                other.lines()
                time.sleep(WINDOW)
                seen = other.lines()
                other.leave(condition)
                late = seen or other.lines()[:4]  # what had waited for the client
                stale = [row[1] for row in late] or [float("nan")]
                ms = [row[2] * 1e3 for row in late] or [float("nan")]
                out[condition].append((len(seen) / WINDOW, median(stale), median(ms)))
            other.process.kill()
    return out


def main(rounds: int = 5) -> None:
    """Print both tables."""
    for name, table in (("ours", ours(rounds)), ("2017 driver loop", driver(rounds))):
        print(f"{name} (median of {rounds} rounds)")
        for condition, rows in table.items():
            rate, versions, ms = (median([row[k] for row in rows]) for k in range(3))
            print(f"    client {condition:8} {rate:7.1f} versions/s   staleness {versions:5.1f} versions, {ms:8.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
