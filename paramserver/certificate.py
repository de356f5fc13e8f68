"""A bound of F(z) − F* from exact values at one z: value, gradient and Hessian of the losses.

z⁺ minimises the quadratic model at z plus R. The rows' duals θ = ℓ' + ℓ''·xᵀΔ are feasible for
every R because −Xᵀθ ∈ ∂R(z⁺), so Fenchel–Young gives, with v = −Xᵀθ,

    F(z) − F* ≤ Σ(ℓ + ℓ*(θ) − θ·m) + [R(z) − R(z⁺) − vᵀ(z − z⁺)],

both terms ≥ 0. The first is the problem's: ½ΔᵀHΔ for least squares, c(r)·ΔᵀHΔ for logistic
losses with r = max|xᵀΔ| < 1, else one more pass over the rows. z⁺ need not be exact: Δ is shifted
by −H⁻¹ of what is left of the optimality condition, which makes θ feasible again. Where R(z) is infinite, so is
the bound, and never nan: project z first (`Bound.project`).

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
    z_plus = bound.project(minimise(hessian, -gradient, bound, z, z))
    move = step = z_plus - z
    bent = hessian @ move
    slope = bound.subgradient(z_plus, -(gradient + bent))
    left, at, charge = gradient + bent + slope, z_plus, 0.0
    decrease = 0.5 * float(move @ bent) + bound.bregman(z, z_plus, slope)
    if left.any():
        rows = np.sqrt(2.0 * np.abs(loss) * np.diag(hessian).clip(min=0))  # what cancelled in the gradient's sum
        rounding = ROUNDING * (rows + np.abs(gradient) + np.abs(hessian) @ np.abs(move) + np.abs(slope))
        step = move - Factor(hessian).solve(left)
        left = gradient + hessian @ step + slope
        if (np.abs(left) > rounding).any():  # z⁺ is wrong where the Hessian is singular: no shift mends that
            step, (at, slope, charge) = move, _unshifted(gradient + bent, z_plus, bound, slope, rounding)
            left = gradient + bent + slope
        charge += float(np.abs(left) @ np.abs(move))
    bend = float(step @ (hessian @ step))
    bregman = bound.bregman(z, at, slope)
    ahead = charge + bound.bregman(z_plus, at, slope)  # 0 where slope ∈ ∂R(z⁺)
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

    Infinite where v leaves R*'s domain: |v_j| > l1_j without an l2_j or a bound. A sum of terms
    ≥ 0, so that no digits cancel.
    """
    terms = bound.separable()
    if terms is None:
        return np.inf
    off = np.ones(len(z), bool)
    off[support] = False
    part = terms.of(off)
    nearest, minimiser = part.support(v[off])
    if (np.abs(nearest - v[off]) > FEASIBLE * part.l1).any() or not np.isfinite(minimiser).all():
        return np.inf
    return part.bregman(z[off], minimiser, nearest)


def _unshifted(dual: Array, z_plus: Array, bound: Bound, slope: Array, rounding: Array) -> tuple[Array, Array, float]:
    """(at, slope, charge) with slope ∈ ∂R(at), as close to −dual as may be: R(w) ≥ R(at) + slopeᵀ(w − at).

    ``slope`` comes as the one at z⁺ and stays so where it is −dual but for rounding. Elsewhere ``at``
    minimises R(w) + dualᵀw; where that has no minimiser nothing bounds F from below, and the charge is inf.
    """
    terms = bound.terms()
    if terms is None:
        return z_plus, slope, np.inf
    near = terms.whole(np.abs(dual + slope) <= rounding)
    nearest, minimiser = terms.support(-dual)
    slope = np.where(near, slope, nearest)
    if not np.isfinite(minimiser[~near]).all() or (np.abs(dual + slope) > rounding).any():
        return z_plus, slope, np.inf
    return np.where(near, z_plus, minimiser), slope, 0.0


def damped(model: Model, gradient: Array, hessian: Array, reach: Array, bound: Bound) -> tuple[Array, float]:
    """A step shorter than Newton's, and what the model promises of it (Levenberg 1944).

    For where few rows bend the losses (clipped ones): along what the Hessian does not see, Newton's
    step is all but infinite. The damping moves margins about as far as the loss over its slope.
    """
    size = np.where(reach > 0, reach, 1.0)
    off = gradient + bound.subgradient(model.z, -gradient)
    damping = float((np.abs(off) / size).max()) ** 2 / max(model.loss, 1e-300) * size**2
    z = minimise(hessian + np.diag(damping), -gradient, bound, model.z, model.z)
    step = z - model.z
    bent = 0.5 * float(step @ (hessian @ step))
    return step, bound.value(model.z) - bound.value(z) - float(gradient @ step) - bent
