"""A bound of F(z) − F* from exact values at one z: value, gradient and Hessian of the losses.

z⁺ minimises the quadratic model at z plus R. The rows' duals θ = ℓ' + ℓ''·xᵀΔ are feasible for
every R because −Xᵀθ ∈ ∂R(z⁺), so Fenchel–Young gives, with v = −Xᵀθ,

    F(z) − F* ≤ Σ(ℓ + ℓ*(θ) − θ·m) + [R(z) − R(z⁺) − vᵀ(z − z⁺)],

both terms ≥ 0. The first is the problem's: ½ΔᵀHΔ for least squares, c(r)·ΔᵀHΔ for logistic
losses with r = max|xᵀΔ| < 1, else one more pass over the rows. z⁺ need not be exact: Δ is shifted
by −H⁻¹ of what is left of the optimality condition, which makes θ feasible again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.penalties import Bound
from paramserver.quadratic import Factor, minimise


class Model(NamedTuple):
    """The exact quadratic model of F at z, and its minimiser."""

    z: Array
    loss: float  #: Σ losses at z
    objective: float  #: F(z)
    z_plus: Array
    step: Array  #: Δ, made dual feasible
    bend: float  #: ΔᵀHΔ
    bregman: float  #: the regulariser's term of the gap, with what rounding left over
    decrease: float  #: F(z) − model(z⁺): what the model promises

    def gap(self, fenchel: float) -> float:
        """The bound, given the losses' Fenchel term (or a bound of it)."""
        return fenchel + self.bregman


def model_at(z: Array, loss: float, gradient: Array, hessian: Array, bound: Bound) -> Model:
    """Build the model. ``gradient`` (p,) and ``hessian`` (p, p) are sums over all rows at z."""
    z_plus = minimise(hessian, -gradient, bound, z, z)
    step = z_plus - z
    dual = gradient + hessian @ step
    slope = bound.subgradient(z_plus, -dual)
    left = dual + slope
    if left.any():
        step = step - Factor(hessian).solve(left)
        left = gradient + hessian @ step + slope
    bend = float(step @ (hessian @ step))
    bregman = bound.bregman(z, z_plus, slope)
    charge = float(np.abs(left) @ np.abs(z - z_plus))
    move = z_plus - z
    decrease = 0.5 * float(move @ (hessian @ move)) + bregman
    return Model(z, loss, loss + bound.value(z), z_plus, step, max(bend, 0.0), bregman + charge, decrease)
