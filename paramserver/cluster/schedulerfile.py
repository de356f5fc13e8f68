"""Scheduler files, as Dask's tools write and take them: where a scheduler is, and here with what to be let in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from paramserver.cluster.credentials import Credentials, write
from paramserver.errors import InvalidInput

RESULT = "result.json"  #: beside the scheduler file of a detached fit that has ended


class Found(NamedTuple):
    """A scheduler."""

    address: str
    tls: Credentials | None


def read(path: str) -> Found:
    """What a scheduler file says.

    Raises
    ------
    InvalidInput
        There is none, or it is no scheduler file.
    """
    try:
        said: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        address = said["address"]
        tls = None if said.get("tls") is None else Credentials(**said["tls"])
    except OSError as error:
        result = Path(path).parent / RESULT
        up = f"its fit has ended, see {result}" if result.exists() else "has the scheduler been started, and is it up?"
        raise InvalidInput(f"the scheduler file {path} cannot be read ({error.strerror}): {up}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f'{path} is no scheduler file: it needs JSON with "address", and may have "tls" with "ca_file", "cert" '
            f'and "key" ({error!r})'
        ) from None
    for file in tls or ():
        if not Path(file).is_file():
            raise InvalidInput(
                f"{path} names {file}, which is not there: its cluster has ended, or is another machine's"
            )
    return Found(str(address), tls)


def save(path: str, address: str, tls: Credentials | None) -> None:
    """Write one; it leads to everything that its reader's certificate opens, and so is for its owner alone."""
    write(path, json.dumps({"address": address, **({"tls": tls._asdict()} if tls else {})}, indent=2))
