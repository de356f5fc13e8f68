"""What the data do not determine: dependent columns, empty ones, and coefficients on their way to infinity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

from paramserver.messages import Array

DEPENDENT = 1e-10  #: share of a column's sum of squares that the others leave unexplained, at most
INVOLVED = 1e-6  #: a column with a smaller part in a dependence, relatively, has none
MOVING = 0.5  #: margins that one Newton step moves near an optimum, at least: there is none


class Undetermined(NamedTuple):
    """Directions along which nothing changes."""

    empty: tuple[int, ...]  #: coordinates without any effect
    groups: tuple[tuple[int, ...], ...]  #: coordinates that are linearly dependent
    basis: Array  #: (p, k): the directions of both kinds


def undetermined(hessian: Array, free: np.ndarray) -> Undetermined:
    """The null space of an exact Hessian (p, p) within the coordinates ``free`` (p,) of any penalty."""
    p = len(hessian)
    diagonal = np.diag(hessian)
    empty = np.flatnonzero(free & (diagonal <= 0))
    on = np.flatnonzero(free & (diagonal > 0))
    inside = _null_space(hessian[np.ix_(on, on)])
    basis = np.zeros((p, len(empty) + inside.shape[1]))
    basis[empty, np.arange(len(empty))] = 1.0
    basis[on, len(empty) :] = inside
    groups = _groups([on[_involved(v, diagonal[on])] for v in inside.T])
    return Undetermined(tuple(map(int, empty)), groups, basis)


def _null_space(A: Array) -> Array:
    """Directions v with vᵀAv ≈ 0, as columns, by a pivoted Cholesky factor of the scaled matrix."""
    m = len(A)
    if not m:
        return np.empty((0, 0))
    scale = 1.0 / np.sqrt(np.diag(A))
    factor, pivots, rank, _ = dpstrf(A * scale * scale[:, None], tol=DEPENDENT)
    order = pivots - 1
    out = np.zeros((m, m - rank))
    if rank < m:
        out[order[:rank]] = -solve_triangular(factor[:rank, :rank], factor[:rank, rank:])
        out[order[rank:], np.arange(m - rank)] = 1.0
    return np.asarray(out * scale[:, None])


def _involved(v: Array, diagonal: Array) -> np.ndarray:
    size = np.abs(v) * np.sqrt(diagonal)
    return np.asarray(size > INVOLVED * size.max())


def _groups(sets: list[np.ndarray]) -> tuple[tuple[int, ...], ...]:
    """Dependences that share a column are one."""
    groups: list[set[int]] = []
    for members in (set(map(int, found)) for found in sets):
        touching = [group for group in groups if group & members]
        groups = [group for group in groups if not group & members] + [members.union(*touching)]
    return tuple(tuple(sorted(group)) for group in sorted(groups, key=min))


def shortest(z: Array, basis: Array, counts: np.ndarray) -> Array:
    """z less its part along ``basis``: of all that fit alike, the least ‖z‖ over the coordinates ``counts``."""
    along = basis[counts]
    part, *_ = np.linalg.lstsq(along, z[counts], rcond=1e-12)
    return np.asarray(z - basis @ part)


def running_away(step: Array, reach: Array, free: np.ndarray) -> tuple[int, ...]:
    """Coordinates without penalty that a Newton step moves by half a margin or more, (p,) each.

    Near an optimum a step is small. Where one after the other is not, while the certified gap
    falls, the losses have an infimum at infinity and no minimum: separated classes, or levels
    whose counts are all zero (Albert & Anderson 1984).
    """
    moved = np.where(free, np.abs(step) * reach, 0.0)
    far = moved >= MOVING
    return tuple(map(int, np.flatnonzero(far & (moved >= 0.5 * moved.max(initial=0.0)))))
