"""Peers that fit in one process, with two threads: scikit-learn's solvers, and what all such peers share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from paramserver.workers.design.table import Table

from .base import Peer, Point, Watch, grid
from .cases import Case, Setting
from .data import Data, Store, expanded

Answer = tuple[Any, Any]  #: coefficients, intercept


class Single(Peer):
    """Reads all the data; its own conversions are made, and timed, in every fit."""

    losses: ClassVar[tuple[str, ...]] = ("logistic",)
    penalties: ClassVar[tuple[str, ...]] = ("L1", "L2", "elastic net")
    intercepts: ClassVar[tuple[bool, ...]] = (True, False)

    def lacks(self, case: Case) -> str:
        kind = "L2" if not case.l1 else "L1" if not case.l2 else "elastic net"
        if case.loss not in self.losses:
            return f"has no loss {case.loss}"
        if kind not in self.penalties:
            return f"takes no {kind} penalty"
        return "" if case.intercept in self.intercepts else "has no free intercept"

    def load(self, case: Case, store: Store) -> None:
        self.case, self.data = case, store.read()
        self.warm_up()

    def warm_up(self) -> None:
        """Something tiny of the same form, penalised as a part of the whole: imports, and all that is compiled."""
        case, (X, y) = self.case, self.data
        rows = np.linspace(0, len(y) - 1, min(len(y), 2000)).astype(int)
        few = Table(X.numeric.X[rows], X.codes[rows], X.levels, X.order) if isinstance(X, Table) else X[rows]
        share = len(rows) / len(y)
        self.case = replace(case, l1=share * case.l1, l2=share * case.l2)
        for setting in self.settings(case)[:2]:
            self.answer(Data(few, y[rows]), **setting.options)
        self.case = case

    def fit(self, limit: float, **options: Any) -> list[Point]:
        watch = Watch(limit)
        w, b = self.answer(self.data, **options)
        w = np.ravel(w)
        watch.point(np.append(w, np.ravel(b)[:1]) if self.case.intercept else w)
        return watch.points

    def answer(self, data: Data, **options: Any) -> Answer:
        """The fit itself."""
        raise NotImplementedError


def matrix(X: Any) -> Any:
    """As an array or CSR: codes are expanded."""
    return expanded(X) if isinstance(X, Table) else X


def columns_first(X: Any) -> Any:
    """As Fortran order or CSC."""
    X = matrix(X)
    return X.tocsc() if sp.issparse(X) else np.asfortranarray(X)


class ScikitLearn(Single):
    """Its linear models; a solver is a class."""

    package = "sklearn"
    solver: ClassVar[str]

    def answer(self, data: Data, **options: Any) -> Answer:
        from sklearn import linear_model as sk

        X, y = matrix(data.X), data.y
        more = {"fit_intercept": self.case.intercept, "solver": self.solver, **options}
        if self.case.loss == "poisson":
            model = sk.PoissonRegressor(alpha=self.case.alpha / len(y), **more)
        else:
            model = sk.LogisticRegression(C=1 / self.case.alpha, l1_ratio=self.case.l1_ratio, **more)
        model.fit(X, y)
        return model.coef_, model.intercept_


class Lbfgs(ScikitLearn):
    """L-BFGS on all rows."""

    solver = "lbfgs"
    losses = ("logistic", "poisson")
    penalties = ("L2",)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, max_iter=5000)


class NewtonCholesky(ScikitLearn):
    """Newton with the whole Hessian."""

    solver = "newton-cholesky"
    losses = ("logistic", "poisson")
    penalties = ("L2",)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-2, 1e-4, 1e-8)


class Saga(ScikitLearn):
    """Stochastic average gradients."""

    solver = "saga"

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("max_iter", 2, 8, 32, 128, tol=1e-12, random_state=0)


class Liblinear(ScikitLearn):
    """Coordinate descent; it penalises its intercept."""

    solver = "liblinear"
    penalties = ("L1",)
    intercepts = (False,)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-2, 1e-3, 1e-5, max_iter=1000)


class Lasso(Single):
    """scikit-learn's coordinate descent on the Gram matrix."""

    package = "sklearn"
    losses = ("normal",)
    penalties = ("L1",)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-2, 1e-4, 1e-8)

    def answer(self, data: Data, **options: Any) -> Answer:
        from sklearn.linear_model import Lasso as Model

        alpha = self.case.l1 / len(data.y)
        model = Model(alpha=alpha, fit_intercept=self.case.intercept, precompute=True, copy_X=False, **options)
        model.fit(data.X, data.y)
        return model.coef_, model.intercept_
