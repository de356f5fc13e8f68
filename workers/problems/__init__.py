"""Local problems; `base` says what one is."""

from paramserver.workers.problems.base import CAPABILITIES, Evaluation, Problem, Start, require
from paramserver.workers.problems.least_squares import LeastSquares
from paramserver.workers.problems.logistic import Logistic

__all__ = ["CAPABILITIES", "Evaluation", "LeastSquares", "Logistic", "Problem", "Start", "require"]
