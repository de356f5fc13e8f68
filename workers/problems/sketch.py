"""A few weighted points in the place of many, for a null model's median or quantile."""

from __future__ import annotations

import numpy as np

from paramserver.messages import Array

POINTS = 256


def sketch(values: Array, weight: Array) -> Array:
    """(2·POINTS,): points in ascending order, then their weights; unused ones weigh 0.

    Groups of about equal weight, each at its mean: a sum of functions that are straight across a
    group is exact, and a quantile's rank off by 1/POINTS at most.
    """
    used = weight > 0
    values, weight = values[used], weight[used]
    order = np.argsort(values, kind="stable")
    values, weight = values[order], weight[order]
    out = np.zeros((2, POINTS))
    if len(values) <= POINTS:
        out[:, : len(values)] = values, weight
        return out.ravel()
    middle = np.cumsum(weight) - weight / 2
    group = np.minimum((middle * (POINTS / weight.sum())).astype(np.intp), POINTS - 1)
    total = np.bincount(group, weights=weight, minlength=POINTS)
    sums = np.bincount(group, weights=weight * values, minlength=POINTS)
    out[:] = np.divide(sums, total, out=np.zeros(POINTS), where=total > 0), total
    return out.ravel()


def points(flat: Array) -> tuple[Array, Array]:
    """(values, weights) of a sketch, those that weigh something."""
    values, weight = flat.reshape(2, -1)
    return values[weight > 0], weight[weight > 0]


def pooled(a: Array, b: Array) -> Array:
    """Two sketches as one."""
    (v, weight), (v2, weight2) = points(a), points(b)
    return sketch(np.append(v, v2), np.append(weight, weight2))
