"""The command line: one file a command, each with ``add(subparsers)`` and ``run(args)``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from paramserver._version import __version__
from paramserver.errors import InvalidInput, ParamServerError


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; 0 when it worked, 1 when a run or a host failed, 2 for bad input."""
    from paramserver.cli import check, compare, fit, listing, params, status, stop, watch

    parser = argparse.ArgumentParser(
        prog="paramserver", description="Fit on a Dask cluster with a live parameter server; look at and stop runs."
    )
    parser.add_argument("--version", action="version", version=f"paramserver {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (fit, compare, params, status, watch, stop, listing, check):
        command.add(commands)
    args = parser.parse_args(argv)
    args.words = sys.argv[1:] if argv is None else argv
    try:
        return int(args.run(args))
    except InvalidInput as error:
        print(f"paramserver: {error}", file=sys.stderr)
        return 2
    except ParamServerError as error:
        print(f"paramserver: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("paramserver: interrupted", file=sys.stderr)
        return 130
