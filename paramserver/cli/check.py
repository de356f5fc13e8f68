"""``paramserver check``: what about a cluster would hurt a run."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.cli.common import add_query, client_of, print_json


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("check", help="what about a cluster would hurt a run", description=__doc__)
    add_query(parser, named=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A table of findings; 1 where a run would fail."""
    from paramserver.cluster.check import check

    with client_of(args) as client:
        findings = check(client)
    if args.json:
        print_json(list(findings))
    else:
        print(findings)
    return 1 if findings.errors else 0
