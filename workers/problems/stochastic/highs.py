"""A program solved by HiGHS, again and again with other linear terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from paramserver.errors import BadData, InvalidInput, StepFailed
from paramserver.messages import Array
from paramserver.workers.problems.stochastic.interior import minimise
from paramserver.workers.problems.stochastic.program import Form, Program

OPTIONS = {"output_flag": False, "threads": 1, "qp_regularization_value": 0.0}
PATIENCE = 100  #: iterations of its active set method a row or column; more are a sign of cycling
LARGE = 500  #: rows and columns, from where an interior point method is faster


def highspy() -> Any:
    """The module, or what to install."""
    try:
        import highspy as module
    except ImportError:
        raise InvalidInput(
            "StochasticProgram solves scenarios by HiGHS, and there is no highspy here: "
            'pip install "paramserver[stochastic]"'
        ) from None
    return module


class Model:
    """One program in HiGHS; each solve begins where the last one ended.

    Where costs are curved and the program is large, an interior point method is asked first, and where HiGHS
    does not come to an end.
    """

    def __init__(self, form: Form) -> None:
        self.form, self.highs, self.of = form, highspy(), highspy()._core._Highs()
        for name, value in OPTIONS.items():
            self.of.setOptionValue(name, value)
        self.size = sum(form.A.shape)
        self.of.setOptionValue("qp_iteration_limit", PATIENCE * self.size)
        self.of.passModel(_linear(self.highs, form))
        self.all = np.arange(len(form.c), dtype=np.int32)
        self.bent: Array | None = None  #: what was added to Q's diagonal
        self.curve: Any = None  #: Q with that

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a chunk's data begins without."""
        return None

    def solve(self, program: Program, c: Array, bend: Array) -> Array:
        """argmin cᵀx + ½xᵀ(Q + diag(bend))x, (n,).

        Raises
        ------
        BadData
            There is no feasible x, or no lowest value.
        StepFailed
            Nothing solves it.
        """
        self._bend(bend)
        curved = self.curve.nnz > 0
        x = minimise(self.form, c, self.curve) if curved and self.size > LARGE else None
        if x is not None:
            return x
        status = self._run(c)
        if status == self.highs.HighsModelStatus.kOptimal:
            return np.array(self.of.getSolution().col_value)
        self._refuse(program, status)
        self.of.clearSolver()
        x = minimise(self.form, c, self.curve) if curved and self.size <= LARGE else None
        if x is None:
            raise StepFailed(f"{program}: HiGHS ended with {self.of.modelStatusToString(status)!r}")
        return x

    def _run(self, c: Array) -> Any:
        self.of.changeColsCost(len(c), self.all, c)
        self.of.run()
        if self.of.getModelStatus() == self.highs.HighsModelStatus.kUnboundedOrInfeasible:
            self.of.setOptionValue("presolve", "off")  # it tells which
            self.of.run()
        return self.of.getModelStatus()

    def _refuse(self, program: Program, status: Any) -> None:
        known = self.highs.HighsModelStatus
        if status == known.kInfeasible:
            raise BadData(f"{program}: infeasible, no x is within all bounds of rows and columns")
        if status == known.kUnbounded:
            raise BadData(f"{program}: unbounded, its cost falls without end: give its columns bounds")

    def _bend(self, bend: Array) -> None:
        if self.bent is not None and np.array_equal(bend, self.bent):
            return
        diagonal, Q = sparse.diags_array(bend, format="csc"), self.form.Q
        self.bent, self.curve = bend.copy(), diagonal if Q is None else (Q + diagonal).tocsc()
        self.curve.eliminate_zeros()
        if self.curve.nnz:
            self.of.passHessian(_hessian(self.highs, sparse.tril(self.curve, format="csc")))


def _linear(highs: Any, form: Form) -> Any:
    lp = highs.HighsLp()
    lp.num_row_, lp.num_col_ = form.A.shape
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = form.c, form.lower, form.upper
    lp.row_lower_, lp.row_upper_ = form.row_lower, form.row_upper
    lp.a_matrix_.format_ = highs.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = form.A.indptr, form.A.indices, form.A.data
    return lp


def _hessian(highs: Any, lower: Any) -> Any:
    out = highs.HighsHessian()
    out.dim_, out.format_ = lower.shape[0], highs.HessianFormat.kTriangular
    out.start_, out.index_, out.value_ = lower.indptr, lower.indices, lower.data
    return out
