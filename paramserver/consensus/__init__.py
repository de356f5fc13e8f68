"""Consensus rules, one a file; `base` says what one is."""

from paramserver.consensus.active import ActiveNewton
from paramserver.consensus.admm import ADMM
from paramserver.consensus.auto import Auto
from paramserver.consensus.base import Absorbed, Consensus, Exact, Line, Pull, Setup
from paramserver.consensus.lbfgs import LBFGS
from paramserver.consensus.newton import AggregatedNewton
from paramserver.errors import InvalidInput

__all__ = [
    "ADMM",
    "LBFGS",
    "Absorbed",
    "ActiveNewton",
    "AggregatedNewton",
    "Auto",
    "Consensus",
    "Exact",
    "Line",
    "Pull",
    "Setup",
    "named",
]

RULES: dict[str, type[Consensus]] = {
    "auto": Auto, "newton": AggregatedNewton, "active": ActiveNewton, "lbfgs": LBFGS, "admm": ADMM,
}  # fmt: skip


def named(consensus: str | Consensus) -> Consensus:
    """A rule by its name, or as it is."""
    if isinstance(consensus, Consensus):
        return consensus
    if isinstance(consensus, str) and consensus in RULES:
        return RULES[consensus]()
    raise InvalidInput(f"consensus must be one of {sorted(RULES)} or a Consensus object, got {consensus!r}")
