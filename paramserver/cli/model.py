"""The options of ``paramserver fit`` that say what is fitted: problem and penalty."""

from __future__ import annotations

import argparse
from typing import Any

from paramserver.errors import InvalidInput

#: --problem → (class, the settings it takes from the command line)
PROBLEMS = {
    "gamma": ("Gamma", ()),
    "huber": ("Huber", ("delta",)),
    "least_squares": ("LeastSquares", ()),
    "logistic": ("Logistic", ()),
    "multinomial": ("Multinomial", ()),
    "poisson": ("Poisson", ()),
    "quantile": ("Quantile", ("quantile", "smoothing")),
    "squared_hinge": ("SquaredHinge", ()),
    "tweedie": ("Tweedie", ("power",)),
}
SETTINGS = {
    "delta": "of huber, in units of y (default 1.35)",
    "power": "of tweedie, 1 to 2 (default 1.5)",
    "quantile": "of quantile, 0 to 1 (default 0.5)",
    "smoothing": "of quantile, in units of y; needed",
}
PENALTIES = ("l1", "l2", "elasticnet", "nonnegative", "none")


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--problem", choices=tuple(PROBLEMS), default="logistic")
    for name, what in SETTINGS.items():
        parser.add_argument(f"--{name}", type=float, help=what)
    parser.add_argument("--no-intercept", action="store_true", help="fit no intercept")
    parser.add_argument("--standardize", action="store_true", help="penalise columns over their standard deviation")
    parser.add_argument("--penalty", choices=PENALTIES, default="l2")
    parser.add_argument("--alpha", type=float, default=1.0, help="strength against the sum of losses (default 1.0)")
    parser.add_argument("--l1-ratio", type=float, default=0.5, help="for elasticnet (default 0.5)")


def problem(args: argparse.Namespace) -> Any:
    """The problem that the options describe."""
    import paramserver as ps

    name, takes = PROBLEMS[args.problem]
    given = {setting: getattr(args, setting) for setting in SETTINGS if getattr(args, setting) is not None}
    for setting in given:
        if setting not in takes:
            raise InvalidInput(f"--{setting} is {SETTINGS[setting]}: --problem {args.problem} does not take it")
    if "smoothing" in takes and "smoothing" not in given:
        raise InvalidInput("--problem quantile needs --smoothing, in units of y: a tenth of the residuals' spread, say")
    return getattr(ps, name)(**given, fit_intercept=not args.no_intercept, standardize=args.standardize)


def penalty(args: argparse.Namespace) -> Any:
    """The penalty that the options describe."""
    import paramserver as ps

    if args.penalty == "none":
        return ps.NoPenalty()
    if args.penalty == "nonnegative":
        return ps.NonNegative()
    if args.penalty == "elasticnet":
        return ps.ElasticNet(args.alpha, args.l1_ratio)
    return ps.L1(args.alpha) if args.penalty == "l1" else ps.L2(args.alpha)
