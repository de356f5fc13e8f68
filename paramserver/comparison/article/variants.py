"""The article's three ADMMs as it published them, on Gram matrices.

f_i(x) = ‖y_i − X_i x‖², R = λ‖x‖₁, scaled duals u, z = shrink(mean(x + u), λ/(ρN)). The asynchronous ones
keep two tasks a core in flight; the mean is over *all* N chunks, inflated by N/(count + 1) while fewer have
reported, and the dual that is advanced is that of the chunk *drawn next*, not of the one that reported.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from paramserver.comparison.article.data import Grams
from paramserver.messages import Array

LAMBDA, RHO = 7.2, 1.2
CORES = 8  #: two tasks are in flight for each
JITTER = 0.2  #: tasks take 1 ± this
HANDLING = 0.5  #: tasks' time that the batched client is at each update


class Mark(NamedTuple):
    """After so many tasks: ‖(x_i − z)_i‖ and ‖z − z*‖∞."""

    tasks: int
    residual: float
    error: float


class Local:
    """argmin_x f_i(x) + ρ/2·‖x − z + u‖², factored once."""

    def __init__(self, grams: Grams, rho: float = RHO) -> None:
        k = grams.columns
        self.rho, self.twice = rho, 2.0 * grams.product
        self.inverse = np.linalg.inv(2.0 * grams.gram + rho * np.eye(k))

    def __call__(self, i: int, z: Array, u: Array) -> Array:
        out: Array = self.inverse[i] @ (self.twice[i] + self.rho * (z - u))
        return out

    def all(self, z: Array, u: Array) -> Array:
        """Every chunk's, (N, k)."""
        out: Array = np.einsum("ijk,ik->ij", self.inverse, self.twice + self.rho * (z - u))
        return out


def shrink(v: Array, t: float) -> Array:
    """The prox of t‖·‖₁."""
    return np.maximum(0, v - t) - np.maximum(0, -v - t)


def residual(x: Array, z: Array) -> float:
    """‖(x_i − z)_i‖ over all chunks, those that never reported included."""
    return float(np.linalg.norm(x - z))


def synchronous(local: Local, best: Array, passes: int, lam: float = LAMBDA) -> list[Mark]:
    """A mark after each pass."""
    n, k = local.twice.shape
    z, u, marks = np.zeros(k), np.zeros((n, k)), []
    for done in range(1, passes + 1):
        x = local.all(z, u)
        z = shrink((x + u).mean(axis=0), lam / (local.rho * n))
        u = u + x - z
        marks.append(Mark(done * n, residual(x, z), float(np.abs(z - best).max())))
    return marks


def asynchronous(
    local: Local, best: Array, marks: Iterable[int], seed: int, batched: bool = False, cores: int = CORES,
    lam: float = LAMBDA,
) -> list[Mark]:  # fmt: skip
    """At the first update with at least so many tasks each; the seed draws chunks and durations."""
    n, k = local.twice.shape
    draw = np.random.default_rng(seed)
    z, u, x, total = np.zeros(k), np.zeros((n, k)), np.zeros((n, k)), np.zeros(k)
    pool, count, wanted, found = _Pool(draw, cores), 0, deque(sorted(marks)), []
    for i in draw.integers(n, size=2 * cores):
        pool.submit(int(i), z, u[i].copy())
    for batch in pool.batches(HANDLING if batched else 0.0):
        for i, then, dual in batch:
            new = local(i, then, dual)
            total += new - x[i]
            x[i], count = new, count + 1
        mean = total / n
        z = shrink(mean * (n / (count + 1) if count < n else 1.0), lam / (local.rho * n))
        while wanted and count >= wanted[0]:
            found.append(Mark(wanted.popleft(), residual(x, z), float(np.abs(z - best).max())))
        if not wanted:
            break
        for _ in batch:
            i = int(draw.integers(n))
            step = x[i] - z
            total += step
            u[i] = u[i] + step
            pool.submit(i, z, u[i].copy())
    return found


class _Pool:
    """Tasks on so many cores, the oldest first, in virtual time."""

    def __init__(self, draw: np.random.Generator, cores: int) -> None:
        self._draw, self._cores, self._now = draw, cores, 0.0
        self._queue: deque[tuple[int, Array, Array]] = deque()
        self._busy: list[tuple[float, int, tuple[int, Array, Array]]] = []
        self._number = 0

    def submit(self, i: int, z: Array, u: Array) -> None:
        """A task holds what it was sent."""
        self._queue.append((i, z, u))
        self._begin()

    def _begin(self) -> None:
        while self._queue and len(self._busy) < self._cores:
            self._number += 1
            seconds = self._draw.uniform(1.0 - JITTER, 1.0 + JITTER)
            heapq.heappush(self._busy, (self._now + seconds, self._number, self._queue.popleft()))

    def batches(self, handling: float) -> Iterator[list[tuple[int, Array, Array]]]:
        """What is done by the time the client looks again; one task each where it takes no time."""
        while self._busy:
            until = max(self._now + handling, self._busy[0][0])
            batch = [self._pop()]
            while handling and self._busy and self._busy[0][0] <= until:
                batch.append(self._pop())
            self._now = max(self._now, until)
            yield batch

    def _pop(self) -> tuple[int, Array, Array]:
        self._now, _, task = heapq.heappop(self._busy)
        self._begin()
        return task
