"""A run leaves nothing behind, however it lived and ended; and many, one after the other, no more than one."""

from __future__ import annotations

import contextlib
import gc
import time
from typing import Any

import pytest
from cluster.helpers import Endless, Processes, Slow, until

import paramserver as ps

from . import leaks
from .helpers import check, launch, names, under_way

ROOM = {"files": 3, "threads": 2, "MB": 5.0}  #: what Dask and the allocator may take more of
OURS = ("tasks", "groups", "names", "runs", "background", "events", "held", "retried")
THEIRS = ("actors", "caches", "executing", "BLAS", "data", "tasks")


def grown(before: leaks.Count, after: leaks.Count) -> dict[str, tuple[float, float]]:
    """What there is more of."""
    return {
        name: (before[name], after[name])
        for name in before
        if name != "all tasks" and after[name] > before[name] + ROOM.get(name, 0)
    }


def assert_flat(client: Any, before: dict[str, leaks.Count]) -> None:
    """No more of anything than there was, as soon as what is under way has ended."""
    limit = time.monotonic() + 20
    while True:
        after = leaks.settled(client)
        more = {place: found for place in after if (found := grown(before.get(place, {}), after[place]))}
        if not more:
            return
        assert time.monotonic() < limit, more
        time.sleep(0.5)


def left(client: Any) -> dict[str, Any]:
    """What there is of any run."""
    found = leaks.settled(client)
    scheduler = found.pop("scheduler")
    out = {name: scheduler[name] for name in OURS if scheduler[name]}
    if scheduler["asyncio"] > 1:  # more than the supervisor's own look at what should be
        out["asyncio"] = scheduler["asyncio"]
    for worker, there in found.items():
        out.update({f"{worker}: {name}": there[name] for name in (*THEIRS, "asyncio") if there[name]})
    return out


def assert_empty(client: Any) -> None:
    """Nothing of a run is left, as soon as what its end interrupted is over."""
    limit = time.monotonic() + 20
    while there := left(client):
        assert time.monotonic() < limit, there
        time.sleep(0.2)


@pytest.mark.parametrize("life", leaks.ENDS, ids=lambda life: life.__name__)
def test_nothing_is_left(own: Processes, client: Any, life: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    leaks.one(client, leaks.ENDS.index(life))
    assert_empty(client)


def test_nothing_is_left_of_servers_that_were_lost(own: Processes, client: Any) -> None:
    own.add("a", "b", "c", "d")
    own.wait_for(client, "a", "b", "c", "d")
    run = launch(client, Slow(delay=0.1))
    for epoch in (1, 2):
        until(lambda epoch=epoch: run.status().server and run.status().epoch == epoch)  # type: ignore[misc]
        mine, _ = names(own, client, under_way(run))
        own.workers.pop(mine).kill()
    assert check(run).version.epoch >= 2
    ps.forget(run.name, client)
    assert_empty(client)


def test_nothing_is_left_of_a_run_whose_client_left(own: Processes, client: Any) -> None:
    """Also of its long polls."""
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    with own.client(set_as_default=False) as other:
        run = launch(other, ps.Logistic(), consensus=Endless(), name="left")
        run.add_done_callback(lambda _: None)
        under_way(run)
    again = ps.connect("left", client)
    again.stop()
    ps.forget("left", client)
    assert_empty(client)


def test_what_was_sent_in_vain_is_let_go_at_once(own: Processes, client: Any) -> None:
    """Not when the error is collected, which may be never."""
    own.add("a")
    own.wait_for(client, "a")
    run = leaks.launch(client, "one")
    run.result(timeout=60)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ps.errors.NameTaken):
            leaks.launch(client, "one")
        with pytest.raises(ps.errors.InvalidInput, match="3 columns"):
            run.add(leaks.X[:100, :3], leaks.Y[:100])
        until(lambda: not client.futures, 5.0)
    finally:
        gc.enable()
    run.stop()
    ps.forget("one", client)
    assert_empty(client)


def test_workers_that_come_and_go_leave_nothing_in_a_run_that_stays(own: Processes, client: Any) -> None:
    own.add("stays")
    there = own.wait_for(client, "stays")
    run = launch(client, Slow(delay=0.05), consensus=Endless(), name="stays")
    for k in range(3):
        own.add(f"goes{k}")
        came = own.wait_for(client, "stays", f"goes{k}")[f"goes{k}"]
        until(lambda came=came: came in run.status().runners)  # type: ignore[misc]
        own.workers.pop(f"goes{k}").kill()
        until(lambda k=k: f"goes{k}" not in own.by_name(client))  # type: ignore[misc]
    if run.status().epoch == 1 and run.status().server == there["stays"]:
        known = client.run_on_scheduler(_known_workers)
        assert known == {there["stays"]}
        assert len(_checked(client)) <= 2
    run.stop()
    ps.forget("stays", client)
    assert_empty(client)


def _known_workers(dask_scheduler: Any) -> set[str]:
    (record,) = (r for r in dask_scheduler.plugins["paramserver"].runs.values() if r.name == "stays")
    return {*record.runners, *record.started, *record.failures}


def _checked(client: Any) -> set[str]:
    return set(client.__dict__["_paramserver_checked"])


def test_run_after_run(own: Processes, client: Any) -> None:
    """`python -m tests.faults.leaks` does the same for 200."""
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    for k in range(len(leaks.ENDS)):
        leaks.one(client, k)
    before = leaks.settled(client)
    for k in range(2 * len(leaks.ENDS)):
        leaks.one(client, k)
    assert_flat(client, before)
    assert not client.futures


def test_results_that_are_kept_are_twenty(own: Processes, client: Any) -> None:
    """And no more of their data, servers and runners than of those that are forgotten."""
    own.add("a")
    own.wait_for(client, "a")
    for k in range(22):
        run = leaks.launch(client, f"kept {k}", keep=False)
        with contextlib.suppress(ps.errors.RunFailed):
            run.stop()
    scheduler = leaks.settled(client)["scheduler"]
    assert scheduler["runs"] == 20
    assert (scheduler["tasks"], scheduler["held"], scheduler["background"]) == (0, 0, 0)
    for run in ps.list(client):
        ps.forget(run["name"], client)
    assert_empty(client)
