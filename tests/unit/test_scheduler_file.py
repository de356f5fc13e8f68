"""Scheduler files and the credentials that they name."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paramserver.cluster import credentials, schedulerfile
from paramserver.errors import InvalidInput


def test_credentials_are_their_owners_and_go(tmp_path: Path) -> None:
    with contextlib.suppress(KeyError), credentials.made(str(tmp_path)) as (directory, made):
        assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o700
        for file in set(made):
            assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
        assert made == credentials.within(directory)
        for role in ("client", "scheduler", "worker"):
            assert made.security().get_connection_args(role)["ssl_context"] is not None
        raise KeyError
    assert not Path(directory).exists()


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal
        from paramserver.cluster import credentials
        with credentials.made({str(tmp_path)!r}):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code], timeout=60)
    (left,) = tmp_path.iterdir()
    with credentials.made(str(tmp_path)) as (first, _), credentials.made(str(tmp_path)) as (second, _):
        assert {str(path) for path in tmp_path.iterdir()} == {first, second}
    assert not left.exists()


@pytest.mark.parametrize("shared", ["/nowhere", "/proc"])
def test_no_place_for_credentials(shared: str) -> None:
    with (
        pytest.raises(InvalidInput, match=rf"cannot be written to {shared} \(.*set shared_temp_directory"),
        credentials.made(shared),
    ):
        pass


def test_a_file_leads_there(tmp_path: Path) -> None:
    with credentials.made(str(tmp_path)) as (directory, made):
        file = str(Path(directory) / "scheduler.json")
        schedulerfile.save(file, "tls://127.0.0.1:1", made)
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
        assert schedulerfile.read(file) == ("tls://127.0.0.1:1", made)
        copy = tmp_path / "copy.json"
        copy.write_text(Path(file).read_text())
    with pytest.raises(InvalidInput, match=r"copy.json names .*cert.pem, which is not there"):
        schedulerfile.read(str(copy))
    schedulerfile.save(str(tmp_path / "plain.json"), "tcp://127.0.0.1:1", None)
    assert schedulerfile.read(str(tmp_path / "plain.json")) == ("tcp://127.0.0.1:1", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"scheduler.json cannot be read \(No such file"),
        ("", "is no scheduler file"),
        ("[1]", "is no scheduler file"),
        ('{"id": 1}', 'is no scheduler file: it needs JSON with "address"'),
        ('{"address": "tls://a:1", "tls": {"cert": "a"}}', "is no scheduler file"),
    ],
)
def test_what_is_none(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        schedulerfile.read(str(file))
