"""True gap, certificate, pushes and seconds on 327,346 flights and on synthetic least squares.

    python tests/benchmarks/accuracy.py

The optimum comes from another solver (tests/cluster/helpers.py: proximal Newton in numpy, F in extended precision).
Variants: as they are (file order: nearly time order), columns times 10^±6, chunks sorted by label.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import local, on_cluster

import paramserver as ps

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cluster.helpers import Reference, reference

PENALTIES = (ps.L2(1.0), ps.L1(10.0), ps.ElasticNet(10.0, 0.5))
RULES = (("newton", 1e-8), ("admm", 1e-6))


def main() -> None:
    """Print a table."""
    head = f"{'data':24} {'penalty':34} {'rule':7} {'true gap':>9} {'certified':>9} {'pushes/chunk':>12} {'seconds':>8}"
    print(head, flush=True)
    frame, target = ps.datasets.flights()
    X, y = frame.compute().to_numpy(), target.compute().to_numpy()
    with local() as client:
        for name, A, b in (("flights", X, y), ("flights, columns ×10^±6", X * _scales(X.shape[1]), y)):
            known: dict[Any, Reference] = {}
            _table(client, ps.Logistic(), name, A, b, known)
            if name == "flights":
                order = np.argsort(b, kind="stable")
                _table(client, ps.Logistic(), "flights, sorted by label", A[order], b[order], known)
        rng = np.random.default_rng(0)
        A = rng.standard_normal((200_000, 100)) + 0.5
        b = A @ rng.standard_normal(100) + 2 * rng.standard_normal(len(A)) + 10
        _table(client, ps.LeastSquares(), "synthetic least squares", A, b, {})


def _scales(d: int) -> np.ndarray:
    return 10.0 ** (6.0 * (np.arange(d) % 3 - 1))


def _table(client: Any, problem: Any, name: str, X: np.ndarray, y: np.ndarray, known: dict[Any, Reference]) -> None:
    Xd, yd = on_cluster(client, X, y, 16)
    for penalty in PENALTIES:
        if penalty not in known:
            known[penalty] = reference(problem, X, y, penalty)
        for rule, tol in RULES:
            began = time.perf_counter()
            result = ps.fit(problem, Xd, yd, penalty=penalty, consensus=rule, tol=tol, client=client, max_seconds=300)
            seconds = time.perf_counter() - began
            each, how = result.n_pushes / result.n_chunks, "" if result.converged else result.reason
            print(
                f"{name:24} {penalty!r:34} {rule:7} {known[penalty].gap(result.z):9.1e} {result.gap:9.1e} "
                f"{each:12.1f} {seconds:8.2f}  {how}",
                flush=True,
            )


if __name__ == "__main__":
    main()
