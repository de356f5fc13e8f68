"""Runs whose server and runners are in different jobs, and what Slurm does to jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import dask
import pytest
import yaml
from cluster.helpers import Slow, until
from faults.helpers import assert_nothing_left, check, launch, under_way

from .site import Site
from .slurm import DEPLOY

pytestmark = pytest.mark.timeout(180)

Start = Callable[..., Site]


def test_server_and_runners_are_in_different_jobs(on_slurm: Start) -> None:
    site = on_slurm(jobs=3)
    run = launch(site.client)
    server = under_way(run)
    jobs = site.workers()
    assert set(jobs.values()) == set(site.system.jobs())
    assert len({jobs[address] for address in run.status().runners} - {jobs[server]}) == 2
    check(run)
    assert_nothing_left(site.client)


def test_the_server_s_job_is_cancelled(on_slurm: Start) -> None:
    site = on_slurm(jobs=3)
    run = launch(site.client, Slow(delay=0.1))
    job = site.workers()[under_way(run)]
    site.system.cancel(job)
    until(lambda: run.status().epoch == 2)
    assert job not in site.workers().values()
    assert check(run).version.epoch == 2
    assert site.system.state(job) == "CANCELLED"


def test_a_cancelled_job_comes_back(on_slurm: Start) -> None:
    """`scale` again, once the cluster has noticed that a worker is lost."""
    site = on_slurm(jobs=2)
    run = launch(site.client, Slow(delay=0.2))
    job = site.workers()[under_way(run)]
    site.system.cancel(job)
    until(lambda: len(site.cluster.workers) == 1)
    site.scale(2)
    assert len(site.system.jobs()) == 2
    until(lambda: len(run.status().runners) == 2)
    check(run)


@pytest.mark.parametrize("whose", ["server", "runner"])
def test_a_task_takes_more_memory_than_its_job_has(on_slurm: Start, whose: str) -> None:
    """Slurm kills what it finds in the job: the worker, which its nanny starts again, or the job."""
    site = on_slurm(jobs=3, job_mem="700M", worker_extra_args=["--memory-limit", "0"])
    run = launch(site.client, Slow(delay=0.2))
    server = under_way(run)
    victim = server if whose == "server" else next(address for address in run.status().runners if address != server)
    task = site.client.submit(bytearray, 2_000_000_000, workers=[victim], pure=False)
    until(lambda: victim not in site.workers())
    task.cancel()
    result = check(run)
    assert result.version.epoch == (2 if whose == "server" else 1)


def test_a_node_is_drained(on_slurm: Start) -> None:
    """Its jobs go on; what is submitted meanwhile runs elsewhere."""
    site = on_slurm(jobs=2)
    run = launch(site.client, Slow(delay=0.1))
    job = site.workers()[under_way(run)]
    node = site.system.jobs()[job].node
    with site.system.drained(node):
        site.scale(3)
        jobs = site.system.jobs()
        assert jobs[job].state == "RUNNING"
        assert {jobs[new].node for new in set(jobs) - {job}} != {node}
        assert check(run).version.epoch == 1
    assert jobs.keys() == site.system.jobs().keys()


def test_jobs_of_two_workers(on_slurm: Start) -> None:
    """As deploy's jobqueue.yaml makes them: what ends the server's worker ends its neighbour."""
    site_yaml = yaml.safe_load((DEPLOY / "slurm" / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **site_yaml}}):
        site = on_slurm(jobs=2, cores=2, processes=2, python=sys.executable)
    run = launch(site.client, Slow(delay=0.2))
    job = site.workers()[under_way(run)]
    assert sorted(site.workers().values()).count(job) == 2
    site.system.cancel(job)
    until(lambda: run.status().epoch == 2)
    check(run)
