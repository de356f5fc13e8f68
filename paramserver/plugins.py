"""Problems, penalties and rules by their names, for those who write no Python: the command line and job files."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from paramserver.errors import InvalidInput

PROBLEMS = {
    "gamma": "Gamma",
    "huber": "Huber",
    "least_squares": "LeastSquares",
    "logistic": "Logistic",
    "multinomial": "Multinomial",
    "poisson": "Poisson",
    "quantile": "Quantile",
    "squared_hinge": "SquaredHinge",
    "tweedie": "Tweedie",
}
PENALTIES = {
    "box": "Box",
    "elasticnet": "ElasticNet",
    "group_l1": "GroupL1",
    "l1": "L1",
    "l2": "L2",
    "none": "NoPenalty",
    "nonnegative": "NonNegative",
}


class Named(NamedTuple):
    """A plug-in as text says it: ``logistic``, or ``{elasticnet: {alpha: 2, l1_ratio: 0.3}}``."""

    name: str
    settings: dict[str, Any]

    def but(self, name: str | None, settings: dict[str, Any]) -> Named:
        """The same with other settings; of another name, with nothing of this one's."""
        kept = self.settings if name in (None, self.name) else {}
        return Named(name or self.name, {**kept, **settings})


def make(kind: str, named: Named) -> Any:
    """The problem, penalty or consensus rule of that name."""
    known = _classes(kind)
    if named.name not in known:
        raise InvalidInput(
            f"no {kind} {named.name!r}{nearest(named.name, known)}; there are {', '.join(sorted(known))}"
        )
    parameters = {name: p for name, p in inspect.signature(known[named.name]).parameters.items() if name != "self"}
    for setting in named.settings:
        if setting not in parameters:
            has = f"it has {', '.join(parameters)}" if parameters else "it has none"
            raise InvalidInput(f"{named.name} has no setting {setting!r}{nearest(setting, parameters)}; {has}")
    for setting, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and setting not in named.settings:
            raise InvalidInput(f"{named.name} needs the setting {setting!r}")
    try:
        return known[named.name](**named.settings)
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, InvalidInput) else InvalidInput(f"{named.name}: {error}") from None


def first_setting(kind: str, name: str) -> str | None:
    """The setting that a bare value is for: alpha, in ``{l1: 3.0}``."""
    made = _classes(kind).get(name)
    return next(iter(inspect.signature(made).parameters), None) if made is not None else None


def nearest(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'tol'?`` or nothing: for the middle of a message."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _classes(kind: str) -> Mapping[str, Any]:
    import paramserver as ps
    from paramserver.consensus.registry import KNOWN

    if kind == "consensus":
        return KNOWN
    return {name: getattr(ps, made) for name, made in (PROBLEMS if kind == "problem" else PENALTIES).items()}
