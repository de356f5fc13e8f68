"""Every peer by its name."""

from __future__ import annotations

from . import single, specialists
from .base import Peer
from .ours import Limit, Ours

OURS, LIMIT = "paramserver", "the limit"

PEERS: dict[str, type[Peer]] = {
    OURS: Ours,
    LIMIT: Limit,
    "scikit-learn lbfgs": single.Lbfgs,
    "scikit-learn newton-cholesky": single.NewtonCholesky,
    "scikit-learn saga": single.Saga,
    "scikit-learn liblinear": single.Liblinear,
    "scikit-learn lasso": single.Lasso,
    "glum": specialists.Glum,
    "skglm": specialists.Skglm,
    "celer": specialists.Celer,
    "snapml": specialists.Snapml,
}
