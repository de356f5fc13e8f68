"""paramserver on a LocalCluster of two one-thread processes, and the least work that any second-order fit has."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import scipy.sparse as sp
from common import local
from distributed import Client, wait

import paramserver as ps

from .base import Peer, Point, Watch
from .cases import TARGETS, Case, Setting
from .data import CHUNKS, Store, part
from .objective import Objective

PROBLEMS: dict[str, Any] = {"logistic": ps.Logistic, "normal": ps.LeastSquares, "poisson": ps.Poisson}


def spread(client: Client, store: Store, which: int) -> list[Any]:
    """Futures of every chunk's X or y, in turn on each worker."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    homes = [[workers[k % len(workers)]] for k in range(CHUNKS)]
    futures = [client.submit(part, store, k, which, workers=home, pure=False) for k, home in enumerate(homes)]
    wait(futures)
    return futures


class OnCluster(Peer):
    """Whoever works on a LocalCluster whose workers have the data."""

    blas_threads: ClassVar[int] = 1

    def load(self, case: Case, store: Store) -> None:
        self.case, self._open = case, ExitStack()
        self.client = self._open.enter_context(local())
        self.X, self.y = spread(self.client, store, 0), spread(self.client, store, 1)

    def arrays(self, store: Store) -> tuple[Any, Any]:
        """X and y as persisted dask arrays, for data that are arrays."""
        sizes = [store.rows(k).stop - store.rows(k).start for k in range(CHUNKS)]
        d = store.read(mapped=True).X.shape[1]
        X = [da.from_delayed(part, (n, d), float) for part, n in zip(self.X, sizes, strict=True)]
        y = [da.from_delayed(part, (n,), float) for part, n in zip(self.y, sizes, strict=True)]
        pair = self.client.persist([da.concatenate(X), da.concatenate(y)])
        wait(pair)
        return pair[0], pair[1]

    def close(self) -> None:
        self._open.close()


class Ours(OnCluster):
    """`ps.fit` as a user calls it: dask arrays, or lists of chunks where these are no arrays."""

    package = "paramserver"

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return tuple(Setting(f"tol={tol:g}", {"tol": tol}, tol) for tol in TARGETS)

    def load(self, case: Case, store: Store) -> None:
        super().load(case, store)
        if isinstance(store.read(mapped=True).X, np.ndarray):
            self.X, self.y = self.arrays(store)
        self.problem = PROBLEMS[case.loss](fit_intercept=case.intercept)
        self.penalty = ps.L1(case.l1) if not case.l2 else ps.L2(case.l2) if not case.l1 else _net(case)
        rng = np.random.default_rng(0)
        ps.fit(self.problem, rng.random((200, 5)), np.arange(200) % 2.0, penalty=self.penalty, client=self.client)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        result = ps.fit(
            self.problem, self.X, self.y, penalty=self.penalty, client=self.client, max_seconds=limit, **options
        )
        watch.point(result.z)
        return watch.points


def _net(case: Case) -> ps.ElasticNet:
    return ps.ElasticNet(case.alpha, case.l1_ratio)


class Limit(OnCluster):
    """One Hessian pass and two gradient passes in numpy, by both processes at once, the slower one's seconds.

    The Hessian is float64, of all columns; of those that are not zero at the optimum where there are more than 4000.
    """

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return (Setting("passes", {}, 0.0),)

    def load(self, case: Case, store: Store) -> None:
        super().load(case, store)
        self.z = np.load(store.folder.parent / f"{case.name}.npy")

    def fit(self, limit: float, **options: Any) -> list[Point]:
        has = self.client.who_has([*self.X, *self.y])
        futures = []
        for home in list(self.client.scheduler_info(n_workers=-1)["workers"]):
            here = [(X, y) for X, y in zip(self.X, self.y, strict=True) if home in has[X.key]]
            futures.append(self.client.submit(passes, self.case, self.z, here, workers=[home], pure=False))
        return [Point(max(self.client.gather(futures)), np.zeros(0))]


def passes(case: Case, z: np.ndarray, parts: list[Any]) -> float:
    """Seconds of this worker's share."""
    objectives = [Objective(case, X, y) for X, y in parts]
    on = np.arange(len(z)) if len(z) <= 4000 else np.flatnonzero(z)
    picked = [o.X[:, on] if sp.issparse(o.X) and len(on) < len(z) else o.X for o in objectives]
    began = time.perf_counter()
    for o in objectives:
        for _ in range(2):
            o.gradient(z)
    for o, X in zip(objectives, picked, strict=True):
        o.X = X
        o.hessian(z[on], np.arange(len(on)))
    return time.perf_counter() - began
