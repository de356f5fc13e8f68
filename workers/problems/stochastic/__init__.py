"""Stochastic programs: scenarios, the tree they are the paths of, and the local problem that solves them."""

from paramserver.workers.problems.stochastic.problem import StochasticProgram
from paramserver.workers.problems.stochastic.scenario import Scenario

__all__ = ["Scenario", "StochasticProgram"]
