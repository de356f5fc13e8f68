"""``paramserver stop``: end a run and print what it has."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.cli.common import add_query, client_of, print_json, result_dict


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("stop", help="end a run", description=__doc__)
    add_query(parser)
    parser.add_argument("--verify", action="store_true", help="certify the last parameters first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stop and report."""
    from paramserver.launching import connect

    with client_of(args) as client:
        result = connect(args.name, client).stop(verify=args.verify)
    if args.json:
        print_json(result_dict(result))
    else:
        gap = f"gap {result.gap:.1e} ({result.certificate})"
        print(f"{result.name}: {result.reason}, objective {result.objective:.10g}, {gap}")
    return 0
