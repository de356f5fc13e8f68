"""A run is read, changed and stopped while it runs, by whoever knows its name."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import dask.array as da
import distributed
import numpy as np
import pytest

import paramserver as ps
from cluster.helpers import Endless, Slow, make_data, reference, until
from paramserver import errors

X, Y = make_data(n=8_000, d=6)
PENALTY = ps.L1(5.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)


def launch(client: Any, problem: Any = None, **options: Any) -> Any:
    options = {"penalty": PENALTY, "tol": 1e-8, "chunks": 8, **options}
    return ps.launch(problem or ps.Logistic(), X, Y, client=client, **options)


def endless(client: Any, delay: float = 0.01, **options: Any) -> Any:
    """A run that goes on, a push every so many seconds; its parameters are there."""
    run = launch(client, Slow(delay=delay), **{"consensus": Endless(), **options})
    until(lambda: np.isfinite(run.status().objective))  # every chunk has reported
    return run


def python(code: str, *args: str, wait: bool = True) -> Any:
    """A process of its own; the JSON on its last line."""
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


# -- reading ---------------------------------------------------------------------------------------


def test_parameters_are_of_one_version(client: Any) -> None:
    run = endless(client)
    seen: dict[Any, Any] = {}
    limit = time.monotonic() + 3.0
    while time.monotonic() < limit:
        params = run.params()
        if params.version in seen:
            np.testing.assert_array_equal(params.z, seen[params.version])
        seen[params.version] = params.z
        np.testing.assert_array_equal(params.coef_, params.z[:-1])
        assert params.intercept_ == params.z[-1]
        assert params.age_s >= 0
    assert len(seen) > 10
    assert [v.n for v in seen] == sorted(v.n for v in seen)
    assert list(params.named()) == [f"x{j}" for j in range(6)]
    result = run.stop()
    after = run.params()
    assert (after.version, after.z.tolist()) == (result.version, result.z.tolist())


def test_status_tells_how_it_is_doing(client: Any) -> None:
    run = endless(client)
    one = run.status()
    time.sleep(0.5)
    two = run.status()
    assert two.state == "running"
    assert two.pushes > one.pushes
    assert two.version.n > one.version.n
    assert (two.n_chunks, two.n_rows, two.n_features) == (8, 8000, 6)
    assert sum(two.runners.values()) == 2
    assert two.server in two.runners
    assert set(two.chunk_age) == set(range(8))
    assert two.oldest[1] == max(two.chunk_age.values()) < 20
    assert 0 <= two.staleness.versions_median <= two.staleness.versions_p99
    assert two.staleness.ms_median >= 10
    assert two.refused == {} or set(two.refused) <= {"late"}
    json.dumps(two.as_dict())
    history = run.history()
    assert len({len(column) for column in history}) == 1
    assert np.all(np.diff(history.seconds) >= 0)
    assert np.all(np.diff(history.version) >= 0)
    assert "live" in repr(run) or "waiting" in repr(run)


def test_duals_and_local_models_while_it_runs(client: Any) -> None:
    run = endless(client)
    duals = run.duals()
    assert [value.chunk for value in duals] == list(range(8))
    assert all(value.value.shape == (7,) for value in duals)
    assert run.duals(3).chunk == 3
    assert run.local(3).value.shape == (7,)
    for chunk in (8, -1):
        with pytest.raises(errors.InvalidInput, match="no chunk"):
            run.local(chunk)
    run.stop()
    with pytest.raises(errors.ServerGone, match="over"):
        until(lambda: run.duals() is None)  # its server lives a moment longer


@pytest.mark.parametrize("consensus", ["newton", "admm"])
def test_the_duals_sum_to_a_subgradient(client: Any, consensus: str) -> None:
    run = launch(client, keep=True, consensus=consensus, tol=1e-10)
    result = run.result(30)
    assert result.converged
    duals = run.duals()
    assert len(duals) == 8
    total = np.sum([value.value for value in duals], axis=0)
    w, slope = run.params().coef_, total[:-1]
    # each belongs to the z that its chunk last answered at: for Newton's rule a step before the last
    slack = 1e-2 * np.linalg.norm([value.value for value in duals])
    assert abs(total[-1]) <= slack  # the intercept is not penalised
    np.testing.assert_allclose(slope, np.where(w == 0, np.clip(slope, -5, 5), 5 * np.sign(w)), atol=slack)
    for value in duals:
        np.testing.assert_allclose(run.local(value.chunk).value, result.z, atol=1e-2)
    run.stop()


def test_watch_ends_with_the_run(client: Any) -> None:
    seen = list(launch(client, Slow(delay=0.05)).watch(every=0.2))
    assert seen[-1].state == "finished"
    assert seen[-1].reason == "converged"
    assert len(seen) > 2
    assert seen[-1].verified.gap <= 1e-8
    assert seen[-1].verified.certificate == "duality gap"


# -- changing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("consensus", ["newton", "admm"])
def test_another_penalty_on_a_kept_run(client: Any, consensus: str) -> None:
    run = launch(client, keep=True, consensus=consensus, tol=1e-7)
    first = run.result(30)
    assert run.status().state == "converged"
    assert run.done()
    assert EXACT.gap(first.z) <= 1e-7
    other = reference(ps.Logistic(), X, Y, ps.L2(50.0))
    before = run.params().version
    version = run.update(penalty=ps.L2(50.0))
    assert (version.epoch, version.n) > (before.epoch, before.n)
    second = run.result(30)
    assert second.converged
    assert second.version.n >= version.n
    assert second.penalty == "L2(alpha=50.0)"
    assert -1e-15 <= other.gap(second.z) <= second.gap + 1e-13 <= 1e-7 + 1e-13
    run.update(penalty=PENALTY)
    assert EXACT.gap(run.result(30).z) <= 1e-7
    assert run.stop().converged
    with pytest.raises(errors.InvalidInput, match=r"not live|has ended"):
        run.update(tol=1e-3)


def test_tolerance_and_settings_on_a_live_run(client: Any) -> None:
    run = launch(client, keep=True, tol=1e-2)
    loose = run.result(30)
    run.update(tol=1e-9)
    tight = run.result(30)
    assert tight.gap <= 1e-9
    assert tight.version.n >= loose.version.n
    run.update(min_fresh=8, max_staleness=4)
    assert "min_fresh=8, max_staleness=4" in run.result(30).consensus
    with pytest.raises(errors.InvalidInput, match="max_staleness, min_fresh"):
        run.update(rho=0.5)
    with pytest.raises(errors.InvalidInput, match="min_fresh"):
        run.update(min_fresh=0)
    assert run.status().state == "converged"
    run.stop()


def test_settings_take_hold_while_it_runs(client: Any) -> None:
    run = endless(client, consensus=Endless(min_fresh=1))
    run.update(min_fresh=8)
    one = until(lambda: run.status())
    until(lambda: run.status().pushes >= one.pushes + 80)
    two = run.status()
    rounds = (two.pushes - one.pushes) / (two.version.n - one.version.n)
    assert 6 <= rounds <= 10
    run.stop()


def test_a_run_that_has_not_read_its_data_cannot_be_updated(client: Any) -> None:
    def late(block: Any) -> Any:
        time.sleep(1.5)
        return block

    lazy = da.from_array(X, chunks=(1000, -1)).map_blocks(late, dtype=float, meta=np.empty((0, 0)))
    run = ps.launch(ps.Logistic(), lazy, da.from_array(Y, chunks=1000), client=client, tol=1e-8)
    until(lambda: run.status().state == "surveying")
    with pytest.raises(errors.InvalidInput, match="not read"):
        run.update(tol=1e-3)
    with pytest.raises(errors.RunFailed, match="not read"):
        run.params()
    assert run.result(30).converged


# -- ending ----------------------------------------------------------------------------------------


def test_until_ends_it(client: Any) -> None:
    run = launch(client, Slow(delay=0.02), consensus=Endless(), until=lambda status: status.pushes >= 40)
    result = run.result(30)
    assert result.reason == "until"
    assert result.converged == (result.gap <= 1e-8)
    assert result.n_pushes >= 40
    assert result.certificate == "duality gap"
    assert EXACT.gap(result.z) <= result.gap + 1e-13


def test_an_until_that_raises_ends_it(client: Any) -> None:
    run = launch(client, Slow(delay=0.02), until=lambda status: 1 / 0)
    with pytest.raises(errors.StepFailed, match="ZeroDivisionError"):
        run.result(30)


def test_limits_end_it(client: Any) -> None:
    for limit, reason in (({"max_seconds": 1.0}, "max_seconds"), ({"max_pushes": 30}, "max_pushes")):
        result = launch(client, Slow(delay=0.01), consensus=Endless(), **limit).result(30)
        assert result.reason == reason
        assert result.certificate == "duality gap"
        assert EXACT.gap(result.z) <= result.gap + 1e-13


@pytest.mark.parametrize("verify", [False, True])
def test_stop(client: Any, verify: bool) -> None:
    run = endless(client)
    result = run.stop(verify=verify)
    assert result.reason == "stopped"
    assert result.converged == (verify and result.gap <= 1e-8)
    assert result.certificate == ("duality gap" if verify else "estimate")
    if verify:
        assert EXACT.gap(result.z) <= result.gap + 1e-13
    assert run.stop().z.tolist() == result.z.tolist()
    assert ps.connect(run.name, client).result().z.tolist() == result.z.tolist()


def test_a_step_that_raises_ends_it(client: Any) -> None:
    class Broken(ps.Logistic):
        def evaluate(self, data: Any, z: Any) -> Any:
            raise ArithmeticError("out of luck")

    run = launch(client, Broken())
    with pytest.raises(errors.StepFailed, match="out of luck"):
        run.result(30)
    assert run.status().state == "failed"


def test_callbacks_and_as_completed(client: Any) -> None:
    heard = threading.Event()
    slow = endless(client)
    slow.add_done_callback(lambda run: heard.set())
    quick = [launch(client, name=f"quick-{k}") for k in range(3)]
    order = []
    for run in ps.as_completed([slow, *quick]):
        order.append(run.name)
        if len(order) == 3:
            assert not heard.is_set()
            slow.stop()
    assert set(order[:3]) == {run.name for run in quick}
    assert order[3] == slow.name
    assert heard.wait(5)


def test_list_and_forget(client: Any) -> None:
    run = endless(client, name="b")
    launch(client, name="a").result(30)
    listed = {one["name"]: one["state"] for one in ps.list(client)}
    assert listed == {"b": "live", "a": "finished"}
    with pytest.raises(errors.InvalidInput, match="running"):
        ps.forget("b", client)
    assert ps.connect(client=client).name == "b"  # the only live one
    ps.forget("a", client)
    with pytest.raises(errors.UnknownRun):
        ps.connect("a", client)
    run.stop()
    kept = launch(client, name="kept", keep=True)
    kept.result(30)
    ps.forget("kept", client)
    assert [one["name"] for one in ps.list(client)] == ["b"]


def test_warm_start(client: Any) -> None:
    z0 = EXACT.z + 1e-3
    result = launch(client, z0=z0).result(30)
    assert EXACT.gap(result.z) <= 1e-8
    first = launch(client, z0=z0, max_pushes=1).result(30)
    assert EXACT.gap(first.z) < 1e-3


def test_closing_the_client_tells_its_callbacks(client: Any, cluster: Any) -> None:
    run = endless(client)
    heard = threading.Event()
    with distributed.Client(cluster, set_as_default=False) as other:
        ps.connect(run.name, other).add_done_callback(lambda run: heard.set())
    assert heard.wait(15)
    gone = ps.Run(run.name, other, run._summary)
    for ask in (gone.status, gone.params, gone.done, gone.stop, gone.result):
        with pytest.raises(errors.ParamServerError):
            ask()


# -- other places to be ----------------------------------------------------------------------------


def test_an_asynchronous_client(cluster: Any, client: Any) -> None:
    async def work() -> Any:
        address = cluster.scheduler_address
        async with distributed.Client(address, asynchronous=True, set_as_default=False) as own:
            run = await ps.launch(Slow(delay=0.01), X, Y, penalty=PENALTY, tol=1e-8, client=own, keep=True)
            result = await run
            assert (await run.status()).state == "converged"
            np.testing.assert_array_equal((await run.params()).z, result.z)
            assert len(await run.duals()) == result.n_chunks
            assert len((await run.history()).version) > 0
            assert await run.done()
            await run.update(tol=1e-9)
            assert (await run).gap <= 1e-9
            other = await ps.connect(run.name, own)
            assert (await other.stop()).converged
            assert run.name in [one["name"] for one in await ps.list(own)]
            await ps.forget(run.name, own)
            return await ps.fit(ps.Logistic(), X, Y, penalty=PENALTY, tol=1e-8, client=own)

    result = asyncio.run(work())
    assert EXACT.gap(result.z) <= 1e-8


def test_from_inside_a_task(client: Any) -> None:
    def task() -> Any:
        X, Y = make_data(n=8_000, d=6)
        return ps.fit(ps.Logistic(), X, Y, penalty=ps.L1(5.0), tol=1e-8)

    result = client.submit(task, pure=False).result(timeout=60)
    assert result.converged
    assert EXACT.gap(result.z) <= 1e-8


def test_the_current_client(client: Any) -> None:
    with client.as_current():
        result = ps.fit(ps.Logistic(), X, Y, penalty=PENALTY, tol=1e-8)
        assert ps.connect(result.name).result().z.tolist() == result.z.tolist()


LAUNCHER = """
    import sys
    import numpy as np, distributed
    import paramserver as ps
    from dataclasses import dataclass
    import time

    @dataclass(frozen=True)
    class Mine(ps.Logistic):  # a class of __main__ travels by value
        def evaluate(self, data, z):
            time.sleep(0.2)
            return super().evaluate(data, z)

    sys.path.insert(0, sys.argv[2])
    from cluster.helpers import make_data
    client = distributed.Client(sys.argv[1])
    run = ps.launch(Mine(), *make_data(n=8_000, d=6), penalty=ps.L1(5.0), tol=1e-8, name="left alone", client=client)
    print("true" if run.done() else "false", flush=True)
    import os
    os._exit(0)
"""

FOLLOWER = """
    import json, sys
    import distributed
    import paramserver as ps
    with distributed.Client(sys.argv[1]) as client:
        run = ps.connect("left alone", client)
        states = [status.state for status in run.watch(every=0.2)]
        result = run.result(timeout=30)
    print(json.dumps({"states": states, "z": result.z.tolist(), "gap": result.gap, "converged": result.converged}))
"""


def test_the_client_leaves_and_another_process_follows(cluster: Any, client: Any) -> None:
    from cluster.helpers import TESTS

    assert python(LAUNCHER, cluster.scheduler_address, str(TESTS)) is False  # it was not over yet
    found = python(FOLLOWER, cluster.scheduler_address)
    assert found["states"][-1] == "finished"
    assert found["converged"]
    assert EXACT.gap(np.array(found["z"])) <= found["gap"] + 1e-13 <= 1e-8 + 1e-13


TUNNEL = """
    import json, sys
    from distributed.comm import tcp
    scheduler = sys.argv[1]
    real = tcp.BaseTCPConnector.connect
    tried = []

    async def connect(self, address, *args, **kwargs):
        where = f"tcp://{address}" if "://" not in address else address
        if where != scheduler:
            tried.append(where)
            raise OSError(f"no route to {where}")
        return await real(self, address, *args, **kwargs)

    tcp.BaseTCPConnector.connect = connect
    import distributed
    import paramserver as ps
    with distributed.Client(scheduler) as client:
        run = ps.connect(sys.argv[2], client)
        params, status = run.params(), run.status()
        watched = [next(run.watch(0.1)).pushes for _ in range(3)]
        duals, history = run.duals(), run.history()
        version = run.update(max_staleness=50)
        result = run.stop(verify=True)
    out = {"z": params.z.tolist(), "pushes": status.pushes, "watched": watched, "reason": result.reason,
           "duals": len(duals), "tried": tried, "gap": result.gap}
    print(json.dumps(out))
"""


def test_a_client_that_reaches_only_the_scheduler(cluster: Any, client: Any) -> None:
    run = endless(client)
    found = python(TUNNEL, cluster.scheduler_address, run.name)
    assert found["tried"] == []
    assert len(found["z"]) == 7
    assert found["watched"] == sorted(found["watched"])
    assert found["watched"][0] >= found["pushes"] > 0
    assert found["duals"] == 8
    assert found["reason"] == "stopped"
    assert run.result(5).gap == found["gap"]


def test_no_scheduler_and_nothing_launched_yet() -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50, processes=False) as empty,
        distributed.Client(empty, set_as_default=False) as fresh,
    ):
        with pytest.raises(errors.UnknownRun, match="nothing has been launched"):
            ps.connect("any", fresh)
        assert ps.list(fresh) == []
    with pytest.raises(errors.NoScheduler):
        ps.connect("any", fresh)
    with pytest.raises(errors.NoScheduler):
        ps.launch(ps.Logistic(), X, Y, client=fresh)
