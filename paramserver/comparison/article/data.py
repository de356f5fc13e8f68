"""The article's toy data, of which only what least squares needs is kept: each chunk's Gram matrix.

Rocklin & White (2017), "Asynchronous Optimization Algorithms with Dask": X (n, k) standard normal in
1000 chunks, coefficients uniform in [0, 1), ten draws of which are set to zero, y = Xβ + 2·normal noise.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array

ROWS, COLUMNS, CHUNKS = 50_000_000, 100, 1000
ZEROS, NOISE = 10, 2.0

Say = Callable[[str], None]


class Grams(NamedTuple):
    """Of N chunks: XᵀX (N, k, k), Xᵀy (N, k) and yᵀy (N,); ``rows`` of all together."""

    gram: Array
    product: Array
    square: Array
    rows: int

    @property
    def n_chunks(self) -> int:
        return len(self.square)

    @property
    def columns(self) -> int:
        return int(self.product.shape[1])


def generate(rows: int, columns: int, n_chunks: int, seed: int, say: Say) -> Grams:
    """Every chunk in turn, on all cores: a chunk's numbers are float32, what is summed up is float64."""
    per_chunk = rows // n_chunks
    if per_chunk <= columns:
        raise InvalidInput(
            f"{rows} rows leave {per_chunk} a chunk, which must be more than its {columns} columns: "
            f"pass at least {n_chunks * (columns + 1)}"
        )
    source = np.random.default_rng(seed)
    beta = source.random(columns)
    beta[source.choice(columns, size=ZEROS)] = 0.0
    seeds = np.random.SeedSequence(seed).spawn(n_chunks)
    out = Grams(np.empty((n_chunks, columns, columns)), np.empty((n_chunks, columns)), np.empty(n_chunks), rows)

    def fill(i: int) -> None:
        out.gram[i], out.product[i], out.square[i] = _chunk(np.random.default_rng(seeds[i]), per_chunk, beta)

    with ThreadPoolExecutor(_cores()) as pool:  # numpy's generators and products release the interpreter's lock
        for i, _ in enumerate(pool.map(fill, range(n_chunks)), 1):
            if i % max(n_chunks // 5, 1) == 0:
                say(f"{i} of {n_chunks} chunks made")
    return out._replace(rows=per_chunk * n_chunks)


def _chunk(source: np.random.Generator, rows: int, beta: Array) -> tuple[Array, Array, float]:
    X = source.standard_normal((rows, len(beta)), dtype=np.float32).astype(np.float64)
    y = X @ beta + NOISE * source.standard_normal(rows)
    return X.T @ X, X.T @ y, float(y @ y)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cached(file: str, rows: int, columns: int, n_chunks: int, seed: int, say: Say) -> Grams:
    """`generate`, or what it made before and left in this file."""
    path = Path(file)
    wanted = np.array([rows // n_chunks * n_chunks, columns, n_chunks, seed])
    if path.exists():
        return _read(path, wanted)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as out:  # before anything takes long; np.savez on a name would append .npz
            made = generate(rows, columns, n_chunks, seed, say)
            np.savez(out, wanted=wanted, gram=made.gram, product=made.product, square=made.square)
        part.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error}): name a file that can") from None
    return made


def _read(path: Path, wanted: Array) -> Grams:
    try:
        with np.load(path) as found:
            made, gram, product, square = (found[name] for name in ("wanted", "gram", "product", "square"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path} is no cache of the article's data ({error}): name another file") from None
    if not np.array_equal(made, wanted):
        names = "rows, columns, chunks and seed"
        raise InvalidInput(f"{path} has other {names}, {made.tolist()}, than {wanted.tolist()}: name another file")
    return Grams(gram, product, square, int(wanted[0]))
