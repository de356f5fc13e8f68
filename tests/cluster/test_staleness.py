"""No client is on the path: what it does, or whether it lives, changes nothing; a stopped worker stops little."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import dask.array as da
import pytest

import paramserver as ps
from cluster.helpers import TESTS, Endless, Processes, Slow, make_data, processes, reference, until

X, Y = make_data(n=8_000, d=6)
PENALTY = ps.L2(1.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)

CLIENT = """
    import ctypes, os, sys, time
    sys.path.insert(0, sys.argv[3])
    import distributed
    import paramserver as ps
    from cluster.helpers import Endless, Slow, make_data
    client = distributed.Client(scheduler_file=sys.argv[1])
    options = dict(penalty=ps.L2(1.0), consensus=Endless(), chunks=8, client=client)
    data = make_data(n=8_000, d=6)
    mode = sys.argv[2]
    for k in range(5):
        ps.launch(Slow(delay=0.04), *data, name=f"{mode}-{k}", **options)
    print("launched", flush=True)
    if mode == "gone":
        os._exit(0)
    if mode == "gil":
        ctypes.PyDLL(None).usleep(60_000_000)  # PyDLL does not release the GIL
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: Any) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture
def client(own: Processes) -> Iterator[Any]:
    with own.client(set_as_default=False) as made:
        yield made


def staleness(own: Processes, client: Any, mode: str) -> list[float]:
    """Median staleness in versions of five runs whose client is idle, holds its GIL, is stopped or gone."""
    code = textwrap.dedent(CLIENT)
    process = subprocess.Popen(
        [sys.executable, "-c", code, own.file, mode, str(TESTS)], stdout=subprocess.PIPE, text=True
    )
    try:
        with process.stdout as out:  # type: ignore[union-attr]
            assert out.readline() == "launched\n"
        if mode == "stopped":
            os.kill(process.pid, signal.SIGSTOP)
        runs = [ps.connect(f"{mode}-{k}", client) for k in range(5)]
        until(lambda: all(run.status().pushes >= 120 for run in runs), 60, every=0.25)
        medians = [run.status().staleness.versions_median for run in runs]
        assert (process.poll() is None) == (mode != "gone")
        for run in runs:
            run.stop()
        return medians
    finally:
        process.kill()
        process.wait(10)


def test_staleness_is_the_same_whatever_the_client_does(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    medians = {mode: statistics.median(staleness(own, client, mode)) for mode in ("idle", "gil", "stopped", "gone")}
    for value in medians.values():
        assert abs(value - medians["idle"]) <= max(0.2 * medians["idle"], 1.0), medians
    own.stop_workers()


def _held(run: Any) -> Any:
    """The status, where z stands still at the bound for a second."""
    before = run.status()
    time.sleep(1.0)
    now = run.status()
    return now if now.version == before.version and any("max_staleness" in note for note in now.notes) else None


def test_one_worker_is_stopped_with_the_only_copy_of_its_chunks(own: Processes, client: Any) -> None:
    until(lambda: not own.by_name(client))
    own.add("a", "b")
    there = own.wait_for(client, "a", "b")
    data = client.persist([da.from_array(X, chunks=(500, -1)), da.from_array(Y, chunks=500)])
    run = ps.launch(
        Slow(delay=0.02), *data, penalty=PENALTY, consensus=Endless(max_staleness=60), client=client, tol=1e-8
    )
    server = until(lambda: (now := run.status()).pushes >= 48 and now.server)
    name = next(name for name, address in there.items() if address != server)
    worker = own.workers[name]
    holds = client.has_what()[there[name]]
    assert any("array" in str(key) for key in holds)
    try:
        worker.signal(signal.SIGSTOP)
        before = run.status().version.n
        until(lambda: run.status().version.n > before + 10)  # versions go on …
        still = until(lambda: _held(run), 60)  # a chunk of the other worker may hold it for a moment too
        later = run.status()
        assert later.version == still.version  # … until the bound, where z stands still
        assert later.version.n - before <= 60 + 16
        note = next(note for note in later.notes if "max_staleness" in note)
        assert any(str(chunk) in note for chunk in later.waiting_for or range(16))
    finally:
        worker.signal(signal.SIGCONT)
    until(lambda: run.status().version.n > later.version.n + 10)
    result = run.stop(verify=True)
    assert EXACT.gap(result.z) <= 1e-8
    own.stop_workers()


def test_a_stopped_worker_does_not_keep_a_run_from_its_end(own: Processes, client: Any) -> None:
    until(lambda: not own.by_name(client))
    own.add("a", "b")
    there = own.wait_for(client, "a", "b")
    run = ps.launch(Slow(delay=0.2), X, Y, penalty=PENALTY, client=client, chunks=8, tol=1e-8)
    server = until(lambda: (now := run.status()).pushes >= 10 and now.server)
    stopped = next(name for name, address in there.items() if address != server)
    worker = own.workers[stopped]
    worker.signal(signal.SIGSTOP)
    time.sleep(3.0)
    # Without the stopped worker there is no end, unless the other had copied all of its chunks before.
    only_there = [key for key, held in client.who_has().items() if tuple(held) == (there[stopped],)]
    assert only_there == [] or not run.done()
    worker.signal(signal.SIGCONT)
    result = run.result(60)
    assert result.converged
    assert EXACT.gap(result.z) <= 1e-8
    own.stop_workers()
