"""Consensus rules, one a file; `base` says what one is, `registry` finds them by name."""

from paramserver.consensus.active import ActiveNewton
from paramserver.consensus.admm import ADMM
from paramserver.consensus.aph import APH
from paramserver.consensus.auto import Auto
from paramserver.consensus.base import Absorbed, Consensus, Exact, Line, Pull, Setup
from paramserver.consensus.easgd import EASGD
from paramserver.consensus.fedavg import FedAvg
from paramserver.consensus.lbfgs import LBFGS
from paramserver.consensus.newton import AggregatedNewton
from paramserver.consensus.progressive_hedging import ProgressiveHedging
from paramserver.consensus.prox_gradient import ProxGradient
from paramserver.consensus.registry import RULES, named, names, of_class
from paramserver.consensus.sgd import AsyncSGD

__all__ = [
    "ADMM",
    "APH",
    "EASGD",
    "LBFGS",
    "RULES",
    "Absorbed",
    "ActiveNewton",
    "AggregatedNewton",
    "AsyncSGD",
    "Auto",
    "Consensus",
    "Exact",
    "FedAvg",
    "Line",
    "ProgressiveHedging",
    "ProxGradient",
    "Pull",
    "Setup",
    "named",
    "names",
    "of_class",
]
