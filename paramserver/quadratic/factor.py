"""Scaled Cholesky factors of positive semi-definite matrices."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotrs

from paramserver.messages import Array

RIDGE = 1e-11


def scale_of(B: Array) -> Array:
    """1/√diag(B), and 1 where the diagonal is not positive."""
    diag = np.diag(B)
    return 1.0 / np.sqrt(np.where(diag > 0, diag, 1.0))


class Factor:
    """A scaled, slightly ridged Cholesky factor of a positive semi-definite matrix."""

    def __init__(self, B: Array) -> None:
        self.B = B
        self.scale = scale_of(B)
        scaled = B * self.scale
        scaled *= self.scale[:, None]
        self._factor = cholesky(scaled)

    def solve(self, rhs: Array, refinements: int = 2) -> Array:
        """B⁻¹ rhs, (p,); refinement takes the ridge's bias out of the directions that B determines."""
        out = self._once(rhs)
        for _ in range(refinements):
            out = out + self._once(rhs - self.B @ out)
        return out

    def _once(self, rhs: Array) -> Array:
        return self.scale * substitute(self._factor, self.scale * rhs)


def cholesky(A: Array) -> Array:
    """The factor of A + ridge, for a symmetric A of unit diagonal. (LAPACK itself: wrappers cost as much.)"""
    ridge = RIDGE
    while True:
        ridged = A.copy()
        ridged.flat[:: len(A) + 1] += ridge
        factor, info = dpotrf(ridged.T, lower=1, clean=0, overwrite_a=1)  # symmetric: .T is Fortran's order for free
        if info == 0:
            return np.asarray(factor)
        ridge *= 100.0  # rounding made it indefinite: a larger ridge only slows the refinement
        if ridge > 1.0:
            raise LinAlgError(
                "the quadratic model is not positive semi-definite, or not finite: is the problem convex, and do its "
                "gradient and Hessian agree with its value? (paramserver.testing.check_problem; Smooth.check)"
            )


def substitute(factor: Array, rhs: Array) -> Array:
    """The solution with a factor of `cholesky`."""
    out, _ = dpotrs(factor, rhs, lower=1)
    return np.asarray(out)
