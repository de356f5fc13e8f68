"""TLS for one cluster: a certificate of its own, in files that go with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from paramserver.errors import InvalidInput


class Credentials(NamedTuple):
    """Paths of PEM files: who has them is let in."""

    ca_file: str
    cert: str
    key: str

    def security(self) -> Any:
        """Dask's, for client, scheduler and workers alike."""
        from distributed.security import Security

        roles = ("client", "scheduler", "worker")
        pairs = {
            f"tls_{role}_{what}": path for role in roles for what, path in (("cert", self.cert), ("key", self.key))
        }
        return Security(require_encryption=True, tls_ca_file=self.ca_file, **pairs)


def within(directory: str) -> Credentials:
    """The paths that `made` credentials have in this directory."""
    return Credentials(*(str(Path(directory) / name) for name in ("cert.pem", "cert.pem", "key.pem")))


@contextlib.contextmanager
def made(shared: str) -> Iterator[tuple[str, Credentials]]:
    """A directory in ``shared`` that only its owner enters, with a new certificate and its key; removed at the end.

    Raises
    ------
    InvalidInput
        There is no such directory, nothing can be written there, or ``cryptography`` is missing.
    """
    from distributed.security import Security

    try:
        temporary = Security.temporary()
    except ImportError as error:
        raise InvalidInput(f'tls needs cryptography ({error}): pip install "paramserver[jobqueue]"') from error
    _sweep(shared)
    try:
        directory = tempfile.mkdtemp(prefix=f"{_mine()}{os.getpid()}-", dir=shared)  # 0700
    except OSError as error:
        raise InvalidInput(
            f"the credentials cannot be written to {shared} ({error.strerror}): set shared_temp_directory to a "
            "directory that every machine sees, and only you can write to"
        ) from None
    try:
        credentials = within(directory)
        write(credentials.cert, temporary.tls_client_cert)
        write(credentials.key, temporary.tls_client_key)
        yield directory, credentials
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _mine() -> str:
    return f".paramserver-tls-{socket.gethostname()}-"


def _sweep(shared: str) -> None:
    """Remove what processes of this machine left that were killed."""
    for left in Path(shared).glob(f"{_mine()}*"):
        number = left.name.removeprefix(_mine()).partition("-")[0]
        if number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def write(path: str, text: str) -> None:
    """A file that only its owner reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
