"""Our rules on the article's chunks, in the simulator.

A chunk's Gram matrix of (X, y) has a triangular factor; its rows, the last of them a row of zeros whose
y is what least squares leaves, are k + 1 observations with the same loss at every x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paramserver.comparison.article.data import Grams
from paramserver.comparison.article.variants import CORES, LAMBDA
from paramserver.consensus import ADMM, AggregatedNewton, Consensus
from paramserver.messages import Array
from paramserver.penalties import L1, Bound
from paramserver.quadratic import minimise
from paramserver.simulator import Network, simulate
from paramserver.trace import Trace
from paramserver.workers.problems import LeastSquares

TOL = 1e-12


def rules(n_chunks: int) -> dict[str, Consensus]:
    """ADMM with a barrier: a z after each of so many alike chunks costs the server more than it is worth."""
    return {"AggregatedNewton": AggregatedNewton(), "ADMM(hessian), barrier": ADMM(min_fresh=n_chunks)}


class Course(NamedTuple):
    """‖z − z*‖∞ after so many tasks, of any kind."""

    tasks: Array
    error: Array

    def until(self, error: float) -> int | None:
        """Tasks until it came under this, and stayed."""
        above = np.flatnonzero(~(self.error <= error))
        k = int(above[-1]) + 1 if len(above) else 0
        return int(self.tasks[k]) if k < len(self.error) else None

    def at(self, tasks: int) -> float:
        """The error after so many."""
        k = int(np.searchsorted(self.tasks, tasks, side="right")) - 1
        return float(self.error[max(k, 0)])


def optimum(grams: Grams, lam: float = LAMBDA) -> Array:
    """z*: argmin Σ‖y_i − X_i z‖² + λ‖z‖₁."""
    k = grams.columns
    whole = Bound(L1(lam), np.ones(k, bool))
    return minimise(2.0 * grams.gram.sum(axis=0), 2.0 * grams.product.sum(axis=0), whole, np.zeros(k), np.zeros(k))


def observations(grams: Grams) -> tuple[Array, Array]:
    """(X (N·(k+1), k), y): every chunk's k + 1 rows."""
    n, k = grams.product.shape
    whole = np.empty((n, k + 1, k + 1))
    whole[:, :k, :k], whole[:, k, k] = grams.gram, grams.square
    whole[:, :k, k] = whole[:, k, :k] = grams.product
    rows = np.linalg.cholesky(whole).transpose(0, 2, 1).reshape(n * (k + 1), k + 1)
    return rows[:, :k].copy(), rows[:, k].copy()


def course(rule: Consensus, grams: Grams, best: Array) -> Course:
    """One rule's, on as many workers as the article's variants have cores. Both sides halve the objective."""
    X, y = observations(grams)
    found = simulate(
        LeastSquares(fit_intercept=False), X, y, chunks=grams.n_chunks, penalty=L1(0.5 * LAMBDA), consensus=rule,
        network=Network(speeds=(1.0,) * CORES), tol=TOL, trace=True,
    )  # fmt: skip
    trace: Trace | None = found.result.trace
    assert trace is not None
    # Neither intercept nor `standardize`: these z are in the data's own units.
    return Course(trace.pushes, np.abs(trace.z - best).max(axis=1))
