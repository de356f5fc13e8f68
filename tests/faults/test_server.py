"""The server's worker dies, leaves, or stops answering; the server is moved: the same optimum, by another server."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.helpers import Endless, Processes, Slow, until
from distributed import Client, LocalCluster

import paramserver as ps
from paramserver import errors

from .helpers import assert_nothing_left, check, launch, names, under_way


def server_of(run: Any) -> str:
    """Where the run's server is, once there is one."""
    return str(run.status().server)


def server_of_epoch(run: Any, epoch: int) -> str:
    """Where this epoch's server is, as soon as it is there."""
    limit = time.monotonic() + 30
    while True:
        status = run.status()
        if status.server and status.epoch == epoch:
            return str(status.server)
        assert time.monotonic() < limit, status
        time.sleep(0.02)


def test_its_worker_is_killed(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client)
    mine, _ = names(own, client, under_way(run))
    own.workers[mine].kill()
    began = time.monotonic()
    run.params()
    assert time.monotonic() - began < 5
    result = check(run)
    assert result.version.epoch == 2
    status = run.status()
    assert status.epoch == 2
    assert any("was lost" in note for note in status.notes)


@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 2.5])
def test_it_is_killed_at_any_moment(own: Processes, client: Any, after: float) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.08))
    mine, _ = names(own, client, server_of_epoch(run, 1))
    time.sleep(after)
    own.workers[mine].kill()
    check(run)


def test_four_times_in_a_row(own: Processes, client: Any) -> None:
    """As long as a push is kept in between, there may be any number."""
    own.add("a", "b", "c", "d", "e", "f")
    own.wait_for(client, "a", "b", "c", "d", "e", "f")
    run = launch(client, Slow(delay=0.15))
    for epoch in range(1, 5):
        mine, _ = names(own, client, server_of_epoch(run, epoch))
        own.workers.pop(mine).kill()
    result = check(run)
    assert result.version.epoch >= 4


def test_the_only_worker_is_killed_and_another_comes(own: Processes, client: Any) -> None:
    own.add("a")
    own.wait_for(client, "a")
    run = launch(client)
    under_way(run)
    own.workers["a"].kill()
    until(lambda: not own.by_name(client))
    assert not run.done()
    own.add("b")
    check(run)


@pytest.mark.parametrize("rule", ["newton", "active", "admm", "prox_gradient"])
def test_every_rule_survives(own: Processes, client: Any, rule: str) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, consensus=rule)
    mine, _ = names(own, client, under_way(run))
    own.workers[mine].kill()
    check(run)


def test_what_runners_pushed_since_is_taken_again(own: Processes, client: Any) -> None:
    """On workers that live nothing is computed twice for it; the killed one's chunks are."""
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.05))
    mine, _ = names(own, client, under_way(run, 30))
    time.sleep(2.5)  # an anchor
    if not run.done():
        own.workers[mine].kill()
    check(run)


def test_it_is_stopped_for_a_while(own: Processes, client: Any) -> None:
    """The old server wakes up to find that it is none any more."""
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, consensus=Endless())
    mine, _ = names(own, client, under_way(run))
    old = server_of(run)
    own.workers[mine].signal(signal.SIGSTOP)
    try:
        until(lambda: run.status().epoch == 2, 30)
        taken = run.status().pushes
        until(lambda: run.status().pushes > taken, 20)
    finally:
        own.workers[mine].signal(signal.SIGCONT)
    pushes = run.status().pushes
    until(lambda: run.status().pushes > pushes + 20, 20)
    status = run.status()
    assert (status.epoch, status.server != old) == (2, True)
    until(lambda: old not in own.by_name(client).values() or not client.run(servers, workers=[old])[old], 20)
    run.stop()


def servers(dask_worker: Any) -> list[str]:
    return list(dask_worker.state.actors)


def test_moved_it_loses_no_push(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client)
    old = under_way(run)
    before = run.status()
    address = run.move_server()
    assert address != old
    after = run.status()
    assert after.server == address
    assert after.pushes >= before.pushes
    assert after.version.n >= before.version.n
    result = check(run)
    assert result.version.epoch == 2
    assert sum(result.pushes_per_chunk.values()) >= result.n_pushes - result.n_refused - 16


def test_moved_to_a_worker_by_name(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    there = own.wait_for(client, "a", "b", "c")
    run = launch(client, consensus=Endless())
    mine, others = names(own, client, under_way(run))
    assert run.move_server(others[1]) == there[others[1]]
    assert run.move_server(there[mine]) == there[mine]
    with pytest.raises(errors.InvalidInput, match="other workers are"):
        run.move_server("nobody")
    assert run.status().epoch == 3
    pushes = run.status().pushes
    until(lambda: run.status().pushes > pushes, 10)
    run.stop()
    with pytest.raises(errors.InvalidInput, match="no server to move"):
        run.move_server()
    assert_nothing_left(client)


def test_changes_survive(own: Processes, client: Any) -> None:
    """What `update` acknowledged holds for the server that takes over."""
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.05), keep=True)
    run.result(timeout=60)
    run.update(penalty=ps.L1(30.0), tol=1e-6)
    mine, _ = names(own, client, server_of(run))
    own.workers[mine].kill()
    result = run.result(timeout=60)
    assert result.penalty == repr(ps.L1(30.0))
    run.stop()


def test_a_kept_run_survives_its_server(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, ps.Logistic(), keep=True)
    first = run.result(timeout=60)
    mine, _ = names(own, client, server_of(run))
    own.workers[mine].kill()
    until(lambda: run.status().epoch == 2, 20)
    until(lambda: run.status().state == "converged", 30)
    assert abs(run.params().coef_ - first.coef_).max() < 1e-3
    run.stop()
    assert_nothing_left(client)


def test_five_in_a_row_without_a_push_are_enough(own: Processes, client: Any) -> None:
    own.add("a", "b", "c", "d", "e", "f", "g")
    own.wait_for(client, "a", "b", "c", "d", "e", "f", "g")
    run = launch(client, Slow(delay=20.0))
    until(lambda: run.status().state == "running", 30)
    time.sleep(1.0)  # an anchor: what was read does not come again, as news
    for epoch in range(1, 6):
        mine, _ = names(own, client, server_of_epoch(run, epoch))
        own.workers.pop(mine).kill()
    with pytest.raises(errors.ServerLost, match="5th in a row"):
        run.result(timeout=30)


def test_it_goes_to_a_worker_that_lives_long(own: Processes, client: Any) -> None:
    own.add("mortal-1", "mortal-2", "mortal-3", args=("--lifetime", "60s"))
    own.add("steady")
    there = own.wait_for(client, "mortal-1", "mortal-2", "mortal-3", "steady")
    for _ in range(3):
        run = launch(client, ps.Logistic())
        check(run)
        assert run.status().server == there["steady"]
        assert not any("lifetime" in note for note in run.status().notes)


def test_where_all_are_mortal_it_says_so_and_lives_on(own: Processes, client: Any) -> None:
    own.add("mortal-1", "mortal-2", args=("--lifetime", "6s"))
    own.wait_for(client, "mortal-1", "mortal-2")
    run = launch(client, consensus=Endless())
    under_way(run, 4)
    until(lambda: any("started with a lifetime" in note for note in run.status().notes), 10)
    own.add("steady")
    there = own.wait_for(client, "steady")
    until(lambda: run.status().server == there["steady"], 40)
    pushes = run.status().pushes
    until(lambda: run.status().pushes > pushes, 20)
    run.stop()


def test_a_worker_reserved_for_servers_has_it(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.add("home", args=("--resources", "paramserver=2"))
    there = own.wait_for(client, "a", "b", "home")
    run = launch(client)
    assert under_way(run) == there["home"]
    assert there["home"] not in run.status().runners
    own.workers["home"].kill()
    until(lambda: run.status().epoch == 2, 20)
    check(run)


def leave(dask_worker: Any) -> None:
    """As the nanny's kill for too much memory ends it: at once."""
    os._exit(1)


@pytest.fixture
def local() -> Iterator[Any]:
    """Three workers with nannies."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_a_nanny_starts_its_worker_again(local: Any) -> None:
    run = launch(local, Slow(delay=0.1))
    server = under_way(run)
    with contextlib.suppress(OSError):
        local.run(leave, workers=[server])
    result = check(run)
    assert result.version.epoch == 2


def test_the_cluster_is_scaled_down(local: Any) -> None:
    """Dask asks nobody whom to close."""
    run = launch(local, Slow(delay=0.1))
    under_way(run)
    local.cluster.scale(1)
    check(run)
