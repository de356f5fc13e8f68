"""What this worker pushed lately, to be pushed again to a server that takes over from one that died."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from paramserver.messages import Push

LONGEST = 32  #: pushes kept of one chunk: a whole one and the deltas on it
SHARE = 0.05  #: of the worker's memory limit
BUDGET = 256 << 20  #: bytes, where it has none


class Ledger:
    """One chain a chunk: its last whole push, and what came on top of it. Shared by the worker's runners.

    What does not fit is left out but for the last push, which may be under way: its chunk is computed again.
    """

    def __init__(self, memory_limit: float | None) -> None:
        self.budget = SHARE * memory_limit if memory_limit else BUDGET
        self._chains: dict[int, list[Push]] = {}
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, push: Push, whole: bool) -> None:
        """Keep a push, before it is sent."""
        with self._lock:
            chain = [] if whole else self._chains.get(push.chunk, [])
            chain = [*chain, push] if len(chain) < LONGEST else [push]
            self._keep(push.chunk, chain)
            while sum(self._sizes.values()) > self.budget:
                largest = max(self._sizes, key=self._sizes.__getitem__)
                if len(self._chains[largest]) == 1:
                    self._chains.pop(largest), self._sizes.pop(largest)
                else:
                    self._keep(largest, self._chains[largest][-1:])

    def _keep(self, chunk: int, chain: list[Push]) -> None:
        self._chains[chunk] = chain
        self._sizes[chunk] = sum(map(nbytes, chain))

    def since(self, seqs: Mapping[int, int | None]) -> list[Push]:
        """What was pushed after these sequence numbers, by chunk; all that is kept where there is none."""
        with self._lock:
            chains = {chunk: self._chains[chunk] for chunk in seqs if chunk in self._chains}
        last = {chunk: -1 if seq is None else seq for chunk, seq in seqs.items()}
        return [push for chunk, chain in chains.items() for push in chain if push.seq > last[chunk]]


def nbytes(push: Push) -> int:
    """Of its arrays."""
    return sum(np.asarray(value).nbytes for value in push.payload.values())
