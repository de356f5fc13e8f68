"""``paramserver list``: the runs of a scheduler."""

from __future__ import annotations

import argparse
import time
from typing import Any

from paramserver.cli.common import add_query, client_of, print_json


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("list", help="the runs of a scheduler", description=__doc__)
    add_query(parser, named=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """One line a run."""
    from paramserver.launching import list_runs

    with client_of(args) as client:
        runs = list_runs(client)
    if args.json:
        print_json(runs)
        return 0
    for found in runs:
        age = time.time() - found["created"]
        print(f"{found['name']}\t{found['state']}\t{found['n_chunks']} chunks\t{age:.0f} s ago\t{found['reason']}")
    if not runs:
        print("no runs")
    return 0
