"""A run's runners: one for every thread of every worker that should have them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distributed import Client, Future

from paramserver.supervisor.places import Places
from paramserver.supervisor.record import RunRecord
from paramserver.workers import runner

RESTART = 2.0  #: seconds before a runner that ended by itself is started again
TRIES = 5  #: failures of a worker's runners in a row before it is left alone


class Crew:
    """Starts runners where there are none; ``say`` hears of those that fail."""

    def __init__(self, scheduler: Any, places: Places, say: Callable[[RunRecord, str, Future, bool], None]) -> None:
        self.scheduler, self.places, self.say = scheduler, places, say

    def start(self, record: RunRecord, client: Client) -> None:
        """A runner for every thread of every worker that has none."""
        for address in self.places.runners(record):
            if not self._wants(record, address):
                continue
            record.started[address] = time.monotonic()
            count = record.runners_per_worker or self.scheduler.workers[address].nthreads
            stamp = f"{record.run_id}-{address}-{time.monotonic_ns()}"
            record.runners[address] = [
                client.submit(
                    runner.run, record.handle, k, key=f"paramserver-runner-{stamp}-{k}", workers=[address],
                    priority=500, pure=False, retries=0,
                )
                for k in range(count)
            ]  # fmt: skip

    def _wants(self, record: RunRecord, address: str) -> bool:
        """None there, or ended by themselves a while ago and not failing for ever."""
        futures = record.runners.get(address)
        if futures is None:
            return True
        if not all(future.done() for future in futures):
            return False
        if time.monotonic() - record.started[address] < RESTART or record.failures.get(address, 0) >= TRIES:
            return False
        if all(future.status == "error" for future in futures):
            record.failures[address] = count = record.failures.get(address, 0) + 1
            if count == 1 or count == TRIES:
                self.say(record, address, futures[0], count == TRIES)
        else:
            record.failures.pop(address, None)
        return record.failures.get(address, 0) < TRIES
