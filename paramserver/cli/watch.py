"""``paramserver watch``: a line (or a JSON object) every so often, until the run is over."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.cli.common import add_query, client_of, line, print_json


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("watch", help="follow a run to its end", description=__doc__)
    add_query(parser)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between looks (default 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Follow the run."""
    from paramserver.launching import connect

    with client_of(args) as client:
        previous = None
        for status in connect(args.name, client).watch(args.every):
            if args.json:
                print_json(status.as_dict())
            else:
                print(line(status, previous), flush=True)
            previous = status
    return 0 if previous is not None and previous.state != "failed" else 1
