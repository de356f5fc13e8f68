"""A parameter server in Ray: worker actors push the gradients of their half, the server applies them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize

from .base import Peer, Point, Watch, grid
from .cases import Case, Setting
from .data import CHUNKS, Store
from .driver_loop import prox
from .objective import Array, Objective


class Half:
    """A worker: every second chunk, and their sum's value and gradient."""

    def __init__(self, case: Case, store: Store, which: int) -> None:
        chunks = [store.part(k) for k in range(which, CHUNKS, 2)]
        self.chunks = [Objective(replace(case, l1=0.0, l2=0.0), *chunk) for chunk in chunks]

    def both(self, z: Array) -> tuple[float, Array]:
        """Value and gradient of the losses."""
        return sum(c.value(z) for c in self.chunks), np.sum([c.gradient(z) for c in self.chunks], axis=0)


class RayServer(Peer):
    """L-BFGS at the server, or accelerated proximal gradients where there is an L1 term."""

    package = "ray"
    blas_threads: ClassVar[int] = 1

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-3, 1e-4, 1e-5, 1e-7) if case.l1 else grid("ftol", 1e-5, 1e-7, 1e-9, 1e-12)

    def load(self, case: Case, store: Store) -> None:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
        self.case, self.get = case, ray.get
        actor = ray.remote(num_cpus=1)(Half)
        self.halves = [actor.remote(case, store, which) for which in range(2)]
        self.penalty = Objective(case, *store.read(mapped=True))
        self.both(np.zeros(self.penalty.p))

    def both(self, z: Array) -> tuple[float, Array]:
        """Of all rows, by both workers."""
        answers = self.get([half.both.remote(z) for half in self.halves])
        return sum(value for value, _ in answers), sum(gradient for _, gradient in answers)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        solve = self._proximal if self.case.l1 else self._lbfgs
        watch.point(solve(np.zeros(self.penalty.p), watch, **options))
        return watch.points

    def _lbfgs(self, z: Array, watch: Watch, ftol: float) -> Array:
        d = self.penalty.d

        def whole(z: Array) -> tuple[float, Array]:
            value, gradient = self.both(z)
            return value + self.penalty.penalty(z), gradient + np.append(self.case.l2 * z[:d], np.zeros(len(z) - d))

        def on_time(z: Array) -> None:
            if watch.over:
                raise StopIteration  # scipy then returns what it has

        options = {"maxiter": 5000, "maxfun": 10000, "ftol": ftol, "gtol": 0.0}
        found: Array = minimize(whole, z, jac=True, method="L-BFGS-B", callback=on_time, options=options).x
        return found

    def _proximal(self, z: Array, watch: Watch, tol: float) -> Array:
        """FISTA with backtracking, until z moves by less than ``tol`` of itself."""
        ahead, t, step = z, 1.0, 1.0
        while not watch.over:
            value, gradient = self.both(ahead)
            while True:
                new = prox(self.case, ahead - step * gradient, step)
                far = new - ahead
                most = value + gradient @ far + far @ far / (2 * step)
                if self.both(new)[0] <= most + 1e-13 * abs(value):
                    break
                step /= 2
            later = (1 + np.sqrt(1 + 4 * t * t)) / 2
            moved, z, ahead, t = new - z, new, new + (t - 1) / later * (new - z), later
            if np.abs(moved).max() <= tol * np.abs(z).max():
                break
        return z

    def close(self) -> None:
        import ray

        ray.shutdown()
