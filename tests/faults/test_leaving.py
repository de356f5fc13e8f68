"""Workers that are warned before they end: servers move, runners hand back, and no push is lost."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

import pytest
from cluster.helpers import Processes, Slow, until

import paramserver as ps

from .helpers import CHUNKS, PENALTY, X, Y, assert_nothing_left, check, launch, names, under_way

PRELOAD = ("--preload", "paramserver.cluster.preload")
IN_ORDER = 30.0  #: seconds for a worker that was warned to be gone


def warn(own: Processes, *victims: str, number: int = signal.SIGUSR1) -> None:
    for name in victims:
        own.workers[name].signal(number)
    for name in victims:
        assert own.workers.pop(name).process.wait(IN_ORDER) == 0, name


def nothing_lost(run: Any) -> bool:
    """Refused is only what two runners were at, on a busy machine, and of which the other's answer was taken."""
    refused = run.status().refused
    print(refused)
    return refused.keys() <= {"late"}


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_servers_worker(own: Processes, client: Any, number: int) -> None:
    own.add("a", "b", "c", args=PRELOAD)
    own.wait_for(client, "a", "b", "c")
    run = launch(client)
    mine, _ = names(own, client, under_way(run))
    before = run.status()
    warn(own, mine, number=number)
    status = run.status()
    assert status.epoch == 2
    assert status.pushes >= before.pushes
    result = check(run)
    assert result.version.epoch == 2
    assert nothing_lost(run)
    assert not any("lost" in note for note in result.notes)
    assert_nothing_left(client)


def test_another_worker(own: Processes, client: Any) -> None:
    own.add("a", "b", "c", args=PRELOAD)
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.2))
    _, others = names(own, client, under_way(run))
    warn(own, others[0])
    result = check(run)
    assert result.version.epoch == 1
    assert nothing_lost(run)


def test_all_but_one_at_once(own: Processes, client: Any) -> None:
    """The server may meet two workers on its way that are about to end as well."""
    own.add("a", "b", "c", "d", args=PRELOAD)
    own.wait_for(client, "a", "b", "c", "d")
    run = launch(client, Slow(delay=0.1))
    mine, others = names(own, client, under_way(run))
    warn(own, mine, *others[:2])
    assert run.status().server == own.by_name(client)[others[2]]
    check(run)
    assert nothing_lost(run)


def test_every_worker_at_once(own: Processes, client: Any) -> None:
    """The supervisor keeps the whole state: what comes after goes on from there, and computes nothing again."""
    own.add("a", "b", args=PRELOAD)
    own.wait_for(client, "a", "b")
    run = launch(client, Slow(delay=0.05), consensus="admm")
    under_way(run, 100)
    warn(own, "a", "b")
    until(lambda: not own.by_name(client))
    assert not run.done()
    own.add("c", "d", args=PRELOAD)
    until(lambda: run.status().server)
    status = run.status()
    assert status.pushes >= 100
    assert any("waited for another" in note for note in status.notes)
    result = check(run)
    assert nothing_lost(run)
    alone = ps.simulate(ps.Logistic(), X, Y, chunks=CHUNKS, penalty=PENALTY, tol=1e-8, consensus="admm").result
    assert result.n_pushes <= 1.2 * alone.n_pushes


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_every_worker_at_any_moment(own: Processes, client: Any, after: float) -> None:
    own.add("a", "b", args=PRELOAD)
    own.wait_for(client, "a", "b")
    run = launch(client, Slow(delay=0.05))
    time.sleep(after)
    warn(own, "a", "b")
    own.add("c", "d", args=PRELOAD)
    check(run)
    assert nothing_lost(run)


def test_a_worker_with_a_nanny(own: Processes, client: Any) -> None:
    """The batch system's signal reaches the nanny."""
    own.add("a", args=PRELOAD)
    both = (*PRELOAD, "--preload-nanny", PRELOAD[1])
    with own.start("dask_worker", "--scheduler-file", own.file, "--nthreads", "1", "--name", "b", *both) as nanny:
        own.wait_for(client, "a", "b")
        run = launch(client, Slow(delay=0.1))
        under_way(run)
        nanny.send_signal(signal.SIGUSR1)
        try:
            assert nanny.wait(IN_ORDER) == 0
        except subprocess.TimeoutExpired:
            nanny.kill()
            raise
        check(run)
    assert nothing_lost(run)


def test_nothing_was_ever_launched_there(own: Processes, client: Any) -> None:
    own.add("z", args=PRELOAD)
    own.wait_for(client, "z")
    warn(own, "z")
