"""Clusters that scale by demand take no worker from under a run's server, and a run is never left without one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.helpers import Endless, Slow, until
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker
from distributed.deploy import Adaptive as Plain
from distributed.deploy.spec import ProcessInterface

import paramserver as ps

from .helpers import check, launch, under_way

QUICK = {"interval": "100 ms", "wait_count": 2}
SERVERS = {"paramserver": 1}  #: resources of a worker that is there for servers


@pytest.fixture
def local() -> Iterator[tuple[Any, Any]]:
    """A worker for servers, which has no runners: to Dask it is idle and empty. Those to come are for runners."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL, resources=SERVERS
    ) as cluster:
        cluster.new_spec["options"] = {**cluster.new_spec["options"], "resources": None}
        with Client(cluster, set_as_default=False) as client:
            yield cluster, client


def workers(client: Any) -> list[str]:
    return list(client.run_on_scheduler(_workers))


def _workers(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.workers)


def _victims(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.workers_to_close(n=9))


@pytest.mark.parametrize("kind", [Plain, ps.cluster.Adaptive], ids=["plain", "ours"])
def test_a_server_keeps_its_worker(local: tuple[Any, Any], kind: Any) -> None:
    cluster, client = local
    (first,) = workers(client)
    cluster.scale(3)
    until(lambda: len(workers(client)) == 3)
    run = launch(client, ps.Logistic(), consensus=Endless(), name="stays", keep=True)
    assert under_way(run) == first
    adaptive = cluster.adapt(minimum=1, maximum=3, Adaptive=kind, **QUICK)
    time.sleep(2.0)  # twenty looks
    assert first not in client.run_on_scheduler(_victims)
    status = run.status()
    assert (status.server, status.epoch) == (first, 1)
    pushes = status.pushes
    until(lambda: run.status().pushes > pushes)
    run.stop()
    until(lambda: len(workers(client)) == 1)  # it does scale down, then
    assert isinstance(adaptive, kind)
    ps.forget("stays", client)


def test_a_live_run_has_a_worker_at_least(local: tuple[Any, Any]) -> None:
    """Also where no task asks for any: its server's, and its runners' are none to Dask."""
    cluster, client = local
    cluster.adapt(minimum=0, maximum=2, Adaptive=ps.cluster.Adaptive, **QUICK)
    run = launch(client, ps.Logistic(), keep=True, name="kept")
    check(run)
    time.sleep(1.5)
    assert run.status().epoch == 1
    assert run.status().server in workers(client)
    run.stop()
    until(lambda: not workers(client))
    ps.forget("kept", client)
    again = launch(client, ps.Logistic(), name="waits")  # for workers: there are none
    check(again)
    ps.forget("waits", client)
    until(lambda: not workers(client))


def test_without_a_run_it_is_dask_s_own(local: tuple[Any, Any]) -> None:
    """No plug-in on the scheduler yet."""
    cluster, client = local
    cluster.adapt(minimum=0, maximum=2, Adaptive=ps.cluster.Adaptive, **QUICK)
    until(lambda: not workers(client))
    assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    until(lambda: not workers(client))


# -- jobs of several workers -----------------------------------------------------------------------


class Job(Worker, ProcessInterface):  # type: ignore[misc]
    """Two workers that come and go together."""

    def __init__(self, *args: Any, name: Any = None, **kwargs: Any) -> None:
        self.both = [Worker(*args, name=f"{name}-{k}", **kwargs) for k in range(2)]

    @property
    def status(self) -> Any:
        return self.both[0].status

    @status.setter
    def status(self, value: Any) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Job of {self.both}>"

    __str__ = __repr__

    async def start(self) -> None:
        await asyncio.gather(*self.both)

    async def close(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.gather(*(worker.close() for worker in self.both))


def test_a_server_s_job_is_spared(tmp_path: Any) -> None:
    """Dask would end the whole job for the other worker of it, which is idle."""
    options = {"nthreads": 1, "local_directory": str(tmp_path)}
    spec = {"cls": Job, "options": {**options, "resources": SERVERS}, "group": ["-0", "-1"]}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "port": 0, "host": "127.0.0.1"}}
    with (
        SpecCluster(
            workers={0: spec}, scheduler=scheduler, worker={**spec, "options": options}, silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scale(2)
        until(lambda: len(workers(client)) == 4)
        run = launch(client, ps.Logistic(), consensus=Endless(), name="job", keep=True)
        server = under_way(run)
        victims = client.run_on_scheduler(_victims)
        assert len(victims) == 1  # Dask's choice: what has neither a runner nor the server
        cluster.adapt(minimum=1, maximum=2, Adaptive=ps.cluster.Adaptive, **QUICK)
        time.sleep(1.5)
        assert (run.status().server, run.status().epoch) == (server, 1)
        assert set(victims) < set(workers(client))
        run.stop()
        ps.forget("job", client)


def test_it_grows_while_chunks_wait_and_shrinks_after(local: tuple[Any, Any]) -> None:
    """To Dask the runners are a few long tasks: it would leave it at one."""
    cluster, client = local
    cluster.adapt(minimum=0, maximum=3, Adaptive=ps.cluster.Adaptive, **QUICK)
    run = launch(client, Slow(delay=0.3), name="grows")
    until(lambda: len(workers(client)) == 3)
    check(run)
    until(lambda: not workers(client))
    ps.forget("grows", client)
