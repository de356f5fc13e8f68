"""deploy/local: what comes up goes again and leaves nothing, beside others of its kind; mistakes are said."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import asked_for
from .slurm import COMES_UP, LOCAL, call

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def _asked_for() -> None:
    asked_for("Slurm")


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def environ() -> dict[str, str]:
    """For a Slurm of one node on ports that nobody has, and that nobody gets by chance."""
    port = next(port for port in range(18_000, 30_000, 100) if is_free(port) and is_free(port + 1))
    return {**os.environ, "SLURM_PORT0": str(port), "SLURM_NODES": "1"}


@pytest.fixture
def root(tmp_path: Path, environ: dict[str, str]) -> Iterator[Path]:
    yield tmp_path / "root"
    run("down", tmp_path / "root", environ)


def run(what: str, root: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [LOCAL / "slurm" / what, root]
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=COMES_UP)


def test_it_comes_up_and_goes(root: Path, environ: dict[str, str]) -> None:
    assert run("up", root, environ).returncode == 0
    daemons = {path: path.read_text() for path in (root / "run").glob("*.pid")}
    assert len(daemons) == 3
    there = call("bash", "-c", f"source {root}/env && srun --immediate=10 echo there")
    assert there == "there\n"
    assert run("up", root, environ).returncode == 0  # nothing to do
    assert {path: path.read_text() for path in daemons} == daemons
    job = call("bash", "-c", f"source {root}/env && sbatch --parsable --output=/dev/null --wrap='sleep 300'")
    assert job == "2\n"
    assert run("down", root, environ).returncode == 0
    assert not root.exists()
    assert not [line for line in call("ps", "-eo", "stat,args").splitlines() if str(root) in line and line[0] != "Z"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/slurm_p{environ['SLURM_PORT0']}n1"))
    assert run("down", root, environ).returncode == 0  # nothing to do


def test_mistakes(root: Path, environ: dict[str, str]) -> None:
    root.mkdir()
    (root / "mine").touch()
    assert f"{root} has files of others in it" in run("up", root, environ).stderr
    (root / "mine").unlink()
    port = int(environ["SLURM_PORT0"]) + 1
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last test's connections linger
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert (
            f"port {port} is taken: choose others with SLURM_PORT0=, the first of 2" in run("up", root, environ).stderr
        )
    assert not list(root.iterdir())
