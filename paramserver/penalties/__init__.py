"""Regularisers R(w): value, proximal operator, subdifferential; one family a file."""

from __future__ import annotations

from paramserver.penalties.base import Bound, KnownForm, Penalty
from paramserver.penalties.box import Box, NonNegative
from paramserver.penalties.elastic_net import L1, L2, ElasticNet, NoPenalty
from paramserver.penalties.group import GroupL1
from paramserver.penalties.norms import Norms
from paramserver.penalties.terms import Terms

__all__ = [
    "L1", "L2", "Bound", "Box", "ElasticNet", "GroupL1", "KnownForm", "NoPenalty", "NonNegative", "Norms", "Penalty",
    "Terms",
]  # fmt: skip
