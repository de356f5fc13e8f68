"""A program solved by HiGHS, again and again with other linear terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from paramserver.errors import BadData, InvalidInput, StepFailed
from paramserver.messages import Array
from paramserver.workers.problems.stochastic.program import Form, Program

OPTIONS = {"output_flag": False, "threads": 1, "qp_regularization_value": 0.0}


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
    """One program in HiGHS; each solve begins where the last one ended."""

    def __init__(self, form: Form) -> None:
        self.form, self.highs, self.of = form, highspy(), highspy()._core._Highs()
        for name, value in OPTIONS.items():
            self.of.setOptionValue(name, value)
        self.of.passModel(_linear(self.highs, form))
        self.all = np.arange(len(form.c), dtype=np.int32)
        self.bent = np.zeros(0)  #: what was added to Q's diagonal
        self._bend(np.zeros(len(form.c)))

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a chunk's data begins without."""
        return None

    def solve(self, program: Program, c: Array, bend: Array) -> Array:
        """argmin (c)ᵀx + ½xᵀ(Q + diag(bend))x, (n,).

        Raises
        ------
        BadData
            There is no feasible x, or no lowest value.
        """
        self._bend(bend)
        self.of.changeColsCost(len(c), self.all, c)
        self.of.run()
        status, known = self.of.getModelStatus(), self.highs.HighsModelStatus
        if status == known.kUnboundedOrInfeasible:
            self.of.setOptionValue("presolve", "off")
            self.of.run()
            status = self.of.getModelStatus()
        if status == known.kInfeasible:
            raise BadData(f"{program}: infeasible, no x is within all bounds of rows and columns")
        if status == known.kUnbounded:
            raise BadData(f"{program}: unbounded, its cost falls without end: give its columns bounds")
        if status != known.kOptimal:
            raise StepFailed(f"{program}: HiGHS ended with {self.of.modelStatusToString(status)!r}")
        return np.array(self.of.getSolution().col_value)

    def _bend(self, bend: Array) -> None:
        if np.array_equal(bend, self.bent):
            return
        self.bent = bend.copy()
        whole = sparse.diags_array(bend) if self.form.Q is None else self.form.Q + sparse.diags_array(bend)
        lower = sparse.tril(whole, format="csc")
        lower.eliminate_zeros()
        if lower.nnz:
            self.of.passHessian(_hessian(self.highs, lower))


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
