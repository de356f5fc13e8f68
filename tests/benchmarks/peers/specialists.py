"""glum, skglm, celer and snapml: one process, two threads, made for these models."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from paramserver.workers.design.table import Table

from .base import grid
from .cases import Case, Setting
from .data import Data
from .single import Answer, Single, columns_first, matrix


class Glum(Single):
    """IRLS with coordinate descent; `tabmat` for sparse columns and codes."""

    package = "glum"
    losses = ("logistic", "normal", "poisson")

    def lacks(self, case: Case) -> str:
        return "forms a Hessian of all columns" if case.data == "sparse" else super().lacks(case)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("gradient_tol", 1e-2, 1e-3, 1e-5, 1e-7)

    def answer(self, data: Data, **options: Any) -> Answer:
        from glum import GeneralizedLinearRegressor

        case = self.case
        family = {"logistic": "binomial", "normal": "normal", "poisson": "poisson"}[case.loss]
        alpha = case.alpha / len(data.y)
        model = GeneralizedLinearRegressor(
            alpha=alpha, l1_ratio=case.l1_ratio, fit_intercept=case.intercept, family=family, copy_X=False,
            max_iter=500, **options,
        )  # fmt: skip
        model.fit(_tabmat(data.X), data.y)
        w = np.ravel(model.coef_)
        return (w[data.X.order] if isinstance(data.X, Table) else w), model.intercept_


def _tabmat(X: Any) -> Any:
    """glum's own matrices; a table's columns in their natural order."""
    import pandas as pd
    import tabmat

    if isinstance(X, Table):
        codes = [pd.Categorical.from_codes(c, list(range(n))) for c, n in zip(X.codes.T, X.levels, strict=True)]
        return tabmat.SplitMatrix([tabmat.DenseMatrix(X.numeric.X), *map(tabmat.CategoricalMatrix, codes)])
    return tabmat.SparseMatrix(X.tocsc()) if sp.issparse(X) else tabmat.DenseMatrix(np.asfortranarray(X))


class Skglm(Single):
    """Working sets and prox-Newton, or coordinate descent with Anderson acceleration for the lasso; compiled."""

    package = "skglm"
    losses = ("logistic", "normal")
    penalties = ("L1", "elastic net")  # its L-BFGS, for L2, has no intercept

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-3, 1e-4, 1e-6, 1e-8)

    def answer(self, data: Data, **options: Any) -> Answer:
        from skglm import GeneralizedLinearEstimator, datafits, penalties, solvers

        case, alpha = self.case, self.case.alpha / len(data.y)
        penalty = penalties.L1_plus_L2(alpha, case.l1_ratio) if case.l2 else penalties.L1(alpha)
        solver = solvers.ProxNewton if case.loss == "logistic" else solvers.AndersonCD
        datafit = datafits.Logistic() if case.loss == "logistic" else datafits.Quadratic()
        y = np.where(data.y > 0, 1.0, -1.0) if case.loss == "logistic" else data.y
        made = solver(fit_intercept=case.intercept, max_iter=200, **options)
        model = GeneralizedLinearEstimator(datafit, penalty, made).fit(columns_first(data.X), y)
        return model.coef_, model.intercept_


class Celer(Single):
    """Working sets by the dual."""

    package = "celer"
    losses = ("logistic", "normal")
    penalties = ("L1",)
    intercepts = (False,)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-2, 1e-4, 1e-6, 1e-8)

    def answer(self, data: Data, **options: Any) -> Answer:
        import celer

        X = columns_first(data.X)
        if self.case.loss == "normal":
            model = celer.Lasso(alpha=self.case.l1 / len(data.y), fit_intercept=False, **options).fit(X, data.y)
        else:
            y = np.where(data.y > 0, 1, -1)
            model = celer.LogisticRegression(C=1 / self.case.l1, fit_intercept=False, **options).fit(X, y)
        return model.coef_, 0.0


class Snapml(Single):
    """Coordinate descent on two threads, by the dual for L2; its intercept is penalised."""

    package = "snapml"
    losses = ("logistic", "normal")
    penalties = ("L1", "L2")

    def lacks(self, case: Case) -> str:
        return "returns no intercept with L1" if case.l1 and case.intercept else super().lacks(case)

    def settings(self, case: Case) -> tuple[Setting, ...]:
        return grid("tol", 1e-2, 1e-3, 1e-5, 1e-7)

    def answer(self, data: Data, **options: Any) -> Answer:
        import snapml

        case = self.case
        more = {"regularizer": case.alpha, "fit_intercept": case.intercept, "n_jobs": 2, "max_iter": 1000, **options}
        more |= {"penalty": "l1", "dual": False} if case.l1 else {"penalty": "l2", "dual": True}
        if case.loss == "logistic":
            model = snapml.LogisticRegression(random_state=0, **more)
        else:
            model = snapml.LinearRegression(**more)
        model.fit(matrix(data.X), data.y)
        return model.coef_, model.intercept_
