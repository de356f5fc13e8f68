"""A parameter server in Ray: worker actors push the gradients of their half, the server applies them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize

from .base import Peer, Point, Watch
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


class TooLong(Exception):
    """The limit is over: the points so far are the answer."""


class RayServer(Peer):
    """L-BFGS at the server, or accelerated proximal gradients where there is an L1 term; every z counts."""

    package = "ray"
    blas_threads: ClassVar[int] = 1

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return (Setting("proximal gradients" if case.l1 else "L-BFGS", {}),)

    def load(self, case: Case, store: Store) -> None:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
        self.case, self.get = case, ray.get
        actor = ray.remote(num_cpus=1)(Half)
        self.halves = [actor.remote(case, store, which) for which in range(2)]
        self.penalty = Objective(case, *store.read(mapped=True))
        self.both(np.zeros(self.penalty.p), Watch(60.0))

    def both(self, z: Array, watch: Watch) -> tuple[float, Array]:
        """Of all rows, by both workers."""
        if watch.over:
            raise TooLong
        answers = self.get([half.both.remote(z) for half in self.halves])
        return sum(value for value, _ in answers), sum(gradient for _, gradient in answers)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        with suppress(TooLong):
            (self._proximal if self.case.l1 else self._lbfgs)(np.zeros(self.penalty.p), watch)
        return watch.points

    def _lbfgs(self, z: Array, watch: Watch) -> None:
        d = self.penalty.d

        def whole(z: Array) -> tuple[float, Array]:
            value, gradient = self.both(z, watch)
            return value + self.penalty.penalty(z), gradient + np.append(self.case.l2 * z[:d], np.zeros(len(z) - d))

        minimize(whole, z, jac=True, method="L-BFGS-B", callback=watch.point, options={"maxiter": 1000, "ftol": 1e-15})

    def _proximal(self, z: Array, watch: Watch) -> None:
        """FISTA with backtracking."""
        ahead, t, step = z, 1.0, 1.0
        while not watch.over:
            value, gradient = self.both(ahead, watch)
            while True:
                new = prox(self.case, ahead - step * gradient, step)
                far = new - ahead
                if self.both(new, watch)[0] <= value + gradient @ far + far @ far / (2 * step):
                    break
                step /= 2
            later = (1 + np.sqrt(1 + 4 * t * t)) / 2
            ahead, z, t = new + (t - 1) / later * (new - z), new, later
            watch.point(z)

    def close(self) -> None:
        import ray

        ray.shutdown()
