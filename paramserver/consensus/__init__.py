"""Consensus rules, one a file; `base` says what one is."""

from paramserver.consensus.admm import ADMM
from paramserver.consensus.base import Absorbed, Consensus, Exact, Line, Pull, Setup
from paramserver.consensus.newton import AggregatedNewton

__all__ = ["ADMM", "Absorbed", "AggregatedNewton", "Consensus", "Exact", "Line", "Pull", "Setup"]
