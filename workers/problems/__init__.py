"""Local problems; `base` says what one is."""

from paramserver.workers.problems.base import CAPABILITIES, Evaluation, Problem, Start, require
from paramserver.workers.problems.huber import Huber
from paramserver.workers.problems.least_squares import LeastSquares
from paramserver.workers.problems.logistic import Logistic
from paramserver.workers.problems.multinomial import Multinomial
from paramserver.workers.problems.proximal import Proximal
from paramserver.workers.problems.quantile import Quantile
from paramserver.workers.problems.smooth import Smooth
from paramserver.workers.problems.squared_hinge import SquaredHinge
from paramserver.workers.problems.stochastic import Scenario, StochasticProgram
from paramserver.workers.problems.tweedie import Gamma, Poisson, Tweedie

__all__ = [
    "CAPABILITIES",
    "Evaluation",
    "Gamma",
    "Huber",
    "LeastSquares",
    "Logistic",
    "Multinomial",
    "Poisson",
    "Problem",
    "Proximal",
    "Quantile",
    "Scenario",
    "Smooth",
    "SquaredHinge",
    "Start",
    "StochasticProgram",
    "Tweedie",
    "require",
]
