"""`experiment`: the article's toy data, its three variants, and ours beside them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from paramserver.comparison.article.data import CHUNKS, COLUMNS, ROWS, Grams, Say, cached, generate
from paramserver.comparison.article.ours import course, optimum, rules
from paramserver.comparison.article.report import SWEEPS as SWEPT
from paramserver.comparison.article.report import Article, Published
from paramserver.comparison.article.variants import LAMBDA, RHO, Local, Mark, asynchronous, synchronous
from paramserver.errors import InvalidInput
from paramserver.messages import Array

SEEDS = 20
SWEEPS = 10  #: of the chunks, for all variants
POINTS = 20  #: of the curves, a sweep


def experiment(
    rows: int = ROWS,
    seeds: int = SEEDS,
    cache: str | None = None,
    *,
    columns: int = COLUMNS,
    n_chunks: int = CHUNKS,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Article:
    """The 2017 article's experiment (Rocklin & White, "Asynchronous Optimization Algorithms with Dask").

    Data and constants are the article's, X is streamed and only Gram matrices are kept; its cluster is a virtual one
    of eight cores whose tasks take equal times but for a fifth.

    Parameters
    ----------
    rows, columns, n_chunks : int
        Of all chunks together; more than columns a chunk.
    seeds : int
        Schedules of the asynchronous variants; medians and bands are over these.
    cache : str
        A file to keep the Gram matrices in (80 MB at full size), and to use them from.
    seed : int
        Of the data.
    say : callable of str
        Told what is under way.

    Raises
    ------
    InvalidInput
        Too few rows, or a cache of something else.
    """
    for name, value in {"rows": rows, "seeds": seeds, "columns": columns, "n_chunks": n_chunks}.items():
        if not (isinstance(value, (int, np.integer)) and value >= 1):
            raise InvalidInput(f"{name} must be a whole number ≥ 1, got {value!r}")
    began = time.monotonic()
    size = (rows, columns, n_chunks, seed, say)
    grams = generate(*size) if cache is None else cached(cache, *size)
    best, local = optimum(grams), Local(grams)
    published = {"synchronous": Published([synchronous(local, best, SWEEPS)])}
    for name, batched in (("asynchronous", False), ("batched", True)):
        say(f"the {name} variant, {seeds} schedules")
        published[name] = Published([_schedule(local, best, turn, batched) for turn in range(seeds)])
    courses = {}
    for label, rule in rules(grams.n_chunks).items():
        say(label)
        courses[label] = course(rule, grams, best)
    return Article(_what(grams, best), grams.n_chunks, seeds, published, courses, time.monotonic() - began)


def _schedule(local: Local, best: Array, seed: int, batched: bool) -> list[Mark]:
    n = len(local.twice)
    marks = {round(n * k / POINTS) for k in range(1, SWEEPS * POINTS + 1)} | {n * k for k in SWEPT}
    return asynchronous(local, best, marks - {0}, seed, batched)


def _what(grams: Grams, best: Array) -> dict[str, Any]:
    return {
        "rows": grams.rows, "columns": grams.columns, "chunks": grams.n_chunks, "lambda": LAMBDA,
        "rho": RHO, "zeros_at_the_optimum": int(np.count_nonzero(best == 0.0)),
    }  # fmt: skip
