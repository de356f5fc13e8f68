"""Asynchronous consensus optimisation on Dask: a live parameter server with certified answers.

Public names are loaded on first use (PEP 562): ``import paramserver`` imports neither Dask nor
numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paramserver._version import __version__

if TYPE_CHECKING:
    from paramserver import cluster, datasets, errors, testing
    from paramserver.cluster.check import check
    from paramserver.comparison import Comparison, compare
    from paramserver.consensus import (
        ADMM,
        APH,
        EASGD,
        LBFGS,
        ActiveNewton,
        AggregatedNewton,
        AsyncSGD,
        Consensus,
        FedAvg,
        ProgressiveHedging,
        ProxGradient,
    )
    from paramserver.launching import connect, fit, forget, launch, resume
    from paramserver.launching import list_runs as list
    from paramserver.paths import Path, path
    from paramserver.penalties import L1, L2, Box, ElasticNet, GroupL1, NonNegative, NoPenalty, Penalty
    from paramserver.profile import Profile
    from paramserver.run import Run, as_completed
    from paramserver.simulator import Network, simulate
    from paramserver.summary import Summary
    from paramserver.views import Params, Result, Status
    from paramserver.workers.problems import (
        Gamma,
        Huber,
        LeastSquares,
        Logistic,
        Multinomial,
        Poisson,
        Problem,
        Proximal,
        Quantile,
        Scenario,
        Smooth,
        SquaredHinge,
        StochasticProgram,
        Tweedie,
    )

_HOME = {
    "ADMM": "paramserver.consensus",
    "APH": "paramserver.consensus",
    "ActiveNewton": "paramserver.consensus",
    "AggregatedNewton": "paramserver.consensus",
    "AsyncSGD": "paramserver.consensus",
    "Box": "paramserver.penalties",
    "Comparison": "paramserver.comparison",
    "Consensus": "paramserver.consensus",
    "EASGD": "paramserver.consensus",
    "ElasticNet": "paramserver.penalties",
    "FedAvg": "paramserver.consensus",
    "Gamma": "paramserver.workers.problems",
    "GroupL1": "paramserver.penalties",
    "Huber": "paramserver.workers.problems",
    "L1": "paramserver.penalties",
    "L2": "paramserver.penalties",
    "LBFGS": "paramserver.consensus",
    "LeastSquares": "paramserver.workers.problems",
    "Logistic": "paramserver.workers.problems",
    "Multinomial": "paramserver.workers.problems",
    "Network": "paramserver.simulator",
    "NoPenalty": "paramserver.penalties",
    "NonNegative": "paramserver.penalties",
    "Params": "paramserver.views",
    "Path": "paramserver.paths",
    "Penalty": "paramserver.penalties",
    "Poisson": "paramserver.workers.problems",
    "Problem": "paramserver.workers.problems",
    "Profile": "paramserver.profile",
    "ProgressiveHedging": "paramserver.consensus",
    "ProxGradient": "paramserver.consensus",
    "Proximal": "paramserver.workers.problems",
    "Quantile": "paramserver.workers.problems",
    "Result": "paramserver.views",
    "Run": "paramserver.run",
    "Scenario": "paramserver.workers.problems",
    "Smooth": "paramserver.workers.problems",
    "SquaredHinge": "paramserver.workers.problems",
    "Status": "paramserver.views",
    "StochasticProgram": "paramserver.workers.problems",
    "Summary": "paramserver.summary",
    "Tweedie": "paramserver.workers.problems",
    "as_completed": "paramserver.run",
    "check": "paramserver.cluster.check",
    "compare": "paramserver.comparison",
    "connect": "paramserver.launching",
    "fit": "paramserver.launching",
    "forget": "paramserver.launching",
    "launch": "paramserver.launching",
    "list": "paramserver.launching:list_runs",
    "path": "paramserver.paths",
    "resume": "paramserver.launching",
    "simulate": "paramserver.simulator",
}
_MODULES = ("cluster", "datasets", "errors", "testing")

__all__ = [
    "ADMM",
    "APH",
    "ActiveNewton",
    "AggregatedNewton",
    "AsyncSGD",
    "Box",
    "Comparison",
    "Consensus",
    "EASGD",
    "ElasticNet",
    "FedAvg",
    "Gamma",
    "GroupL1",
    "Huber",
    "L1",
    "L2",
    "LBFGS",
    "LeastSquares",
    "Logistic",
    "Multinomial",
    "Network",
    "NoPenalty",
    "NonNegative",
    "Params",
    "Path",
    "Penalty",
    "Poisson",
    "Problem",
    "Profile",
    "ProgressiveHedging",
    "ProxGradient",
    "Proximal",
    "Quantile",
    "Result",
    "Run",
    "Scenario",
    "Smooth",
    "SquaredHinge",
    "Status",
    "StochasticProgram",
    "Summary",
    "Tweedie",
    "__version__",
    "as_completed",
    "check",
    "cluster",
    "compare",
    "connect",
    "datasets",
    "errors",
    "fit",
    "forget",
    "launch",
    "list",
    "path",
    "resume",
    "simulate",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"paramserver.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'paramserver' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> Any:
    return __all__
