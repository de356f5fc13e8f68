"""A bound of F(z) − F* from exact values at one z: value, gradient and Hessian of the losses.

z⁺ minimises the quadratic model at z plus R. The rows' duals θ = ℓ' + ℓ''·xᵀΔ are feasible for
every R because −Xᵀθ ∈ ∂R(z⁺), so Fenchel–Young gives, with v = −Xᵀθ,

    F(z) − F* ≤ Σ(ℓ + ℓ*(θ) − θ·m) + [R(z) − R(z⁺) − vᵀ(z − z⁺)],

both terms ≥ 0. The first is the problem's: ½ΔᵀHΔ for least squares, c(r)·ΔᵀHΔ for logistic
losses with r = max|xᵀΔ| < 1, else one more pass over the rows. z⁺ need not be exact: Δ is shifted
by −H⁻¹ of what is left of the optimality condition, which makes θ feasible again.

Where the Hessian is too large, it is taken on a support S of coordinates alone (`model_on`), with
Δ = 0 elsewhere, and a further pass over the rows gives v there: `outside` is R's term off S.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.penalties import Bound
from paramserver.quadratic import Factor, minimise

FEASIBLE = 1e-12  #: a dual this far beyond its bound, relatively, is at it
ROUNDING = 1e-11  #: an optimality condition that holds to this, relatively, holds


class Model(NamedTuple):
    """The exact quadratic model of F at z, and its minimiser."""

    z: Array
    loss: float  #: Σ losses at z
    objective: float  #: F(z)
    z_plus: Array
    step: Array  #: Δ, made dual feasible
    bend: float  #: ΔᵀHΔ
    bregman: float  #: the regulariser's term of the gap, with what rounding left over
    charge: float  #: that part of it that z⁺'s inexactness costs, at z⁺ too
    decrease: float  #: F(z) − model(z⁺): what the model promises

    def gap(self, fenchel: float) -> float:
        """The bound, given the losses' Fenchel term (or a bound of it)."""
        return fenchel + self.bregman


def model_at(z: Array, loss: float, gradient: Array, hessian: Array, bound: Bound) -> Model:
    """Build the model. ``gradient`` (p,) and ``hessian`` (p, p) are sums over all rows at z."""
    z_plus = minimise(hessian, -gradient, bound, z, z)
    move = step = z_plus - z
    bent = hessian @ move
    slope = bound.subgradient(z_plus, -(gradient + bent))
    left = gradient + bent + slope
    charge = 0.0
    if left.any():
        rows = np.sqrt(2.0 * np.abs(loss) * np.diag(hessian).clip(min=0))  # what cancelled in the gradient's sum
        rounding = ROUNDING * (rows + np.abs(gradient) + np.abs(hessian) @ np.abs(move) + np.abs(slope))
        step = move - Factor(hessian).solve(left)
        left = gradient + hessian @ step + slope
        if (np.abs(left) > rounding).any():  # z⁺ is wrong where the Hessian is singular: no shift mends that
            step, (slope, charge) = move, _unshifted(gradient + bent, z_plus, bound, rounding)
            left = gradient + bent + slope
        charge += float(np.abs(left) @ np.abs(move))
    bend = float(step @ (hessian @ step))
    bregman = bound.bregman(z, z_plus, slope)
    decrease = 0.5 * float(move @ bent) + bregman
    ahead = charge + bound.bregman(z_plus, z_plus, slope)  # 0 where slope ∈ ∂R(z⁺)
    return Model(z, loss, loss + bound.value(z), z_plus, step, max(bend, 0.0), bregman + charge, ahead, decrease)


def model_on(support: np.ndarray, z: Array, loss: float, gradient: Array, hessian: Array, bound: Bound) -> Model:
    """`model_at` of the coordinates ``support`` (k,) alone, the others of z kept; ``hessian`` is (k, k)."""
    if not len(support):
        return Model(z, loss, loss + bound.value(z), z, np.zeros_like(z), 0.0, 0.0, 0.0, 0.0)
    small = model_at(z[support], loss, gradient[support], hessian, bound.on(support))
    z_plus, step = z.copy(), np.zeros_like(z)
    z_plus[support], step[support] = small.z_plus, small.step
    return small._replace(z=z, objective=loss + bound.value(z), z_plus=z_plus, step=step)


def outside(support: np.ndarray, z: Array, v: Array, bound: Bound) -> float:
    """Σ R_j(z_j) + R_j*(v_j) − v_j·z_j over the coordinates off ``support``, for v = −Xᵀθ (p,).

    Infinite where v leaves R*'s domain: |v_j| > l1_j without an l2_j. Every term is a sum of
    squares and of |z|'s own gap, so no digits cancel.
    """
    weights = bound.elastic_net()
    if weights is None:
        return np.inf
    off = np.ones(len(z), bool)
    off[support] = False
    l1, l2 = (part[off] for part in weights)
    z, v = z[off], v[off]
    sign = np.clip(v, -l1, l1)
    beyond = v - sign
    curved = l2 > 0
    if (np.abs(beyond[~curved]) > FEASIBLE * l1[~curved]).any():
        return np.inf
    w = np.divide(beyond, l2, out=np.zeros_like(v), where=curved)  # where R* has its maximum
    kinks = (l1 * np.abs(z) - sign * z)[l1 > 0].clip(min=0).sum()
    return float(kinks + 0.5 * (l2[curved] @ (z - w)[curved] ** 2))


def _unshifted(dual: Array, z_plus: Array, bound: Bound, rounding: Array) -> tuple[Array, float]:
    """(slope, charge): R(w) ≥ R(z⁺) + slopeᵀ(w − z⁺) + l2/2·‖w − z⁺‖², slope as close to −dual as may be.

    What is left of dual + slope costs leftᵀ(z − z⁺), the caller's, and left²/(2·l2); where l2 = 0,
    nothing bounds it.
    """
    weights = bound.elastic_net()
    if weights is None:
        return bound.subgradient(z_plus, -dual), np.inf
    l1, l2 = weights
    slope = np.clip(-dual - l2 * z_plus, -l1, l1) + l2 * z_plus
    left = dual + slope
    large = np.abs(left) > rounding
    if not l2[large].all():
        return slope, np.inf
    return slope, float(0.5 * (left[large] ** 2 / l2[large]).sum())
