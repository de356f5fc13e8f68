"""The options of ``paramserver fit`` that say what is fitted: problem, penalty and rule."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.errors import InvalidInput
from paramserver.plugins import PROBLEMS, Named, make

#: option → (the problem that takes it, what it is)
SETTINGS = {
    "delta": ("huber", "in units of y (default 1.35)"),
    "power": ("tweedie", "1 to 2 (default 1.5)"),
    "quantile": ("quantile", "0 to 1 (default 0.5)"),
    "smoothing": ("quantile", "in units of y; needed"),
}
PENALTIES = ("l1", "l2", "elasticnet", "nonnegative", "none")
NAMED = ("problem", "penalty", "consensus")  #: keywords of `launch` that these options make
LOGISTIC, L2, AUTO = Named("logistic", {}), Named("l2", {}), Named("auto", {})


def add(parser: argparse.ArgumentParser) -> None:
    """The options; what is not given is None, and the job file's or the default."""
    add_objective(parser)
    parser.add_argument(
        "--consensus",
        metavar="NAME",
        help="auto (default), newton, active, lbfgs, admm, prox_gradient, sgd, easgd, fedavg, or an installed rule "
        "(progressive_hedging and aph are for other problems than these)",
    )


def add_objective(parser: argparse.ArgumentParser) -> None:
    """Those of problem and penalty."""
    parser.add_argument("--problem", choices=tuple(PROBLEMS), help="(default logistic)")
    for name, (problem, what) in SETTINGS.items():
        parser.add_argument(f"--{name}", type=float, help=f"of {problem}, {what}")
    parser.add_argument("--no-intercept", action="store_true", help="fit no intercept")
    parser.add_argument("--standardize", action="store_true", help="penalise columns over their standard deviation")
    parser.add_argument("--penalty", choices=PENALTIES, help="(default l2)")
    parser.add_argument("--alpha", type=float, help="strength against the sum of losses (default 1.0)")
    parser.add_argument("--l1-ratio", type=float, help="for elasticnet (default 0.5)")


def problem(args: argparse.Namespace, file: Named = LOGISTIC) -> Any:
    """The problem that the options make of the job file's."""
    given = {setting: getattr(args, setting) for setting in SETTINGS if getattr(args, setting) is not None}
    name = args.problem or file.name
    for setting in given:
        if SETTINGS[setting][0] != name:
            raise InvalidInput(f"--{setting} is of {SETTINGS[setting][0]}: --problem {name} does not take it")
    if args.no_intercept:
        given["fit_intercept"] = False
    if args.standardize:
        given["standardize"] = True
    named = file.but(args.problem, given)
    if named.name == "quantile" and "smoothing" not in named.settings:
        raise InvalidInput("--problem quantile needs --smoothing, in units of y: a tenth of the residuals' spread, say")
    return make("problem", named)


def penalty(args: argparse.Namespace, file: Named = L2) -> Any:
    """The penalty that the options make of the job file's; --alpha and --l1-ratio count where it has them."""
    named = file.but(args.penalty, {})
    if named.name != "none" and args.alpha is not None:
        named = named.but(None, {"alpha": args.alpha})
    if named.name == "elasticnet" and args.l1_ratio is not None:
        named = named.but(None, {"l1_ratio": args.l1_ratio})
    return make("penalty", named)


def consensus(args: argparse.Namespace, file: Named = AUTO) -> Any:
    """The rule that the options make of the job file's."""
    return make("consensus", file.but(args.consensus, {}))
