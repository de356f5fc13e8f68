"""A straggler on a real cluster: two workers, one sleeps 5× its compute after every step, so is 6× slower.

    python -m tests.benchmarks.stragglers [ROUNDS]

Logistic regression, 1e6 × 100, L2, 16 chunks that each side may move as it likes; with a perfect division of the work
the slowdown would be 1.71. Ours to a certified 1e-6, dask-glm's ADMM and the 2017 driver loop to the first z whose true
gap is 1e-4: an even pair and a slow one in turn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from distributed import get_worker

from .peers.base import Point
from .peers.cases import BY_NAME
from .peers.dask_glm import Admm
from .peers.data import Store
from .peers.driver_loop import DriverLoop
from .peers.measure import two_cores
from .peers.objective import Judge, Objective
from .peers.optimum import judge
from .peers.ours import OnCluster, Ours

CASE, SLEEPS, SLOW = BY_NAME["c-l2"], 5.0, "1"
LIMIT = 60.0  #: seconds a fit


def slowed(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, and a sleep where the worker is the slow one."""

    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        out = step(*args, **kwargs)
        if str(get_worker().name) == SLOW:
            time.sleep(SLEEPS * (time.perf_counter() - began))
        return out

    return run


def set_step(module: str, name: str, slow: bool) -> None:
    """On a worker, or in the client that sends the step: with the sleep, or as it was."""
    import importlib

    here = importlib.import_module(module)
    plain = getattr(getattr(here, name), "plain", getattr(here, name))
    made = slowed(plain)
    made.plain = plain  # type: ignore[attr-defined]
    setattr(here, name, made if slow else plain)


def ours(peer: Ours, slow: bool) -> list[Point]:
    """To 1e-6."""
    peer.client.run(set_step, "paramserver.workers.runner", "answer", slow)
    return peer.fit(LIMIT, tol=1e-6)


def admm(peer: Admm, slow: bool) -> list[Point]:
    """dask-glm's, every z."""
    set_step("dask_glm.algorithms", "local_update", slow)
    return peer.fit(LIMIT, **peer.settings(CASE)[0].options)


def loop(peer: DriverLoop, slow: bool) -> list[Point]:
    """The driver loop, every z."""
    peer.client.run(set_step, f"{__package__}.peers.driver_loop", "fmin_l_bfgs_b", slow)
    return peer.fit(LIMIT, rho=1.0)


SIDES: tuple[tuple[str, type[OnCluster], Callable[[Any, bool], list[Point]], float], ...] = (
    ("ours", Ours, ours, 1e-6),
    ("dask-glm admm", Admm, admm, 1e-4),
    ("2017 driver loop", DriverLoop, loop, 1e-4),
)


def seconds(points: list[Point], judged: Judge, target: float) -> float:
    """Until the first z that is good enough; inf if none was. Gaps are taken as falling."""
    k = bisect_left(points, True, key=lambda point: judged.gap(point.z) <= target)
    return points[k].seconds if k < len(points) else float("inf")


@contextmanager
def loaded(made: type[OnCluster], store: Store) -> Iterator[OnCluster]:
    """With its cluster, for as long as it is measured."""
    peer = made()
    try:
        peer.load(CASE, store)
        yield peer
    finally:
        peer.close()


def main(rounds: int = 3) -> None:
    """Print a table."""
    two_cores()
    with tempfile.TemporaryDirectory(prefix="stragglers-") as folder:
        store = Store(Path(folder), CASE.data)
        store.make()
        judged = judge(Objective(CASE, *store.read(mapped=True)), Path(folder))
        print(f"{'':18} {'gap':>6} {'even, s':>8} {'slow, s':>8} {'slowdown':>9}   ({rounds} rounds)")
        for name, made, fit, target in SIDES:
            times: dict[bool, list[float]] = {False: [], True: []}
            with loaded(made, store) as peer:
                for slow in [False, True] * rounds:
                    times[slow].append(seconds(fit(peer, slow), judged, target))
            even, late = median(times[False]), median(times[True])
            print(f"{name:18} {target:6.0e} {even:8.2f} {late:8.2f} {late / even:9.2f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
