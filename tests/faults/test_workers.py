"""Workers die, join, leave and dawdle: the same optimum. The server or the scheduler dies: an error, soon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cluster.helpers import Endless, Processes, Slow, processes, until

import paramserver as ps
from paramserver import errors

from .helpers import CHUNKS, assert_nothing_left, check, launch, names, under_way


def test_a_worker_is_killed(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client)
    _, others = names(own, client, under_way(run))
    own.workers[others[0]].kill()
    check(run)
    assert len(run.status().runners) <= 2


def test_a_worker_is_killed_while_it_verifies(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.15))
    until(lambda: run.status().state == "verifying", 60, every=0.02)
    _, others = names(own, client, run.status().server)
    own.workers[others[0]].kill()
    check(run)


def test_all_but_the_servers_worker_are_killed_one_after_the_other(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.1))
    _, others = names(own, client, under_way(run))
    for name in others:
        own.workers[name].kill()
        under_way(run, run.status().pushes + 4)
    check(run)


def test_a_worker_joins_and_works(own: Processes, client: Any) -> None:
    own.add("a")
    own.wait_for(client, "a")
    run = launch(client, Slow(delay=0.1))
    under_way(run, 4)
    own.add("late")
    there = own.wait_for(client, "a", "late")
    until(lambda: there["late"] in run.status().runners, 20)
    check(run)


def test_a_worker_is_retired(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client)
    _, others = names(own, client, under_way(run))
    address = own.by_name(client)[others[0]]
    client.retire_workers([address])
    until(lambda: others[0] not in own.by_name(client))
    check(run)


def test_a_straggler(own: Processes, client: Any) -> None:
    own.add("a", "b", "slow")
    own.wait_for(client, "a", "b", "slow")
    run = launch(client, Slow(delay=0.03, slow=("slow",), factor=6.0))
    result = check(run)
    assert result.n_pushes <= 12 * CHUNKS


def test_no_workers_yet(own: Processes, client: Any) -> None:
    run = launch(client, ps.Logistic(), chunks=CHUNKS)
    status = run.status()
    assert status.state == "waiting"
    assert "waiting" in status.doing
    assert not run.done()
    with pytest.raises(errors.CallTimeout):
        run.result(timeout=0.5)
    with pytest.raises(errors.ParamServerError):
        run.params()
    own.add("first")
    check(run)


def test_stopped_before_there_is_a_worker(own: Processes, client: Any) -> None:
    run = launch(client, ps.Logistic(), name="never")
    with pytest.raises(errors.RunFailed, match="stopped"):
        run.stop()
    assert run.done()
    assert_nothing_left(client)


def test_every_worker_is_killed_and_others_come(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client)
    under_way(run)
    own.stop_workers()
    until(lambda: not own.by_name(client))
    own.add("c")
    check(run)


def test_a_worker_stopped_for_a_while(own: Processes, client: Any) -> None:
    import signal

    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client)
    _, others = names(own, client, under_way(run))
    own.workers[others[0]].signal(signal.SIGSTOP)
    time.sleep(2.0)
    own.workers[others[0]].signal(signal.SIGCONT)
    check(run)


def test_the_scheduler_dies(tmp_path: Any) -> None:
    with processes(tmp_path) as own, own.client(set_as_default=False, timeout=5) as client:
        own.add("a")
        own.wait_for(client, "a")
        run = launch(client, ps.Logistic(), consensus=Endless(), name="bereft")
        under_way(run)
        ended: list[Any] = []
        run.add_done_callback(ended.append)
        own.scheduler.kill()
        own.scheduler.wait(10)
        asks = [
            run.status, run.params, run.duals, run.done, run.stop, run.history, lambda: run.result(timeout=20),
            lambda: next(run.watch()), lambda: run.update(tol=1.0), lambda: ps.connect("bereft", client),
            lambda: launch(client), lambda: ps.list(client), lambda: ps.forget("bereft", client),
        ]  # fmt: skip
        began = time.monotonic()
        for ask in asks:
            with pytest.raises(errors.ParamServerError):
                ask()
        assert time.monotonic() - began < 60
        until(lambda: ended == [run], 30)
