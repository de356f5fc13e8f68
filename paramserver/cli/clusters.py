"""Where ``paramserver fit`` runs: a cluster that is there, one of a batch system's jobs, or this machine."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from paramserver.cli.common import add_scheduler, client_of, of_scheduler
from paramserver.cli.report import Live
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from paramserver.cluster.request import Request

BATCH = ("jobs", "adapt", "wait", "tls")  #: options of --cluster


class Place(NamedTuple):
    """A cluster, as the command sees it."""

    client: Any
    words: str  #: the options by which other commands reach it
    own: bool  #: made by this command, and ended with it
    file: str | None = None  #: its scheduler file, where one is needed to be let in

    def say_queries(self, name: str) -> None:
        """How to see and stop the run from elsewhere."""
        print(f"run {name!r} on {self.client.scheduler.address}; from another terminal:", file=sys.stderr)
        for command in ("status", "params", "watch", "stop"):
            print(f"    paramserver {command} {self.words} --name {name}", file=sys.stderr)


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_scheduler(parser, required=False)
    parser.add_argument("--workers", type=positive, help="workers of the LocalCluster (default: one a core)")
    parser.add_argument("--cluster", metavar="SYSTEM", help="a cluster of jobs: slurm, pbs, sge, lsf, htcondor, …")
    parser.add_argument("--jobs", type=int, metavar="N", help="so many jobs (default 1); those that end come back")
    parser.add_argument("--adapt", metavar="MIN:MAX", help="as many jobs as the run has work for")
    parser.add_argument("--wait", type=float, metavar="S", help="seconds for the first worker (default 300)")
    parser.add_argument("--tls", action="store_true", default=None, help="encrypt, with a certificate of its own")
    parser.add_argument(
        "--detach", metavar="DIR", nargs="?", const="", help="scheduler and server in a job of their own; then leave"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the job script and submit nothing")
    parser.add_argument(
        "--require-tls", action="store_true", default=None, help="refuse a cluster that is not all on tls://"
    )


def positive(text: str) -> int:
    """A whole number of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be ≥ 1, got {value}")
    return value


def requested(args: argparse.Namespace, file: Request | None) -> Request | None:
    """The jobs that the options make of the job file's, if a batch system is to run them."""
    given = {name: getattr(args, name) for name in BATCH if getattr(args, name) is not None}
    if args.scheduler or args.scheduler_file:
        if args.cluster or given or args.dry_run:
            raise InvalidInput("--scheduler is a cluster that is there: leave --cluster and its options out")
        return None
    if args.workers and (file or args.cluster):
        raise InvalidInput("--workers is of a LocalCluster: --jobs says how many jobs, the job file how large they are")
    if file is None and args.cluster is None:
        if given or args.dry_run:
            option = f"--{min(given)}" if given else "--dry-run"
            raise InvalidInput(f"{option} is of a batch system's jobs: say which, --cluster slurm")
        return None
    return _made(args.cluster, given, file)


def _made(system: str | None, given: dict[str, Any], file: Request | None) -> Request:
    from paramserver.cluster.request import Request, between

    if "adapt" in given:
        given["adapt"] = between(given["adapt"])
    if file is None:
        return Request(system or "", **given)
    if given.keys() & {"jobs", "adapt"}:  # one option, in place of whichever the file has
        given = {"jobs": None, "adapt": None, **given}
    return dataclasses.replace(file, system=system or file.system, **given)


@contextlib.contextmanager
def reached(args: argparse.Namespace, request: Request | None, live: Live) -> Iterator[Place]:
    """A client of it."""
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)  # Dask's sync stumbles over an early Ctrl-C
    if args.scheduler or args.scheduler_file:
        with client_of(args) as client:
            yield Place(client, of_scheduler(args), own=False)
    elif request is not None:
        with _jobs(request, live) as place:
            yield place
    else:
        with _local(args.workers) as place:
            yield place


@contextlib.contextmanager
def _jobs(request: Request, live: Live) -> Iterator[Place]:
    from distributed import Client

    from paramserver.cluster.jobs import started

    try:
        with started(request, live.show) as (cluster, file), Client(cluster, set_as_default=False) as client:
            live.end()
            words = f"--scheduler-file {shlex.quote(file)}" if file else f"--scheduler {cluster.scheduler_address}"
            yield Place(client, words, own=True, file=file)
    finally:
        live.end()


@contextlib.contextmanager
def _local(workers: int | None) -> Iterator[Place]:
    from distributed import Client, LocalCluster

    count = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Place(client, f"--scheduler {cluster.scheduler_address}", own=True)
