"""Every fault that a run must survive, and how each is done to a cluster of processes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from cluster.helpers import Processes

STOPPED = 10.0  #: seconds that a worker is stopped: longer than it takes to be given up
BRIEFLY = 1.5


class Fault(Enum):
    """What happens to a cluster in mid-run."""

    SERVER_KILLED = "the server's worker is killed"
    SERVER_STOPPED = "the server's worker is stopped, and goes on when another has its run"
    SERVER_PAUSED = "the server's worker is stopped for a moment"
    SERVER_RETIRED = "the server's worker is retired"
    SERVER_TERMINATED = "the server's worker is asked to end (SIGTERM)"
    SERVER_MOVED = "the server is moved"
    WORKER_KILLED = "another worker is killed"
    WORKER_STOPPED = "another worker is stopped for a while"
    WORKER_RETIRED = "another worker is retired"
    WORKER_TERMINATED = "another worker is asked to end (SIGTERM)"
    WORKER_JOINS = "a worker joins"
    TWO_KILLED = "the server's worker and another are killed together"
    ALL_KILLED = "every worker is killed, and others come"
    UPDATED = "the tolerance is changed"


class Scene(NamedTuple):
    """A cluster with a run on it."""

    own: Processes
    client: Any
    run: Any
    names: Callable[[], str]  #: of workers to come

    def server(self) -> str | None:
        """The name of the server's worker, if there is one."""
        address = self.run.status().server
        return next((name for name, there in self.own.by_name(self.client).items() if there == address), None)

    def others(self) -> list[str]:
        """The names of the other workers."""
        server = self.server()
        return [name for name in self.own.by_name(self.client) if name != server and name in self.own.workers]


def inject(fault: Fault, scene: Scene) -> float:
    """Do it; for how many seconds at most no progress is to be expected."""
    what = fault.name.partition("_")[2].lower()
    if fault is Fault.UPDATED:
        scene.run.update(tol=1e-8)
        return 5.0
    if fault is Fault.SERVER_MOVED:
        scene.run.move_server()
        return 10.0
    if fault is Fault.WORKER_JOINS:
        scene.own.add(scene.names())
        return 5.0
    if fault is Fault.ALL_KILLED:
        scene.own.stop_workers()
        scene.own.add(*(scene.names() for _ in range(3)))
        return 30.0
    victims = ([scene.server()] if fault.name.startswith(("SERVER", "TWO")) else []) + (
        scene.others()[:1] if fault.name.startswith(("WORKER", "TWO")) else []
    )
    return max([_strike(what, name, scene) for name in victims if name in scene.own.workers], default=0.0)


def _strike(what: str, name: str, scene: Scene) -> float:
    """One worker's fate; another takes its place where it does not come back."""
    worker = scene.own.workers[name]
    if what in ("stopped", "paused"):
        seconds = STOPPED if what == "stopped" else BRIEFLY
        worker.signal(signal.SIGSTOP)
        threading.Timer(seconds, _go_on, (worker,)).start()
        return seconds + 20.0
    if what == "killed":
        worker.kill()
    elif what == "terminated":
        worker.signal(signal.SIGTERM)
        worker.process.wait(20)
    else:
        scene.client.retire_workers([scene.own.by_name(scene.client)[name]])
    if worker.process.poll() is not None:  # Dask refuses to retire a worker with an actor
        del scene.own.workers[name]
    scene.own.add(scene.names())
    return 20.0


def _go_on(worker: Any) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.signal(signal.SIGCONT)
