"""exp(x) − 1 − x, and the divergence q·log(q/u) − q + u made of it, without cancellation."""

from __future__ import annotations

import numpy as np
from scipy.special import xlog1py

from paramserver.messages import Array

EDGE = 1e-12  #: a row alone in its level, unpenalised, lands on the edge of the domain, and rounding beyond it
NEAR = 0.5  #: |x| below which exp(x) − 1 − x is summed as a series
_TERMS = 1.0 / np.cumprod(np.arange(1.0, 17.0))[1:]  # 1/2!, 1/3!, … 1/16!


def series(x: Array) -> Array:
    """exp(x) − 1 − x for |x| ≤ `NEAR`, (n, …); larger ones are cut there."""
    x = np.clip(x, -NEAR, NEAR)
    out = np.full_like(x, _TERMS[-1])
    for term in _TERMS[-2::-1]:
        out *= x
        out += term
    out *= x
    out *= x
    return out


def excess(x: Array) -> Array:
    """exp(x) − 1 − x ≥ 0, (n, …); inf where it overflows."""
    with np.errstate(over="ignore"):
        return np.where(np.abs(x) <= NEAR, series(x), np.expm1(x) - x)


def divergence(u: Array, r: Array, moved: Array, s: Array) -> Array:
    """moved − q + q·log(q/moved) ≥ 0 for q = u(1 + r), moved = u·exp(s); all of one shape.

    inf where q < 0 (beyond `EDGE`), and where u or the value overflows; never nan.
    """
    inside = (r >= -1.0 - EDGE) | (u == 0)
    r = np.maximum(r, -1.0)  # before q is made of it: a tiny q times log 0 would count as 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        q = u * (1.0 + r)
        w = np.log1p(r) - s
        far = moved - q + xlog1py(q, r) - q * s
        out = np.where(np.abs(w) <= NEAR, q * series(-w), far)
    return np.where(inside & ~np.isnan(out), np.maximum(out, 0.0), np.inf)


def cautious_bound(bend: float, reach: float) -> float | None:
    """A bound of Σ fenchel from bend = ΔᵀHΔ and reach ≥ max|xᵀΔ|: c(r)·bend, None from r = 1 on.

    c(r) = ∫₀¹(1−t)/(1−tr)dt, for losses whose curvature changes by a factor of at most e^|δ| over δ
    (logistic, multinomial, Poisson, Gamma, Tweedie): the dual's curvature is at least (1 − t|δ|) of
    the primal's a share t of the way.
    """
    if reach >= 1.0:
        return None
    if reach < 1e-3:
        return bend * (0.5 + reach / 6.0 + reach**2 / 10.0)
    return bend * (reach + (1.0 - reach) * float(np.log1p(-reach))) / reach**2
