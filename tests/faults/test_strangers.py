"""Over TLS everything is: a fit, a takeover, every address; and whoever has no certificate of ours gets nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cluster.helpers import Processes, Slow, processes, until
from distributed import Client, LocalCluster

import paramserver as ps
from paramserver import errors
from paramserver.transport import exposed

from .certificates import Certificates, certificates
from .helpers import assert_nothing_left, check, launch, names, under_way

X = np.arange(64.0)[:, None] % 7


@pytest.fixture(scope="module")
def ours(tmp_path_factory: Any) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: Any, ours: Certificates) -> Iterator[Processes]:
    """The module's own, over TLS, instead of the room's."""
    with processes(tmp_path_factory.mktemp("own"), args=ours.args) as own:
        yield own


@pytest.fixture
def client(own: Processes, ours: Certificates) -> Iterator[Any]:
    with own.client(set_as_default=False, security=ours.client) as made:
        until(lambda: not own.by_name(made))
        yield made


def addresses(dask_scheduler: Any) -> list[str]:
    """Every address that the scheduler and its supervisor listen at, call, or are called from."""
    supervisor = dask_scheduler.plugins["paramserver"]
    streams = [*dask_scheduler.stream_comms.values(), *dask_scheduler.client_comms.values()]
    comms = [stream.comm for stream in streams if stream.comm is not None]
    return [
        supervisor.keeper._client.scheduler.address,
        *(record.handle.address for record in supervisor.runs.values() if record.handle),
        *(listener.contact_address for listener in dask_scheduler.listeners),
        *(address for comm in comms for address in (comm.local_address, comm.peer_address)),
        *dask_scheduler.rpc.available, *dask_scheduler.rpc.occupied, *supervisor.keeper._client.rpc.available,
        *dask_scheduler.workers,
    ]  # fmt: skip


def peers(dask_worker: Any) -> list[str]:
    """The same of a worker; whom its runners call is among them."""
    pool = dask_worker.rpc
    return [dask_worker.address, dask_worker.scheduler.address, *pool.available, *pool.occupied]


def assert_all_tls(client: Any, run: Any) -> None:
    status = run.status()
    called = client.run(peers)
    found = [*client.run_on_scheduler(addresses), *status.runners, status.server, client.scheduler.address]
    found += [address for there in called.values() for address in there]
    assert len(found) > 10
    assert [address for address in found if not address.startswith("tls://")] == []


def test_a_fit_over_tls(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, require_tls=True)
    under_way(run)
    assert_all_tls(client, run)
    check(run)
    assert_nothing_left(client)


def test_a_takeover_over_tls(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.1), require_tls=True)
    mine, _ = names(own, client, under_way(run))
    own.workers.pop(mine).kill()
    until(lambda: run.status().epoch == 2)
    assert_all_tls(client, run)
    assert check(run).version.epoch == 2


def test_a_local_cluster_over_tls(ours: Certificates) -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL,
            security=ours.security,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        run = launch(client, Slow(delay=0.1), require_tls=True)
        server = under_way(run)
        assert_all_tls(client, run)
        os.kill(client.run(os.getpid, workers=[server])[server], signal.SIGKILL)
        until(lambda: run.status().epoch == 2)
        assert_all_tls(client, run)
        assert check(run).version.epoch == 2


def configured(ours: Certificates) -> dict[str, str]:
    """Certificates from the environment: encryption is not required, and there is none for clients."""
    env = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(ours.authority)}
    for role in ("SCHEDULER", "WORKER"):
        env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(ours.certificate)
        env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(ours.key)
    return env


def test_a_scheduler_whose_certificate_is_in_its_configuration(tmp_path: Any, ours: Certificates) -> None:
    """The supervisor shows the scheduler's."""
    env = configured(ours)
    with processes(tmp_path, env, scheduler_args=("--port", "0", "--protocol", "tls")) as own:
        own.add("a", args=("--protocol", "tls"), env=env)
        with own.client(set_as_default=False, security=ours.client) as client:
            own.wait_for(client, "a")
            check(launch(client, ps.Logistic(), require_tls=True))


def test_a_scheduler_that_listens_in_the_clear_as_well_is_refused(tmp_path: Any, ours: Certificates) -> None:
    args = ("--port", "0,0", "--protocol", "tls,tcp")
    with (
        processes(tmp_path, configured(ours), scheduler_args=args) as own,
        own.client(set_as_default=False, security=ours.client) as client,
        pytest.raises(errors.InvalidInput, match=r"require_tls=True, but tcp://"),
    ):
        ps.launch(ps.LeastSquares(), X, X[:, 0], client=client, require_tls=True)


# -- strangers -------------------------------------------------------------------------------------

STRANGER = """
import asyncio, json, os, sys, time
from distributed import Client
from distributed.core import connect
from distributed.security import Security

scheduler, worker, files = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
security = Security(**files)

async def call():
    comm = await connect(worker, timeout=4, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    return await comm.read()

for attempt in (lambda: Client(scheduler, timeout=4, security=security), lambda: asyncio.run(call())):
    began = time.monotonic()
    try:
        got = repr(attempt())
    except Exception as error:
        got = [type(error).__name__, isinstance(error, OSError), str(error)]
    print(json.dumps([got, time.monotonic() - began]), flush=True)
os._exit(0)
"""


def intrude(scheduler: str, worker: str, files: dict[str, str]) -> list[tuple[Any, float]]:
    """What a process with these certificates gets from a scheduler and a worker, and after how long."""
    words = [sys.executable, "-c", STRANGER, scheduler, worker, json.dumps(files)]
    out = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return [tuple(json.loads(line)) for line in out.stdout.splitlines()]  # type: ignore[misc]


@pytest.mark.parametrize(
    "who", ["without a certificate", "with a foreign one", "in the clear", "foreign, in the clear"]
)
def test_a_stranger_gets_nothing(own: Processes, client: Any, tmp_path: Any, who: str) -> None:
    own.add("a")
    worker = own.wait_for(client, "a")["a"]
    run = launch(client, Slow(delay=0.05), keep=True)
    under_way(run)
    scheduler, files = client.scheduler.address, {}
    if "foreign" in who:
        foreign = certificates(tmp_path / "foreign")
        files = {
            "tls_ca_file": foreign.authority,
            "tls_client_cert": foreign.certificate,
            "tls_client_key": foreign.key,
        }
    if "clear" in who:
        scheduler, worker = (address.replace("tls://", "tcp://") for address in (scheduler, worker))
    for got, seconds in intrude(scheduler, worker, {name: str(path) for name, path in files.items()}):
        assert isinstance(got, list), got
        kind, refused, text = got
        assert refused or kind in ("TypeError", "RuntimeError"), got  # Dask's own words about the configuration
        assert any(word in text for word in ("TLS", "encryption", "closed", "timed out")), got
        assert seconds < 15
    assert check(run).name == run.name
    run.stop()


def test_a_client_that_trusts_another_authority_is_no_client(own: Processes, client: Any, tmp_path: Any) -> None:
    """The command line says what is wrong, and soon."""
    own.add("a")
    own.wait_for(client, "a")
    foreign, began = certificates(tmp_path / "foreign"), time.monotonic()
    for env, text in ((_config(foreign), "no scheduler answers at"), ({}, "needs a certificate")):
        out = _cli(client.scheduler.address, env)
        assert out.returncode in (1, 2), out.stderr
        assert text in out.stderr
        assert "Traceback" not in out.stderr
    assert time.monotonic() - began < 40


def test_the_command_line_over_tls(own: Processes, client: Any, ours: Certificates) -> None:
    own.add("a")
    own.wait_for(client, "a")
    check(launch(client, ps.Logistic(), name="seen"))
    out = _cli(client.scheduler.address, _config(ours))
    assert out.returncode == 0, out.stderr
    assert "seen" in out.stdout
    ps.forget("seen", client)


def _config(of: Certificates) -> dict[str, str]:
    names = {"CA_FILE": of.authority, "CLIENT__CERT": of.certificate, "CLIENT__KEY": of.key}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in names.items()}


def _cli(address: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "paramserver", "list", "--scheduler", address]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, **env})


# -- in the clear ----------------------------------------------------------------------------------


def test_tls_can_be_required(tmp_path: Any) -> None:
    with processes(tmp_path) as own, own.client(set_as_default=False) as client:
        began = time.monotonic()
        with pytest.raises(errors.InvalidInput, match=r"require_tls=True, but tcp://.*--tls-ca-file"):
            ps.launch(ps.LeastSquares(), X, X[:, 0], client=client, require_tls=True)
        assert time.monotonic() - began < 2
        assert "paramserver" not in client.run_on_scheduler(_plugins)


def test_tls_can_be_required_of_an_asynchronous_launch(tmp_path: Any) -> None:
    async def attempt(address: str) -> None:
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(errors.InvalidInput, match="require_tls=True"):
                await ps.launch(ps.LeastSquares(), X, X[:, 0], client=client, require_tls=True)

    with processes(tmp_path) as own, own.client(set_as_default=False) as client:
        asyncio.run(attempt(client.scheduler.address))


def _plugins(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.plugins)


def test_in_the_clear_a_launch_warns_once_a_client(tmp_path: Any, caplog: Any) -> None:
    with processes(tmp_path) as own, own.client(set_as_default=False) as client:
        own.add("a")
        own.wait_for(client, "a")
        reached = exposed(client.scheduler.address)
        with caplog.at_level(logging.WARNING, "paramserver"):
            for _ in range(2):
                ps.fit(ps.LeastSquares(), X, X[:, 0], client=client)
        said = [record for record in caplog.records if "unencrypted" in record.getMessage()]
        assert len(said) == reached  # once, unless this machine has no address but its own


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://10.0.0.1:8786", True), ("tcp://[2001:db8::1]:8786", True), ("tcp://node7.cluster:8786", True),
        ("ws://10.0.0.1:8786", True), ("tcp://127.0.0.1:8786", False), ("tcp://127.8.0.1:8786", False),
        ("tcp://[::1]:8786", False), ("tcp://localhost:8786", False), ("tls://10.0.0.1:8786", False),
        ("inproc://10.0.0.1/1/2", False),
    ],
)  # fmt: skip
def test_what_is_exposed(address: str, expected: bool) -> None:
    assert exposed(address) is expected
