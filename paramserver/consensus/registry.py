"""Rules by name: those that ship, and what other packages bring.

A package registers its rules as entry points, a class of `Consensus` by its name::

    [project.entry-points."paramserver.consensus"]
    mine = "my_package.rules:MyRule"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from paramserver.consensus.active import ActiveNewton
from paramserver.consensus.admm import ADMM
from paramserver.consensus.aph import APH
from paramserver.consensus.auto import Auto
from paramserver.consensus.base import Consensus
from paramserver.consensus.easgd import EASGD
from paramserver.consensus.fedavg import FedAvg
from paramserver.consensus.lbfgs import LBFGS
from paramserver.consensus.newton import AggregatedNewton
from paramserver.consensus.progressive_hedging import ProgressiveHedging
from paramserver.consensus.prox_gradient import ProxGradient
from paramserver.consensus.sgd import AsyncSGD
from paramserver.errors import InvalidInput

GROUP = "paramserver.consensus"
RULES: dict[str, type[Consensus]] = {
    "auto": Auto, "newton": AggregatedNewton, "active": ActiveNewton, "lbfgs": LBFGS, "admm": ADMM,
    "prox_gradient": ProxGradient, "sgd": AsyncSGD, "easgd": EASGD, "fedavg": FedAvg,
    "progressive_hedging": ProgressiveHedging, "aph": APH,
}  # fmt: skip


def named(consensus: str | Consensus) -> Consensus:
    """A rule by its name, or as it is.

    Raises
    ------
    InvalidInput
        There is none of that name, or what is installed under it is no rule.
    """
    if isinstance(consensus, Consensus):
        return consensus
    if isinstance(consensus, str) and consensus in KNOWN:
        return KNOWN[consensus]()
    raise InvalidInput(f"consensus must be one of {names()} or a Consensus object, got {consensus!r}")


def names() -> list[str]:
    """Every name there is a rule of, sorted."""
    return sorted(RULES.keys() | _others().keys())


def of_class(name: str) -> type[Consensus] | None:
    """The rule whose class has this qualified name, if it is one that has a name here."""
    ours = {rule.__qualname__: rule for rule in RULES.values()}
    theirs = next((point.name for point in _others().values() if point.attr == name), None)
    return ours.get(name) or (None if theirs is None else KNOWN[theirs])


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in RULES}


class _Known(Mapping[str, type[Consensus]]):
    """Every rule by its name; those of other packages are imported when they are asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())

    def __getitem__(self, name: str) -> type[Consensus]:
        return RULES[name] if name in RULES else _imported(name, _others()[name])


KNOWN = _Known()


def _imported(name: str, point: EntryPoint) -> type[Consensus]:
    try:
        rule = point.load()
    except Exception as error:  # whatever the other package raises when it is imported
        raise InvalidInput(f"the rule {name!r} ({point.value}) cannot be imported: {error!r}") from error
    if not (isinstance(rule, type) and issubclass(rule, Consensus)):
        raise InvalidInput(f"the entry point {name!r} of {GROUP} must name a class of Consensus, not {rule!r}")
    return rule
