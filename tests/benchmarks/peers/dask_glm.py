"""dask-glm's algorithms on the objective that was asked for, and dask-ml's estimators as they are shipped.

dask-glm's estimators normalise columns and penalise the intercept; its algorithms do neither if they are told. Its
least-squares loss has no half, so its penalties are doubled there.
"""

from __future__ import annotations

from typing import Any, ClassVar

import dask.array as da
import numpy as np

from .base import Point, Watch, grid
from .cases import Case, Setting
from .data import Store
from .ours import OnCluster


class TooLong(Exception):
    """The limit is over: the points so far are the answer."""


class DaskGlm(OnCluster):
    """One of its algorithms."""

    package = "dask_glm"
    algorithm: ClassVar[str]
    smooth: ClassVar[bool] = True  #: takes no L1 term

    def lacks(self, case: Case) -> str:
        if case.data in ("flights-csr", "flights-codes", "sparse"):
            return "takes neither sparse chunks nor codes"
        return "takes no L1 term" if self.smooth and case.l1 else ""

    def load(self, case: Case, store: Store) -> None:
        super().load(case, store)
        self.X, self.y = self.arrays(store)
        rng = np.random.default_rng(0)
        tiny = da.from_array(rng.random((200, 5)), chunks=(100, 5)), da.from_array(np.arange(200) % 2.0, chunks=100)
        self.solve(*tiny, Watch(10.0), max_iter=2)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        try:
            z = self.solve(self.X, self.y, watch, **options)
        except TooLong:
            return watch.points
        if not watch.points:
            watch.point(z)
        return watch.points

    def solve(self, X: Any, y: Any, watch: Watch, **options: Any) -> Any:
        """With a column of ones for the intercept, kept on the workers."""
        from dask_glm import algorithms, families

        if self.case.intercept:
            X = da.concatenate([X, da.ones((len(X), 1), chunks=(X.chunks[0], 1))], axis=1).rechunk({1: -1})
            X = self.client.persist(X)
        names = {"logistic": families.Logistic, "normal": families.Normal, "poisson": families.Poisson}
        more = {"family": names[self.case.loss], "normalize": False, **self.more(watch), **options}
        return getattr(algorithms, self.algorithm)(X, y, **more)

    def more(self, watch: Watch) -> dict[str, Any]:
        """Further arguments: the penalty."""
        return {"regularizer": regularizer(self.case, None), "lamduh": 1.0}


class Admm(DaskGlm):
    """Its consensus ADMM; every z on the way counts."""

    algorithm = "admm"
    smooth = False

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("rho", 1.0, 100.0, 3000.0, max_iter=1000, abstol=1e-14, reltol=1e-12)

    def more(self, watch: Watch) -> dict[str, Any]:
        return {"regularizer": regularizer(self.case, watch), "lamduh": 1.0}


class Lbfgs(DaskGlm):
    """Its L-BFGS."""

    algorithm = "lbfgs"

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e2, 1.0, 1e-2, 1e-4, max_iter=1000)


class Newton(DaskGlm):
    """Its Newton, which knows no penalty at all."""

    algorithm = "newton"

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-1, 1e-2, 1e-4, 1e-8)

    def more(self, watch: Watch) -> dict[str, Any]:
        return {}


def regularizer(case: Case, watch: Watch | None) -> Any:
    """The case's penalty as one of dask-glm's; ``watch`` sees every z that its prox makes."""
    from dask_glm.regularizers import Regularizer

    factor = 2.0 if case.loss == "normal" else 1.0
    l1, l2 = factor * case.l1, factor * case.l2

    def free(like: Any) -> np.ndarray:
        on = np.ones(len(like))
        on[len(on) - case.intercept :] = 0.0
        return on

    class Asked(Regularizer):  # type: ignore[misc]
        name = "asked"

        def f(self, beta: Any) -> Any:
            return l1 * (free(beta) * abs(beta)).sum() + l2 / 2 * (free(beta) * beta**2).sum()

        def gradient(self, beta: Any) -> Any:
            return l2 * free(beta) * beta

        def proximal_operator(self, beta: Any, t: float) -> Any:
            on = free(beta)
            z = np.sign(beta) * np.maximum(abs(beta) - l1 * t * on, 0.0) / (1.0 + l2 * t * on)
            if watch is not None:
                watch.point(z)
                if watch.over:
                    raise TooLong
            return z

    return Asked()


class DaskMl(OnCluster):
    """An estimator as shipped: columns normalised, the intercept penalised; a tighter tolerance changes neither."""

    package = "dask_ml"
    solver: ClassVar[str]
    tight: ClassVar[dict[str, Any]] = {"tol": 1e-8, "max_iter": 1000}

    def lacks(self, case: Case) -> str:
        if case.data in ("flights-csr", "flights-codes", "sparse"):
            return "takes neither sparse chunks nor codes"
        if case.l1 and case.l2:
            return "its elastic net does nothing"
        return "takes no L1 term" if case.l1 and self.solver != "admm" else ""

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return Setting("as shipped", {}), Setting("tight", self.tight)

    def load(self, case: Case, store: Store) -> None:
        super().load(case, store)
        self.X, self.y = self.arrays(store)
        rng = np.random.default_rng(0)
        tiny = da.from_array(rng.random((200, 5)), chunks=(100, 5)), da.from_array(np.arange(200) % 2.0, chunks=100)
        self.model(max_iter=2).fit(*tiny)

    def model(self, **options: Any) -> Any:
        """The estimator."""
        from dask_ml import linear_model

        case = self.case
        names = {"logistic": "LogisticRegression", "normal": "LinearRegression", "poisson": "PoissonRegression"}
        penalty, half = "l1" if case.l1 else "l2", 0.5 if case.loss == "normal" else 1.0
        made = {"penalty": penalty, "C": half / case.alpha, "fit_intercept": case.intercept, "solver": self.solver}
        return getattr(linear_model, names[case.loss])(**made, **options)

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        model = self.model(**options).fit(self.X, self.y)
        watch.point(np.append(model.coef_, model.intercept_) if self.case.intercept else model.coef_)
        return watch.points


class MlAdmm(DaskMl):
    """Its ADMM."""

    solver = "admm"
    tight: ClassVar[dict[str, Any]] = {"max_iter": 1000, "solver_kwargs": {"abstol": 1e-8, "reltol": 1e-8}}


class MlLbfgs(DaskMl):
    """Its L-BFGS."""

    solver = "lbfgs"


class MlNewton(DaskMl):
    """Its Newton, which knows no penalty."""

    solver = "newton"
