"""Contract checks for plug-ins: the laws that a penalty, a problem and a consensus rule must keep.

Call them from your own tests, without Dask or a cluster; each raises AssertionError with the law
that failed and its numbers.
"""

from paramserver.testing.penalties import check_penalty
from paramserver.testing.problems import check_problem, null_model
from paramserver.testing.rules import check_consensus

__all__ = ["check_consensus", "check_penalty", "check_problem", "null_model"]
