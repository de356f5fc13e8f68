"""One pass over one chunk, on one thread: milliseconds, and how many times what plain numpy or scipy takes.

    python tests/benchmarks/kernels.py

The plain products are, from data of the chunk's own dtype: Xw and Xᵀv for the gradient and the dual, XᵀX for the
Hessian, Xw for margins and twice that for Fenchel terms, and each column's min and max. They know of no losses.
tabmat comes with the extra ``peers``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common  # before numpy: BLAS gets one thread
import dask
import numpy as np
import scipy.sparse as sp

import paramserver as ps
from paramserver.workers.design import Table
from paramserver.workers.problems.passes import Data, Passes

ROUNDS = 12
CHUNKS = 16


class Case(NamedTuple):
    """Four chunks, so that none waits in the cache, and each X as numpy or scipy has it."""

    name: str
    problem: Passes
    data: list[Data]
    plain: list[Any]


def synthetic(name: str, problem: Passes, d: int, dtype: str = "float64") -> Case:
    """A sixteenth of 1e6 rows."""
    rng, n = np.random.default_rng(0), 1_000_000 // CHUNKS
    plain = [rng.standard_normal((n, d)).astype(dtype) for _ in range(4)]
    return Case(name, problem, [problem.prepare(X, (rng.random(n) < 0.5).astype(float)) for X in plain], plain)


def flights(kind: str) -> Case:
    """The first quarter of the flights' chunks."""
    X, y = ps.datasets.flights(CHUNKS, expand=False)
    tables = dask.compute(*X.tables[:4], scheduler="sync")
    targets = dask.compute(*y.to_delayed()[:4], scheduler="sync")
    matrices = [expanded(table) for table in tables]
    plain = [X.toarray() for X in matrices] if kind == "dense" else matrices
    given = tables if kind == "codes" else plain
    data = [ps.Logistic().prepare(X, y) for X, y in zip(given, targets, strict=True)]
    return Case(f"flights, {kind}", ps.Logistic(), data, plain)


def expanded(table: Table) -> Any:
    """The same matrix in CSR."""
    ones = [sp.csr_array(np.eye(levels))[codes] for levels, codes in columns(table)]
    return sp.csr_array(sp.hstack([table.numeric.X, *ones]).tocsc()[:, table.order])


def columns(table: Table) -> list[tuple[int, np.ndarray]]:
    """(levels, codes) of each categorical column."""
    return [(int(levels), codes) for levels, codes in zip(table.levels, table.codes.T, strict=True)]


def cases() -> Iterator[Case]:
    """Each kind of data."""
    yield synthetic("logistic 62,500 × 100", ps.Logistic(), 100)
    yield synthetic("the same in float32", ps.Logistic(), 100, "float32")
    yield synthetic("least squares 62,500 × 100", ps.LeastSquares(), 100)
    yield synthetic("Poisson 62,500 × 50", ps.Poisson(), 50)
    for kind in ("dense", "CSR", "codes"):
        yield flights(kind)


def questions(case: Case) -> Iterator[tuple[str, Callable[[int], Any], Callable[[int], Any]]]:
    """(name, ours, the limit) for chunk k."""
    f, data, plain = case.problem, case.data, case.plain
    rng = np.random.default_rng(1)
    z = 0.05 * rng.standard_normal(data[0].X.shape[1] + 1)
    step, w, v = 0.1 * z, z[:-1].astype(plain[0].dtype), rng.random(data[0].rows).astype(plain[0].dtype)
    curvature = [f.evaluate(chunk, z).curvature for chunk in data]

    def both(k: int) -> Any:
        return plain[k] @ w, plain[k].T @ v[: plain[k].shape[0]]

    def gram(k: int) -> Any:
        return plain[k].T @ plain[k]

    yield "gradient", lambda k: f.evaluate(data[k], z), both
    yield "Hessian", lambda k: f.hessian(data[k], curvature[k]), gram
    yield "both", lambda k: f.hessian(data[k], f.evaluate(data[k], z).curvature), lambda k: (both(k), gram(k))
    yield "margins", lambda k: f.margins(data[k], z), lambda k: plain[k] @ w
    yield "dual", lambda k: f.dual(data[k], z, step), both
    yield "fenchel", lambda k: f.fenchel(data[k], z, step), lambda k: (plain[k] @ w, plain[k] @ w)
    yield "extent", lambda k: data[k].X.extent(), lambda k: (plain[k].min(axis=0), plain[k].max(axis=0))


def seconds(*calls: Callable[[int], Any]) -> list[float]:
    """The median of each, in turn over the chunks; processor time, which depends less on what else runs."""
    taken = [[_timed(call, r % 4) for call in calls] for r in range(ROUNDS)]
    return [common.median(list(column)) for column in zip(*taken, strict=True)]


def _timed(call: Callable[[int], Any], k: int) -> float:
    start = time.process_time()
    call(k)
    return time.process_time() - start


def sandwiches() -> None:
    """XᵀDX by tabmat, beside ours."""
    import pandas as pd
    import tabmat

    codes, csr = flights("codes"), flights("CSR")
    weight = np.random.default_rng(2).random(max(data.rows for data in codes.data))
    pairs: dict[str, tuple[Case, list[Any]]] = {"codes": (codes, []), "CSR": (csr, [])}
    for data, X in zip(codes.data, csr.plain, strict=True):
        table: Any = data.X
        ones = [tabmat.CategoricalMatrix(pd.Categorical.from_codes(c, range(levels))) for levels, c in columns(table)]
        pairs["codes"][1].append(tabmat.SplitMatrix([tabmat.DenseMatrix(table.numeric.X), *ones]))
        pairs["CSR"][1].append(tabmat.SparseMatrix(sp.csc_matrix(X)))
    for kind, (case, theirs) in pairs.items():
        data = case.data
        ours, other = seconds(
            lambda k: data[k].X.gram(weight[: data[k].rows]),  # noqa: B023
            lambda k: theirs[k].sandwich(weight[: data[k].rows]),  # noqa: B023
        )
        print(f"flights, {kind}: XᵀDX {1e3 * ours:.2f} ms, tabmat {1e3 * other:.2f} ms, ratio {ours / other:.2f}")


def main() -> None:
    """A line a case: ms (ratio to the plain products)."""
    for number, case in enumerate(cases()):
        asked = list(questions(case))
        if not number:
            print(" " * 25 + "".join(f"{name:>16}" for name, _, _ in asked))
        pairs = [seconds(ours, limit) for _, ours, limit in asked]
        print(f"{case.name:25}" + "".join(f"{1e3 * a:8.2f} ({a / b:5.2f})" for a, b in pairs), flush=True)
    sandwiches()


if __name__ == "__main__":
    main()
