"""The data sets: deterministic, made once an invocation, kept as .npy files that every process reads.

Workers import this module: what only the makers need is imported there, so as not to count as a fit's memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import paramserver as ps
from paramserver.workers.design.table import Table

CHUNKS = 16
LARGE = 1_000_000


class Data(NamedTuple):
    """X is an array, a CSR matrix or a `Table` of codes."""

    X: Any
    y: np.ndarray


def logistic(chunk: int, shift: float = 0.0, rows: int = LARGE // CHUNKS, d: int = 100) -> Data:
    """Standard normal columns, 30 of them matter; ``shift`` moves a chunk's columns at random."""
    rng = np.random.default_rng((0, chunk))
    X = rng.standard_normal((rows, d)) + shift * rng.standard_normal(d)
    beta = np.where(np.arange(d) % 10 < 3, -np.random.default_rng(0).random(d), 0.0)
    return Data(X, (rng.random(rows) < 1 / (1 + np.exp(1.0 - X @ beta))).astype(float))


def lasso(chunk: int, rows: int = LARGE // CHUNKS, d: int = 100) -> Data:
    """The article's: uniform coefficients, 10 of them zero, noise of 2."""
    model, rng = np.random.default_rng(1), np.random.default_rng((1, chunk))
    beta = model.random(d)
    beta[model.choice(d, 10, replace=False)] = 0.0
    X = rng.standard_normal((rows, d))
    return Data(X, X @ beta + 2 * rng.standard_normal(rows))


def poisson(chunk: int, rows: int = LARGE // CHUNKS, d: int = 50) -> Data:
    """Counts with a mean of about one half."""
    rng = np.random.default_rng((2, chunk))
    X = rng.standard_normal((rows, d))
    beta = 0.1 * np.random.default_rng(2).standard_normal(d)
    return Data(X, rng.poisson(np.exp(X @ beta - 1.0)).astype(float))


def drifting() -> Data:
    """As `logistic`, each chunk's columns shifted; then sorted by label, so that a chunk has one label only."""
    X, y = _stack([logistic(k, shift=0.2) for k in range(CHUNKS)])
    order = np.argsort(y, kind="stable")
    return Data(X[order], y[order])


def sparse() -> Data:
    """5e5 × 1e5, 40 entries a row."""
    from large import chunk

    return _stack([Data(*chunk(k, 500_000 // CHUNKS)) for k in range(CHUNKS)])


def flights(form: str) -> Data:
    """327,346 flights: dense one-hot, CSR, or numbers and codes; the same columns in each."""
    X, y = ps.datasets.flights(chunks=1, expand=False)
    table = X.tables[0].compute(scheduler="synchronous")
    target = y.compute(scheduler="synchronous").to_numpy(float)
    if form == "codes":
        return Data(table, target)
    csr = expanded(table)
    return Data(csr.toarray() if form == "dense" else csr, target)


def expanded(table: Table) -> sp.csr_matrix:
    """A table's columns as CSR."""
    n = len(table.codes)
    parts = [sp.csr_matrix(np.asarray(table.numeric.X))]
    for codes, levels in zip(table.codes.T, table.levels, strict=True):
        parts.append(sp.csr_matrix((np.ones(n), codes.astype(np.int32), np.arange(n + 1)), (n, int(levels))))
    return sp.hstack(parts, format="csc")[:, table.order].tocsr()


MAKERS: dict[str, Any] = {
    "flights": lambda: flights("dense"),
    "flights-csr": lambda: flights("csr"),
    "flights-codes": lambda: flights("codes"),
    "logistic": lambda: _stack([logistic(k) for k in range(CHUNKS)]),
    "lasso": lambda: _stack([lasso(k) for k in range(CHUNKS)]),
    "poisson": lambda: _stack([poisson(k) for k in range(CHUNKS)]),
    "sparse": sparse,
    "drifting": drifting,
    "tiny": lambda: logistic(0, rows=200, d=5),
}


def _stack(parts: list[Data]) -> Data:
    stack = sp.vstack if sp.issparse(parts[0].X) else np.concatenate
    return Data(stack([part.X for part in parts]), np.concatenate([part.y for part in parts]))


class Store:
    """A data set's folder; pickles as its path, so that workers can read their own parts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder / name

    def make(self) -> None:
        """Make the data unless they are there."""
        if (self.folder / "y.npy").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        X, y = MAKERS[self.name]()
        for key, array in _arrays(X).items():
            np.save(self.folder / f"{key}.npy", array)
        np.save(self.folder / "y.npy", y)  # last: it says that all are there

    def read(self, *, mapped: bool = False) -> Data:
        """All of it, in memory or mapped."""
        arrays = {path.stem: np.load(path, mmap_mode="r" if mapped else None) for path in self.folder.glob("*.npy")}
        return Data(_matrix(arrays), np.array(arrays["y"]))

    def part(self, k: int) -> Data:
        """Chunk k, in memory of its own."""
        X, y = self.read(mapped=True)
        rows = self.rows(k)
        if isinstance(X, Table):
            return Data(Table(X.numeric.X[rows].copy(), X.codes[rows].copy("F"), X.levels, X.order), y[rows])
        return Data(X[rows].copy(), y[rows].copy())

    def rows(self, k: int) -> slice:
        """Those of chunk k."""
        n = len(np.load(self.folder / "y.npy", mmap_mode="r"))
        return slice(n * k // CHUNKS, n * (k + 1) // CHUNKS)

    @property
    def nbytes(self) -> int:
        """What X and y take in memory."""
        return sum(np.load(path, mmap_mode="r").nbytes for path in self.folder.glob("*.npy"))


def part(store: Store, k: int, which: int) -> Any:
    """X or y of a chunk, read by the worker that keeps it."""
    return store.part(k)[which]


def _arrays(X: Any) -> dict[str, np.ndarray]:
    if isinstance(X, Table):
        return {"numeric": X.numeric.X, "codes": X.codes, "levels": X.levels, "order": X.order}
    if sp.issparse(X):
        return {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    return {"X": X}


def _matrix(arrays: dict[str, np.ndarray]) -> Any:
    if "codes" in arrays:
        return Table(arrays["numeric"], arrays["codes"], arrays["levels"], arrays["order"])
    if "data" in arrays:
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return sp.csr_matrix(parts, shape=tuple(int(n) for n in arrays["shape"]))
    return arrays["X"]
