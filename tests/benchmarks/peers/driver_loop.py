"""The 2017 article's driver loop: asynchronous ADMM whose client holds z and applies each result as it comes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
from distributed import Client, as_completed
from scipy.optimize import fmin_l_bfgs_b

from .base import Point, Watch, grid
from .cases import Case, Setting
from .data import Store
from .objective import Array, Objective
from .ours import OnCluster

IN_FLIGHT = 4  #: two tasks a core, as in the article


class DriverLoop(OnCluster):
    """Random chunks, two tasks a core in flight; every z counts."""

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("rho", 1.0, 100.0, 3000.0)

    def load(self, case: Case, store: Store) -> None:
        super().load(case, store)
        self.p = len(Objective(case, *store.read(mapped=True)).null())
        self.fit(0.1, rho=1.0)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        drive(self.client, self.case, (self.X, self.y), self.p, watch, **options)
        return watch.points


def drive(client: Client, case: Case, chunks: Any, p: int, watch: Watch, rho: float) -> None:
    """Until the limit is over."""
    X, y = chunks
    n, z, count, turn = len(X), np.zeros(p), 0, random.Random(0)
    x, u, at = np.zeros((n, p)), np.zeros((n, p)), {}

    def submit(k: int) -> Any:
        future = client.submit(local_step, case, X[k], y[k], x[k], z, u[k], rho, pure=False)
        at[future.key] = k
        return future

    pool = as_completed([submit(turn.randrange(n)) for _ in range(IN_FLIGHT)], with_results=True)
    for future, answer in pool:
        k = at.pop(future.key)
        x[k], count = answer, count + 1
        share = min(1.0, (count + 1) / n)
        z = prox(case, (x + u).mean(axis=0) / share, 1.0 / (rho * n))
        watch.point(z)
        if watch.over:
            break
        k = turn.randrange(n)
        u[k] += x[k] - z
        pool.add(submit(k))
    for _ in pool:  # those still in flight must not disturb what comes next
        pass


def local_step(case: Case, X: Any, y: Array, x: Array, z: Array, u: Array, rho: float) -> Array:
    """argmin of the chunk's loss and ρ/2‖x − z + u‖², from x on."""
    chunk = Objective(replace(case, l1=0.0, l2=0.0), X, y)

    def both(v: Array) -> tuple[float, Array]:
        far = v - z + u
        return chunk.value(v) + rho / 2 * far @ far, chunk.gradient(v) + rho * far

    return fmin_l_bfgs_b(both, x, maxiter=200, maxfun=250)[0]


def prox(case: Case, v: Array, step: float) -> Array:
    """Of the penalty; the intercept is free."""
    on = np.ones(len(v))
    on[len(on) - case.intercept :] = 0.0
    return np.sign(v) * np.maximum(np.abs(v) - case.l1 * step * on, 0.0) / (1.0 + case.l2 * step * on)
