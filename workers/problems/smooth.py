"""Any smooth convex function of z, given by callables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.base import Evaluation
from paramserver.workers.problems.parts import OfParts, Parts, callables, first_z, scalar, vector

STEP = np.finfo(float).eps ** (1 / 3)  #: of central differences: truncation and rounding are alike


class Smooth(OfParts):
    """f(z) = Σ over chunks of ``fun(z, *parts)``, convex and twice differentiable.

    Parameters
    ----------
    fun : callable (z, *parts) → float
        One chunk's value. ``parts`` are what was launched and not None (X, y, …), or the chunk's one
        object. inf where z is out of its domain.
    jac : callable (z, *parts) → (p,)
        Its gradient.
    hess : callable (z, *parts) → (p, p), optional
        Its Hessian; central differences of ``jac`` otherwise, 2p gradients each.
    size : int, z0 : (p,) array
        One of them: the length of z, or where the fit starts (and F is measured against); zeros
        if not given.

    Notes
    -----
    No conjugate is known, so nothing is proven of the end: `Result.certificate` is "estimate", the rule's own,
    relative to |F(z0)|. What other problems keep by row is here z itself: ``Evaluation.curvature`` is z, and
    a Hessian is made anew once z moved by a tenth. Functions travel by cloudpickle.
    """

    def __init__(
        self,
        fun: Callable[..., float],
        jac: Callable[..., Any],
        hess: Callable[..., Any] | None = None,
        *,
        size: int | None = None,
        z0: Any = None,
    ) -> None:
        callables(fun=fun, jac=jac, **({} if hess is None else {"hess": hess}))
        self.fun, self.jac, self.hess, self.z0 = fun, jac, hess, first_z(size, z0)

    def __repr__(self) -> str:
        return f"Smooth({getattr(self.fun, '__name__', self.fun)!s}, size={len(self.z0)})"

    def _value_at_z0(self, data: Parts) -> float:
        return self._value(data, self.z0)

    def _value(self, data: Parts, z: Array) -> float:
        return scalar(self.fun(z, *data.parts), "fun")

    def _gradient(self, data: Parts, z: Array) -> Array:
        return vector(self.jac(z, *data.parts), z.shape, "jac")

    def evaluate(self, data: Parts, z: Array) -> Evaluation:
        """Value and gradient; z in the place of curvatures."""
        return Evaluation(self._value(data, z), self._gradient(data, z), z)

    def curvature(self, data: Parts, z: Array) -> Array:
        """z: all that `hessian` needs."""
        return z

    def hessian(self, data: Parts, curvature: Array) -> Array:
        """The Hessian at z = ``curvature``, (p, p)."""
        z = np.asarray(curvature)
        if self.hess is not None:
            return vector(self.hess(z, *data.parts), (len(z), len(z)), "hess")
        columns = []
        for j in range(len(z)):
            step = np.zeros_like(z)
            step[j] = STEP * max(abs(z[j]), 1.0)
            columns.append((self._gradient(data, z + step) - self._gradient(data, z - step)) / (2 * step[j]))
        H: Array = np.array(columns)
        H += H.T.copy()
        H /= 2.0
        return H

    def hessian_diagonal(self, data: Parts, curvature: Array) -> Array:
        """Of `hessian`, (p,)."""
        out: Array = np.diag(self.hessian(data, curvature)).copy()
        return out

    def check(self, *parts: Any, z: Any = None, seed: int = 0) -> None:
        """See that ``jac`` is the gradient of ``fun``, and ``hess`` of ``jac``, on one chunk's ``parts``.

        Along five random directions at ``z`` (z0 if not given), by central differences. `launch` does
        not do it of itself.

        Raises
        ------
        InvalidInput
            With the numbers that disagree.
        """
        data, rng = self.prepare(*parts), np.random.default_rng(seed)
        z = self.z0 if z is None else vector(z, self.z0.shape, "z")
        value, gradient = self._value(data, z), self._gradient(data, z)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise InvalidInput(f"fun is {value} at z, jac {gradient}: check at a z in the domain")
        H = None if self.hess is None else self.hessian(data, z)
        for _ in range(5):
            along = rng.standard_normal(len(z)) * np.maximum(np.abs(z), 1.0)
            step = STEP * along
            ahead, back, size = z + step, z - step, np.abs(step)
            seen = 0.5 * (self._value(data, ahead) - self._value(data, back))
            _agree("jac", "fun", gradient @ step, seen, 1e-5 * (np.abs(gradient) @ size) + 1e-12 * abs(value))
            if H is not None:
                seen = 0.5 * (self._gradient(data, ahead) - self._gradient(data, back)) @ step
                slack = 1e-5 * (size @ np.abs(H) @ size) + 1e-12 * (np.abs(gradient) @ size)
                _agree("hess", "jac", step @ H @ step, seen, slack)


def _agree(what: str, of: str, said: float, seen: float, slack: float) -> None:
    if not abs(said - seen) <= slack:
        raise InvalidInput(
            f"{what} disagrees with {of}: along a random step it says {said:.8g}, differences of {of} say {seen:.8g}"
        )
