"""Workers die, join, leave and dawdle: the same optimum. The server or the scheduler dies: an error, soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import dask.array as da
import pytest
from cluster.helpers import Endless, Processes, Slow, make_data, processes, reference, until

import paramserver as ps
from paramserver import errors

X, Y = make_data(n=16_000, d=8)
PENALTY = ps.L2(1.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)
CHUNKS = 16


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: Any) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("own")) as own:
        yield own


@pytest.fixture
def own(scheduler: Processes) -> Iterator[Processes]:
    """The module's scheduler; each test has its own workers."""
    yield scheduler
    scheduler.stop_workers()


@pytest.fixture
def client(own: Processes) -> Iterator[Any]:
    with own.client(set_as_default=False) as made:
        until(lambda: not own.by_name(made))  # the last test's workers are gone
        yield made


def lazy() -> Any:
    rows = len(X) // CHUNKS
    return da.from_array(X, chunks=(rows, -1)), da.from_array(Y, chunks=rows)


def launch(client: Any, problem: Any = None, **options: Any) -> Any:
    return ps.launch(problem or Slow(delay=0.05), *lazy(), penalty=PENALTY, tol=1e-8, client=client, **options)


def under_way(run: Any, pushes: int = 20) -> str:
    """The server's address, once so many pushes were taken, or all there are to take."""
    status = run.status()
    limit = time.monotonic() + 45
    while status.pushes < pushes and not run.done():
        assert time.monotonic() < limit, status
        time.sleep(0.02)
        status = run.status()
    return str(status.server)


def check(run: Any) -> Any:
    result = run.result(timeout=60)
    assert result.converged
    assert result.certificate == "duality gap"
    assert result.gap <= 1e-8
    assert -1e-15 <= EXACT.gap(result.z) <= result.gap + 1e-13
    return result


def names(own: Processes, client: Any, server: str) -> tuple[str, list[str]]:
    """(the worker that holds the server, the others)."""
    there = own.by_name(client)
    mine = next(name for name, address in there.items() if address == server)
    return mine, [name for name in there if name != mine]


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


def leftovers(dask_scheduler: Any) -> list[str]:
    keys = [str(key) for key in dask_scheduler.tasks if str(key).startswith("paramserver-")]
    return keys + [str(name) for name in dask_scheduler.clients if str(name).startswith("paramserver-")]


def assert_nothing_left(client: Any) -> None:
    limit = time.monotonic() + 15
    while left := client.run_on_scheduler(leftovers):
        assert time.monotonic() < limit, left
        time.sleep(0.1)


def test_the_servers_worker_is_killed(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client, ps.Logistic(), consensus=Endless())
    mine, _ = names(own, client, under_way(run))
    began = time.monotonic()
    own.workers[mine].kill()
    with pytest.raises(errors.ServerLost, match="server"):
        run.result(timeout=20)
    assert time.monotonic() - began < 10
    assert run.done()
    status = run.status()
    assert status.state == "failed"
    assert "server lost" in status.reason
    for ask in (run.params, run.history, run.stop):
        with pytest.raises(errors.RunFailed):
            ask()
    for ask in (run.duals, lambda: run.local(0), lambda: run.update(tol=1.0)):
        with pytest.raises(errors.ParamServerError):
            ask()
    assert [one.state for one in run.watch()] == ["failed"]
    assert_nothing_left(client)
    again = launch(client, ps.Logistic())  # the worker that is left is free again
    check(again)


def test_every_worker_is_killed_and_others_come(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client, ps.Logistic(), consensus=Endless())
    under_way(run)
    own.stop_workers()
    with pytest.raises(errors.ServerLost):
        run.result(timeout=20)
    own.add("c")
    check(launch(client, ps.Logistic()))


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
