"""What runs leave on scheduler and workers: ``python -m tests.faults.leaks --runs 200`` prints a table.

Run from the checkout. Counted from inside each process: tasks, clients and names of ours, actors, caches, threads,
open files, asyncio tasks, and objects of our classes. Dask keeps some released tasks of a frame's graph: not ours.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from cluster.helpers import processes

import paramserver as ps

Count = dict[str, float]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2000, 8))
Y = (RNG.random(2000) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)


def of_process() -> Count:
    """This process: what is open, running, alive."""
    import asyncio
    import os
    import threading

    gc.collect()
    counts: Count = {"objects": 0, "tracebacks": 0}
    for thing in gc.get_objects():
        module = getattr(type(thing), "__module__", "")
        counts["objects"] += isinstance(module, str) and module.startswith("paramserver.")
        counts["tracebacks"] += type(thing).__name__ == "traceback"
    try:
        coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    except RuntimeError:
        coroutines = []
    files = [coroutine.cr_code.co_filename for coroutine in coroutines if hasattr(coroutine, "cr_code")]
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)  # noqa: SIM115
    return {
        **counts,
        "asyncio": sum("paramserver" in name for name in files),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "MB": int(status["VmRSS"].split()[0]) / 1024,
    }


async def of_scheduler(dask_scheduler: Any) -> Count:
    """What the scheduler has of ours."""
    supervisor = dask_scheduler.plugins["paramserver"]
    keys = [str(key) for key in dask_scheduler.tasks if str(key).startswith("paramserver-")]
    return {
        "tasks": len(keys),
        "all tasks": len(dask_scheduler.tasks),
        "groups": sum(str(name).startswith("paramserver-") for name in dask_scheduler.task_groups),
        "prefixes": sum(str(name).startswith("paramserver-") for name in dask_scheduler.task_prefixes),
        "clients": len(dask_scheduler.clients),
        "names": len(dask_scheduler.extensions["publish"].datasets),
        "runs": len(supervisor.runs),
        "background": len(supervisor.keeper._background),
        "retried": len(supervisor.keeper.data._retried),
        "events": len([topic for topic in dask_scheduler._broker._topics if str(topic).startswith("paramserver")]),
        "held": sum(len(client.wants_what) for client in supervisor_clients(dask_scheduler)),
        **of_process(),
    }


def supervisor_clients(dask_scheduler: Any) -> list[Any]:
    """The clients that are ours: each run's holder, and the supervisor's own."""
    own = dask_scheduler.plugins["paramserver"].keeper._client
    there = dask_scheduler.clients
    return [there[name] for name in there if str(name).startswith("paramserver-") or (own and name == own.id)]


async def of_worker(dask_worker: Any) -> Count:
    """What a worker has of ours."""
    from paramserver.workers.cache import ChunkCache, _BlasThreads

    return {
        "actors": len(dask_worker.state.actors),
        "tasks": len(dask_worker.state.tasks),
        "data": len(dask_worker.data),
        "caches": len(ChunkCache._open),
        "BLAS": _BlasThreads.users,
        "executing": len(dask_worker.state.executing) + len(dask_worker.state.long_running),
        "handlers": len(dask_worker.handlers),
        **of_process(),
    }


def counts(client: Any) -> dict[str, Count]:
    """Place → what there is."""
    workers = client.run(of_worker)
    named = {f"worker {k}": count for k, (_, count) in enumerate(sorted(workers.items()))}
    return {"scheduler": client.run_on_scheduler(of_scheduler), **named}


def converged(run: Any) -> None:
    assert run.result(timeout=60).converged


def updated(run: Any) -> None:
    converged(run)
    run.update(penalty=ps.L2(2.0))
    converged(run)
    run.stop()


def stopped(run: Any) -> None:
    with contextlib.suppress(ps.errors.RunFailed):  # before it had parameters, or a server
        run.stop()


def moved(run: Any) -> None:
    while run.status().server == "":
        pass
    run.move_server()
    converged(run)
    run.stop()


def grown(run: Any) -> None:
    converged(run)
    run.drop(run.add(X[:500], Y[:500]))
    converged(run)
    run.stop()


def refused(run: Any) -> None:
    """The name is taken; and what is sent to the live run has NaN in it."""
    with contextlib.suppress(ps.errors.NameTaken):
        launch(run.client, run.name)
    run.add(X[:500] * np.nan, Y[:500])
    converged(run)
    run.stop()


def failed(run: Any) -> None:
    """It cannot be fitted."""
    with contextlib.suppress(ps.errors.RunFailed):
        run.result(timeout=60)


def launch(client: Any, name: str, X: Any = X, keep: bool = True) -> Any:
    return ps.launch(ps.Logistic(), X, Y, penalty=ps.L2(1.0), client=client, chunks=4, keep=keep, name=name)


ENDS = (converged, updated, stopped, moved, grown, refused, failed)


def one(client: Any, k: int) -> None:
    """A run from its launch until it is forgotten; each kind of life in turn."""
    life = ENDS[k % len(ENDS)]
    data = np.where(np.arange(len(X))[:, None] == 1700, np.nan, X) if life is failed else X
    run = launch(client, f"run {k}", data, keep=life not in (converged, failed))
    life(run)
    ps.forget(run.name, client)


def table(rows: list[tuple[int, dict[str, Count]]]) -> str:
    """A block a place, a column a count."""
    lines: list[str] = []
    for place in rows[0][1]:
        names = list(rows[0][1][place])
        lines += ["", place, " ".join(f"{name:>10}" for name in ["runs done", *names])]
        lines += [" ".join(f"{value:10.4g}" for value in [k, *(count[place][n] for n in names)]) for k, count in rows]
    return "\n".join(lines)


def main() -> None:
    """Run after run on two workers, and what is left after each tenth of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    names = [f"w{k}" for k in range(args.workers)]
    with tempfile.TemporaryDirectory() as folder, processes(Path(folder)) as own:
        own.add(*names)
        with own.client(set_as_default=False) as client:
            own.wait_for(client, *names)
            rows = []
            for k in range(args.runs + 1):
                if k % max(args.runs // 10, 1) == 0 and k:
                    rows.append((k, settled(client)))
                    print(f"{k} runs", file=sys.stderr, flush=True)
                if k < args.runs:
                    one(client, k)
            print(table(rows))


def settled(client: Any, seconds: float = 30.0) -> dict[str, Count]:
    """The counts once nothing of ours is under way: runners hear of an end for two seconds."""
    limit = time.monotonic() + seconds
    while True:
        gc.collect()  # an error's traceback may hold futures
        found = counts(client)
        busy = found["scheduler"]["tasks"] + found["scheduler"]["background"]
        busy += sum(count.get("actors", 0) + count.get("caches", 0) for count in found.values())
        if not busy or time.monotonic() > limit:
            return found
        time.sleep(0.2)


if __name__ == "__main__":
    main()
