"""Sparse logistic regression on 100,000 columns with an L1 term, in turn with skglm on the same data.

    OMP_NUM_THREADS=1 python tests/benchmarks/columns.py [rounds [l1 ...]]

paramserver: a LocalCluster of two one-thread workers that hold the chunks as CSR; from `launch` to the result. skglm:
one process, from CSR to the solution, its change to CSC included, compiled beforehand; at the largest of its tolerances
that brings the gap below what was asked. Gaps are relative to F of the null model; F* is paramserver's at 1e-10.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import dask
import numpy as np
from common import local, median
from distributed import wait
from large import CHUNKS, chunk
from scipy.sparse import csr_matrix, vstack
from skglm.datafits import Logistic
from skglm.penalties import L1
from skglm.solvers import ProxNewton

import paramserver as ps

ROWS = 500_000
TOLERANCES = (1e-4, 1e-6, 1e-8)  #: skglm's own


def ours(client: Any, parts: list[Any], l1: float, tol: float) -> tuple[float, ps.Result]:
    """Seconds, and the result."""
    began = time.perf_counter()
    result = ps.launch(ps.Logistic(), parts[::2], parts[1::2], penalty=ps.L1(l1), client=client, tol=tol).result()
    return time.perf_counter() - began, result


def theirs(X: csr_matrix, y: np.ndarray, l1: float, tol: float) -> tuple[float, float]:
    """Seconds, and F."""
    began = time.perf_counter()
    w, *_ = ProxNewton(tol=tol, fit_intercept=True).solve(X.tocsc(), 2 * y - 1, Logistic(), L1(l1 / len(y)))
    seconds = time.perf_counter() - began
    margins = X @ w[:-1] + w[-1]
    return seconds, float((np.logaddexp(0.0, margins) - y * margins).sum() + l1 * np.abs(w[:-1]).sum())


def compare(client: Any, parts: list[Any], X: csr_matrix, y: np.ndarray, l1: float, rounds: int) -> None:
    """The table's lines for one penalty."""
    best = ours(client, parts, l1, 1e-10)[1].objective
    for tol in (1e-6, 1e-8):
        line(client, parts, X, y, l1, tol, best, rounds)


def line(
    client: Any, parts: list[Any], X: csr_matrix, y: np.ndarray, l1: float, tol: float, best: float, rounds: int
) -> None:
    """One line of the table."""
    null = -len(y) * float(sum(p * np.log(p) for p in (y.mean(), 1 - y.mean())))
    peer = next(each for each in TOLERANCES if theirs(X, y, l1, each)[1] - best <= tol * null)
    runs = [(ours(client, parts, l1, tol), theirs(X, y, l1, peer)) for _ in range(rounds)]
    a, b = median([us[0] for us, _ in runs]), median([them[0] for _, them in runs])
    (_, result), (_, F) = runs[-1]
    gaps = ((each - best) / null for each in (result.objective, F))
    sweeps = result.n_pushes / CHUNKS - 1
    print(f"{l1:5.0f} {tol:7.0e} {a:8.2f} {b:7.2f} {a / b:6.2f} {sweeps:7.1f} {result.gap:10.1e}", end="")
    print("".join(f" {gap:10.1e}" for gap in gaps), flush=True)


def main() -> None:
    """Print a table."""
    warnings.simplefilter("ignore")  # of skglm's interface
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with local(2) as client:
        made = [dask.delayed(chunk, nout=2)(i, ROWS // CHUNKS) for i in range(CHUNKS)]
        parts = client.persist([part for both in made for part in both])
        wait(parts)
        chunks = client.gather(client.compute(parts))
        X, y = vstack(chunks[::2], format="csr"), np.concatenate(chunks[1::2])
        print(f"{'l1':>5} {'tol':>7} {'seconds':>8} {'skglm':>7} {'ratio':>6} {'sweeps':>7} {'certified':>10}", end="")
        print(f" {'gap':>10} {'skglm gap':>10}")
        theirs(X[:2000], y[:2000], 1.0, 1e-3)  # compiles
        for l1 in map(float, sys.argv[2:] or (20, 62)):
            compare(client, parts, X, y, l1, rounds)


if __name__ == "__main__":
    main()
