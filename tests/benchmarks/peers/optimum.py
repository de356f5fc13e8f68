"""F* by proximal Newton in numpy, without the library: on all columns, or on those that may be non-zero."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .objective import Array, Judge, Objective

ENOUGH = 1e-20  #: of the Newton decrement over F(null model); F itself ends near 1e-16


def judge(objective: Objective, folder: Path) -> Judge:
    """F* and F(null model), found once a case; z* is kept beside them."""
    file = folder / f"{objective.case.name}.json"
    if not file.exists():
        z, best = optimum(objective)
        np.save(file.with_suffix(".npy"), z)
        file.write_text(json.dumps({"best": best, "null": objective.value(objective.null())}))
    known = json.loads(file.read_text())
    return Judge(objective, known["best"], known["null"])


def optimum(objective: Objective) -> tuple[Array, float]:
    """z* and F*.

    Raises
    ------
    RuntimeError
        50 steps were not enough.
    """
    z = objective.null()
    now = null = objective.value(z)
    for _ in range(50):
        gradient = objective.gradient(z)
        on = _may_be_nonzero(objective, z, gradient)
        H = objective.hessian(z, on)
        l1 = np.where(on < objective.d, objective.case.l1, 0.0)
        step = np.zeros(objective.p)
        step[on] = minimise(H, gradient[on], l1, z[on])
        decrement = float(step[on] @ H @ step[on])
        z, now = _along(objective, z, step, now)
        if decrement < ENOUGH * null:
            return z, now
    raise RuntimeError(f"no optimum of {objective.case.name}: the last Newton decrement is {decrement:.1e}")


def _may_be_nonzero(objective: Objective, z: Array, gradient: Array) -> Array:
    """Those that are not zero, are free, or whose gradient nearly holds against l1; at most 2000 new ones."""
    slack = np.abs(gradient) - 0.9 * objective.case.l1
    slack[(z != 0) | (np.arange(objective.p) >= objective.d)] = np.inf
    order = np.argsort(-slack, kind="stable")[: np.count_nonzero(z) + 2000]
    return np.sort(order[slack[order] > 0])


def _along(objective: Objective, z: Array, step: Array, now: float) -> tuple[Array, float]:
    """The first of z + step, z + step/2 … that is no worse; z itself where rounding is all that is left."""
    for t in 0.5 ** np.arange(30):
        value = objective.value(z + t * step)
        if value <= now:
            return z + t * step, value
    return z, now


def minimise(H: Array, g: Array, l1: Array, v: Array) -> Array:
    """argmin over s of gᵀs + ½sᵀHs + Σ l1|v + s|: coordinate descent, made exact once it has found the signs."""
    if not l1.any():
        return -np.linalg.solve(H, g)
    s, slope = np.zeros_like(v), g.copy()
    for _ in range(200):
        for _ in range(10):
            _sweep(H, slope, l1, v, s)
        exact = _on_support(H, g, l1, v, v + s)
        if _holds(H, g, l1, v, exact, v + s):
            return exact
    return s


def _sweep(H: Array, slope: Array, l1: Array, v: Array, s: Array) -> None:
    """Once over all coordinates; ``slope`` is g + Hs throughout."""
    for j in range(len(v)):
        old = v[j] + s[j]
        moved = old - slope[j] / H[j, j]
        new = np.sign(moved) * max(abs(moved) - l1[j] / H[j, j], 0.0)
        if new != old:
            slope += H[j] * (new - old)
            s[j] += new - old


def _on_support(H: Array, g: Array, l1: Array, v: Array, w: Array) -> Array:
    """The minimiser of the model among points with w's signs and zeros."""
    on = (w != 0) | (l1 == 0)
    out = -v.copy()
    rest = g[on] + l1[on] * np.sign(w[on]) + H[np.ix_(on, ~on)] @ out[~on]
    out[on] = -np.linalg.solve(H[np.ix_(on, on)], rest)
    return out


def _holds(H: Array, g: Array, l1: Array, v: Array, s: Array, w: Array) -> bool:
    """Whether s is optimal: w's signs kept, and no zero coordinate's slope beyond l1."""
    kept = np.sign(v + s) == np.sign(w)
    slope = np.abs(g + H @ s)
    return bool(np.where((w != 0) | (l1 == 0), kept | (l1 == 0), slope <= l1).all())
