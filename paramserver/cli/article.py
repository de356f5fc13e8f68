"""``paramserver compare article``: the toy experiment of 2017 at its own sizes, and our rules on the same chunks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from paramserver.errors import InvalidInput

OWN = ("rows", "seeds", "cache")
FIXED = (
    "rules", "simulate", "straggler", "accuracy", "limit", "repeats", "chunks", "y", "sample_weight", "offset",
    "exposure", "problem", "penalty", "alpha", "l1_ratio", "scheduler", "scheduler_file", "workers",
)  # fmt: skip


def add(group: Any) -> None:
    """The options that no other data have."""
    group.add_argument("--rows", type=int, metavar="N", help="of all 1000 chunks together (default 50000000)")
    group.add_argument("--seeds", type=int, metavar="N", help="schedules of the asynchronous variants (default 20)")
    group.add_argument("--cache", metavar="FILE", help="keep what is kept of the data in this file, and use it again")


def refuse(args: argparse.Namespace) -> None:
    """Other data have none of these."""
    given = [name for name in OWN if getattr(args, name) is not None]
    if given:
        raise InvalidInput(f"--{given[0]} is of the article: paramserver compare article --{given[0]} …")


def run(args: argparse.Namespace) -> Any:
    """Reproduce."""
    from paramserver.comparison.article import experiment

    for name in FIXED:
        if getattr(args, name, None) is not None:
            option = "target" if name == "y" else name.replace("_", "-")
            raise InvalidInput(f"the article's data, rules and constants are its own: leave --{option} out")
    settings = {name: getattr(args, name) for name in OWN if getattr(args, name) is not None}
    return experiment(**settings, say=lambda text: print(text, file=sys.stderr, flush=True))
