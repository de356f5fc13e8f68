"""Rules beside each other, on the same data: see `compare`."""

from paramserver.comparison.comparing import compare
from paramserver.comparison.report import Comparison, Fitted

__all__ = ["Comparison", "Fitted", "compare"]
