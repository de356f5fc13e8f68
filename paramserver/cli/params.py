"""``paramserver params``: the current parameters of a run."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from paramserver.cli.common import add_query, client_of, print_json


def add(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("params", help="the current parameters", description=__doc__)
    add_query(parser)
    parser.add_argument("-o", "--output", metavar="Z.npy", help="write z, the flat vector, to this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read one version and print or write it."""
    from paramserver.launching import connect

    with client_of(args) as client:
        params = connect(args.name, client).params()
    if args.output:
        with open(args.output, "wb") as file:  # np.save on a name would append .npy
            np.save(file, params.z)
    if args.json:
        keys = {"version": params.version.n, "epoch": params.version.epoch, "age_s": params.age_s}
        print_json({**keys, "certified": params.certified, "intercept": params.intercept_, "coef": params.named()})
        return 0
    certified = "certified" if params.certified else "not certified"
    print(f"version {params.version.n}, {params.age_s:.2f} s old, {certified}")
    if args.output:
        print(f"z, {params.z.size} values, written to {args.output}")
        return 0
    for name, value in params.named().items():
        print(f"{name}\t{value:.10g}")
    print(f"intercept\t{params.intercept_:.10g}")
    return 0
