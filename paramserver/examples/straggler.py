"""A rule against those that ship, in virtual time: eight workers, one of them ten times slower, one that dies."""

from typing import Any

import numpy as np

import paramserver as ps

NETWORK = ps.Network(speeds=(1, 1, 1, 1, 1, 1, 1, 10), deaths=[(0, 20.0, 60.0)])


def data(rows: int = 40_000, columns: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns, of which five matter, and labels."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns)) + rng.standard_normal((rows, 1))
    return X, (X[:, :5] @ [1.0, -1.0, 0.5, -0.5, 0.2] + rng.logistic(size=rows) > 0).astype(float)


def race(*rules: Any) -> None:
    """Print where each ends: time in passes over a chunk, pushes and Hessians a chunk, and the proven gap."""
    X, y = data()
    print(f"{'rule':16}{'time':>8}{'pushes':>8}{'Hessians':>10}{'gap':>10}")
    for rule in (*rules, ps.AggregatedNewton(), ps.ADMM()):
        run = ps.simulate(ps.Logistic(), X, y, chunks=32, penalty=ps.L1(5.0), consensus=rule, network=NETWORK)
        each = f"{run.time:8.0f}{run.pushes_per_chunk:8.1f}{run.hessians / 32:10.1f}{run.result.gap:10.0e}"
        print(f"{type(rule).__name__:16}{each}")


if __name__ == "__main__":
    race()
