"""Sparse logistic regression on 100,000 columns: sweeps, seconds and the server's memory to a certified 1e-8.

    OMP_NUM_THREADS=1 python tests/benchmarks/large.py [rows]

A sweep is a push a chunk; the survey of the data is none. In virtual time with equal workers, and on a LocalCluster
of two one-thread workers, which make their own chunks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
from common import local
from distributed import wait
from scipy.sparse import csr_matrix, vstack

import paramserver as ps

D, NNZ, CHUNKS = 100_000, 40, 16
#: The rule as it is, and with a z from every quarter of the chunks.
L1_FORMS = (("simulated", ps.ActiveNewton()), ("simulated, quarters", ps.ActiveNewton(min_fresh=4)))


def chunk(i: int, rows: int, seed: int = 0) -> tuple[csr_matrix, np.ndarray]:
    """Word-like counts (columns by a power law); 600 of the 2000 commonest columns matter."""
    model, rng = np.random.default_rng(seed), np.random.default_rng((seed, i))
    share = 1.0 / np.arange(1, D + 1) ** 0.8
    columns = np.minimum(np.searchsorted(np.cumsum(share / share.sum()), rng.random((rows, NNZ))), D - 1)
    values = 2.0 / np.sqrt(NNZ) * np.abs(rng.standard_normal((rows, NNZ)))
    X = csr_matrix((values.ravel(), (np.repeat(np.arange(rows), NNZ), columns.ravel())), shape=(rows, D))
    X.sum_duplicates()
    w = np.zeros(D)
    w[model.permutation(2000)[:600]] = 2.5 * model.standard_normal(600)
    return X, (rng.random(rows) < 1 / (1 + np.exp(-(X @ w)))).astype(float)


def peak() -> float:
    """This process's largest resident memory so far, GB (Linux); getrusage would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def said(form: str, penalty: Any, result: ps.Result, sweeps: float, seconds: float, memory: float) -> None:
    """One line of the table."""
    nonzero = int(np.count_nonzero(result.coef_))
    print(
        f"{form:22} {penalty.alpha:8.2f} {nonzero:8} {sweeps:7.1f} {result.gap:9.1e} {seconds:8.1f} {memory:8.2f}",
        flush=True,
    )
    assert result.converged, result


def simulated(X: Any, y: np.ndarray, penalty: Any, forms: Any) -> None:
    """In virtual time; seconds are of one process for all the work."""
    for form, rule in forms:
        began = time.monotonic()
        run = ps.simulate(
            ps.Logistic(), X, y, chunks=CHUNKS, penalty=penalty, consensus=rule,
            network=ps.Network(speeds=(1.0,) * 8), tol=1e-8,
        )  # fmt: skip
        said(form, penalty, run.result, run.pushes_per_chunk - 1, time.monotonic() - began, peak())


def on_cluster(rows: int, penalty: Any) -> None:
    """`launch` as a user calls it: the rule is left open."""
    with local(2) as client:
        made = [dask.delayed(chunk, nout=2)(i, rows // CHUNKS) for i in range(CHUNKS)]
        parts = client.persist([part for both in made for part in both])
        wait(parts)
        run = ps.launch(ps.Logistic(), parts[::2], parts[1::2], penalty=penalty, client=client, tol=1e-8)
        result = run.result()
        peaks = client.run(peak)  # the server is on one of the workers
        said("two workers", penalty, result, result.n_pushes / CHUNKS - 1, result.seconds, max(peaks.values()))
        print("   ", *result.notes)


def main() -> None:
    """Print a table."""
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 500_000
    made = [chunk(i, rows // CHUNKS) for i in range(CHUNKS)]
    X, y = vstack([X for X, _ in made], format="csr"), np.concatenate([y for _, y in made])
    strongest = float(np.abs(X.T @ (y.mean() - y)).max())
    print(f"{'form':22} {'alpha':>8} {'nonzero':>8} {'sweeps':>7} {'gap':>9} {'seconds':>8} {'peak GB':>8}")
    for l1 in (0.02 * strongest, 20.0):
        simulated(X, y, ps.L1(l1), L1_FORMS)
    for l2 in (1.0, 10.0):
        simulated(X, y, ps.L2(l2), (("simulated, L2", "auto"),))
    del X, y, made
    for penalty in (ps.L1(0.02 * strongest), ps.L1(20.0), ps.L2(1.0)):
        on_cluster(rows, penalty)


if __name__ == "__main__":
    main()
