"""Which method finds the step: by R's form and the metric's."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.messages import Array
from paramserver.penalties import Bound, Norms, Terms
from paramserver.quadratic.accelerated import accelerated
from paramserver.quadratic.active_set import active_set
from paramserver.quadratic.factor import Factor, scale_of
from paramserver.quadratic.groups import group_descent


def minimise(B: Array, c: Array, bound: Bound, ref: Array, start: Array) -> Array:
    """The minimiser, (p,), within R's domain. ``B`` is (p, p) or, for a diagonal metric, (p,).

    Exact to rounding where R says its form (`Penalty.terms`). ``start`` picks the representative
    where B and R leave a direction free.
    """
    terms = bound.terms()
    if B.ndim == 1:
        return _diagonal(B, c, bound, terms, ref, start)
    if terms is None:
        return accelerated(B, B @ (start - ref) - c, bound, start)
    solve: Any = group_descent if isinstance(terms, Norms) else _separable
    for _ in range(3):
        w: Array = solve(B, B @ (start - ref) - c, terms, start)
        if not ((np.abs(start) > 4.0 * np.abs(w)) & (w != 0)).any():
            break
        start = w  # w = start + t lost the digits of a start that was far larger
    return w


def _separable(B: Array, slope: Array, terms: Terms, start: Array) -> Array:
    A = B.copy()
    A.flat[:: len(A) + 1] += terms.l2
    slope = slope + terms.l2 * start
    if terms.smooth:
        return start - Factor(A).solve(slope, refinements=1)  # slope is of start: the next step refines this one
    scale = scale_of(A)
    scaled = Terms(terms.l1 * scale, np.zeros_like(scale), terms.lower / scale, terms.upper / scale)
    A *= scale[:, None]
    A *= scale
    v = active_set(A, slope * scale, scaled, start / scale)
    w = np.where(v == scaled.lower, terms.lower, np.where(v == scaled.upper, terms.upper, v * scale))
    return terms.project(w)


def _diagonal(B: Array, c: Array, bound: Bound, terms: Terms | Norms | None, ref: Array, start: Array) -> Array:
    """A diagonal metric makes the step the elementwise prox, and only then; without curvature ``start`` stays."""
    if terms is None and bound.blocks() is not None:
        return accelerated(np.diag(B), B * (start - ref) - c, bound, start)
    known = B > 0
    safe = np.where(known, B, 1.0)
    if isinstance(terms, Norms):  # a group is one: curvature on part of it decides the rest
        return np.where(known | (terms.ids >= 0), _grouped(B, c, terms, ref, safe), start)
    return np.where(known, bound.prox(ref + c / safe, 1.0 / safe), bound.project(start))


def _grouped(B: Array, c: Array, terms: Norms, ref: Array, safe: Array) -> Array:
    return np.where(terms.ids < 0, ref + c / safe, terms.shrink(c + B * ref, B))
