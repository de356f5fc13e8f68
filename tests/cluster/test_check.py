"""`check` on real clusters: what their processes say of themselves, and what the command line makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster
from distributed.deploy.adaptive import Adaptive

import paramserver as ps
from cluster.helpers import Processes, processes
from paramserver.cluster.keywords import PRELOAD
from paramserver.cluster.probe import collect
from paramserver.errors import NoScheduler
from tests.cluster.test_cli import cli, json_of

ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LOOPBACK = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


@pytest.fixture
def own(tmp_path: Any) -> Iterator[Processes]:
    with processes(tmp_path, scheduler_args=("--port", "0", *LOOPBACK)) as made:
        yield made


def whats(found: Any, *words: str) -> list[Any]:
    return [finding for finding in found if all(word in finding.what for word in words)]


def test_a_cluster_as_it_should_be(own: Processes) -> None:
    own.add("a", "b", args=LOOPBACK, env=ONE)
    with own.client(set_as_default=False) as client:
        own.wait_for(client, "a", "b")
        assert str(ps.check(client)) == "nothing found that would hurt a run"
        out = cli("check", "--scheduler", client.scheduler.address)
        assert (out.returncode, out.stdout) == (0, "nothing found that would hurt a run\n")


def test_a_few_sins(own: Processes, tmp_path: Any) -> None:
    package = tmp_path / "elsewhere" / "paramserver"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_version.py").write_text('__version__ = "0.0.1.dev7"\n')
    own.add("old", args=LOOPBACK, env={**ONE, "PYTHONPATH": str(package.parent)})
    own.add("open", args=("--host", "127.0.0.1", "--dashboard-address", ":0"), env={**ONE, "OPENBLAS_NUM_THREADS": "2"})
    own.add("mortal", args=(*LOOPBACK, "--lifetime", "1 hour"), env={**ONE, "SLURM_JOB_ID": "12"})
    with own.client(set_as_default=False) as client:
        address = own.wait_for(client, "old", "open", "mortal")
        found = ps.check(client)
        assert [finding.level for finding in found.errors] == ["error"]
        assert address["old"] in found[0].what
        assert "0.0.1.dev7" in found[0].what
        assert whats(found, "HTTP servers of the worker at " + address["open"])
        assert whats(found, "would be killed at their walltime", address["mortal"])
        assert whats(found, "no worker is reserved", address["mortal"])
        assert whats(found, "12 deaths")
        assert len(whats(found, "BLAS on the worker at " + address["open"], "takes 2 threads")) == (os.cpu_count() != 1)
        out = cli("check", "--scheduler", client.scheduler.address, "--json")
        assert out.returncode == 1
        assert out.stdout.count('"level": "error"') == 1
        assert "Traceback" not in out.stderr


def test_preloads_of_worker_and_nanny_are_seen(tmp_path: Any) -> None:
    preload = tmp_path / "paramserver_test_preload.py"
    preload.write_text("")
    with processes(tmp_path, scheduler_args=("--port", "0", *LOOPBACK)) as own, own.client() as client:
        log = (tmp_path / "nanny.log").open("wb")
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", own.file, "--name", "n"]
        command += [*LOOPBACK, "--nthreads", "2", "--preload-nanny", str(preload)]
        nanny = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, "LSB_JOBID": "5"})
        try:
            address = own.wait_for(client, "n")["n"]
            facts = client.sync(collect, client)
            assert facts.workers[address]["job"] == ("lsf", "5")
            assert facts.workers[address]["threads"] == 2
            assert facts.workers[address]["preloads"] == []
            assert facts.nannies[address]["preloads"] == [str(preload)]
            assert whats(ps.check(client), "lsf jobs", PRELOAD)
        finally:
            nanny.terminate()
            nanny.wait(30)
            log.close()


def test_a_worker_that_stands_still_is_one_of_the_findings(own: Processes) -> None:
    one, _ = own.add("still", "well", args=LOOPBACK, env=ONE)
    with own.client(set_as_default=False) as client:
        address = own.wait_for(client, "still", "well")
        one.signal(signal.SIGSTOP)
        facts = client.sync(collect, client, 3.0)
        one.signal(signal.SIGCONT)
        assert list(facts.workers) == [address["well"]]
        assert facts.silent == {address["still"]: "did not answer within 3 s"}


def test_a_cluster_of_this_process_is_looked_at_too() -> None:
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert [finding.level for finding in ps.check(client)] == ["error"]
        cluster.adapt(Adaptive=ps.cluster.Adaptive, minimum=0, maximum=1)
        assert [finding.level for finding in ps.check(client)] == ["note"]
        assert client.sync(collect, client).deployed.adaptive == "ours"
        plain = cluster.adapt(Adaptive=Adaptive, minimum=0, maximum=1)
        assert client.sync(collect, client).deployed.adaptive == "other"
        plain.stop()
        cluster.scale(1)
        client.wait_for_workers(1)
        deployed = client.sync(collect, client).deployed
        assert (deployed.kind, deployed.jobs, deployed.grouped, deployed.adaptive) == ("local", 1, False, "")


def test_nobody_to_ask() -> None:
    out = cli("check", "--scheduler", "tcp://127.0.0.1:1")
    assert out.returncode == 1
    assert "no scheduler answers" in out.stderr
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        client = Client(cluster, set_as_default=False)
        client.close()
        with pytest.raises(NoScheduler):
            ps.check(client)


def test_an_asynchronous_client_awaits_it(own: Processes) -> None:
    async def ask() -> Any:
        async with Client(scheduler_file=own.file, asynchronous=True, set_as_default=False) as client:
            return await ps.check(client)  # type: ignore[misc]

    import asyncio

    assert [finding.level for finding in asyncio.run(ask())] == ["error"]


def test_json_is_a_list_of_findings(own: Processes) -> None:
    own.add("a", args=(*LOOPBACK, "--nthreads", "2"), env=ONE)
    with own.client(set_as_default=False) as client:
        own.wait_for(client, "a")
        (finding,) = json_of(cli("check", "--scheduler", client.scheduler.address, "--json"))
        assert finding.keys() == {"level", "what", "do"}
        assert finding["level"] == "note"
