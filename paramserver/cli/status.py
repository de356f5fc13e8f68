"""``paramserver status``: how a run is doing now."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.cli.common import add_query, client_of, line, print_json


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("status", help="how a run is doing", description=__doc__)
    add_query(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the status once and print it."""
    from paramserver.launching import connect

    with client_of(args) as client:
        status = connect(args.name, client).status()
    if args.json:
        print_json(status.as_dict())
        return 0
    print(f"{status.name}: {line(status)}")
    runners = sum(status.runners.values())
    print(f"rows {status.n_rows:,}, features {status.n_features}, chunks {status.n_chunks}, pushes {status.pushes}")
    print(f"server {status.server or '—'} (epoch {status.epoch}), {runners} runners on {len(status.runners)} workers")
    stale = status.staleness
    print(f"staleness: median {stale.versions_median:.3g} versions, {stale.ms_median:.3g} ms; "
          f"p99 {stale.versions_p99:.3g} versions, {stale.ms_p99:.3g} ms")  # fmt: skip
    if status.refused:
        print("refused: " + ", ".join(f"{n} {reason}" for reason, n in status.refused.items()))
    if status.waiting_for:
        print(f"waiting for the data of chunks {list(status.waiting_for)[:20]}")
    for note in status.notes:
        print(f"note: {note}")
    return 0
