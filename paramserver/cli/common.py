"""What the commands share: reaching a scheduler, and plain values for JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput, NoScheduler

REACH = 5.0  #: seconds to reach a scheduler


def add_scheduler(parser: argparse.ArgumentParser, required: bool) -> None:
    """Where a scheduler is."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--scheduler", metavar="ADDR", help="the scheduler's address, tcp://host:port")
    where.add_argument("--scheduler-file", metavar="FILE", help="a file that says it, as 'dask scheduler' writes it")


def add_query(parser: argparse.ArgumentParser, named: bool = True) -> None:
    """The options of every command that looks at a run."""
    add_scheduler(parser, required=True)
    if named:
        parser.add_argument("--name", help="the run's name (default: the only run there is)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def of_scheduler(args: argparse.Namespace) -> str:
    """The same option again, for another command."""
    return (
        f"--scheduler-file {shlex.quote(args.scheduler_file)}"
        if args.scheduler_file
        else f"--scheduler {args.scheduler}"
    )


@contextlib.contextmanager
def client_of(args: argparse.Namespace) -> Iterator[Any]:
    """A client of the scheduler that ``args`` say, within 5 seconds or not at all."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a failed dial is our own message to give
    address, security = _scheduler(args)
    try:
        client = Client(address, timeout=REACH, set_as_default=False, security=security)
    except (OSError, ValueError, RuntimeError) as error:  # TimeoutError is an OSError; Runtime: Dask wants encryption
        raise NoScheduler(f"no scheduler answers at {address} within {REACH:g} s ({error})") from None
    try:
        yield client
    finally:
        client.close()


def _scheduler(args: argparse.Namespace) -> tuple[str, Any]:
    """Its address, and what it takes to be let in: Dask's configuration says it, else a scheduler file may."""
    from distributed.security import Security

    address, tls = args.scheduler, None
    if args.scheduler_file:
        from paramserver.cluster import schedulerfile

        address, tls = schedulerfile.read(args.scheduler_file)
    if not address.startswith("tls://") or Security().get_connection_args("client").get("ssl_context") is not None:
        return address, None
    if tls is not None:
        return address, tls.security()
    # A client that has none to show ends in a traceback, and is closed for ten seconds
    raise InvalidInput(
        f"{address} needs a certificate, and Dask's configuration names none: set "
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY to PEM files, or distributed.comm.tls in a Dask config file"
    )


def plain(value: Any) -> Any:
    """Values that JSON knows; nan and inf become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def print_json(value: Any) -> None:
    """One line."""
    print(json.dumps(plain(value), ensure_ascii=False), flush=True)


def line(status: Any, previous: Any = None) -> str:
    """A status in one line."""
    rate = ""
    if previous is not None and status.seconds > previous.seconds:
        rate = f"  {(status.pushes - previous.pushes) / (status.seconds - previous.seconds):.0f} pushes/s"
    gap = "—" if status.verified is None else f"{status.verified.gap:.1e} (version {status.verified.version.n})"
    objective = "—" if math.isnan(status.objective) else f"{status.objective:.8g}"
    chunk, age = status.oldest
    oldest = "" if chunk < 0 else f"  oldest chunk {chunk}: {age:.1f} s"
    return f"version {status.version.n}  objective {objective}  certified gap {gap}{rate}{oldest}  [{status.doing}]"


def result_dict(result: Any) -> dict[str, Any]:
    """What ``--json`` prints of a result."""
    names = (
        "objective", "gap", "gap_absolute", "certificate", "converged", "reason", "n_rows", "n_features",
        "n_chunks", "n_pushes", "n_refused", "consensus", "penalty", "name", "standard_errors", "notes",
        "left_out",
    )  # fmt: skip
    out = {name: getattr(result, name) for name in names}
    return {**out, "version": result.version.n, "epoch": result.version.epoch, "seconds_solve": result.seconds}
