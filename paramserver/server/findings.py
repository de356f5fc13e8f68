"""What a certified fit leaves open, in words: dependent and empty columns, coefficients without a finite value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from paramserver.identify import Undetermined, shortest, undetermined
from paramserver.messages import Array
from paramserver.penalties import Bound, Norms
from paramserver.server.parameters import Parameters

SHOWN = 12  #: columns named in one note


def free_of(bound: Bound) -> np.ndarray:
    """Mask (p,) of the coordinates that nothing but the data hold: no penalty and no bound."""
    form = bound.terms()
    if form is None:
        return ~bound.mask
    if isinstance(form, Norms):
        return np.asarray(form.ids < 0)
    return np.asarray((form.l1 == 0) & (form.l2 == 0) & np.isneginf(form.lower) & np.isposinf(form.upper))


def open_directions(params: Parameters, hessian: Array, support: np.ndarray | None = None) -> Undetermined | None:
    """What this exact Hessian (of the coordinates ``support``, or all) leaves undetermined.

    None where it determines all, or cannot tell: a loss with straight stretches has no curvature
    there, and is not constant along them.
    """
    if not params.problem.curved:
        return None
    free = free_of(params.bound)
    if free.sum() <= 1:
        return None
    if support is None:
        found = undetermined(hessian, free)
    else:
        small = undetermined(hessian, free[support])
        basis = np.zeros((len(free), small.basis.shape[1]))
        basis[support] = small.basis
        groups = tuple(tuple(int(support[j]) for j in group) for group in small.groups)
        found = Undetermined(tuple(int(support[j]) for j in small.empty), groups, basis)
    return found if found.basis.size else None


def least_norm(params: Parameters, found: Undetermined) -> Array:
    """The z of least norm (intercepts not counted) among those that fit as well as today's."""
    assert params.z is not None
    return shortest(params.z, found.basis, params.bound.mask)


def notes(params: Parameters, found: Undetermined, names: tuple[str, ...] | None) -> list[str]:
    """One note on empty columns, one on each group of dependent ones."""
    out = []
    if found.empty:
        shown = listed(params, found.empty, names)
        out.append(f"without effect, because zero (or constant beside an intercept) in every row: {shown}: given as 0")
    known = set(params.problem.redundant(len(params.bound.mask)))
    for group in (group for group in found.groups if group not in known):
        shown = listed(params, group, names)
        out.append(f"linearly dependent: {shown}: only their sum effect is determined; least-norm coefficients given")
    return out


def separation(params: Parameters, coordinates: Iterable[int], names: tuple[str, ...] | None) -> str:
    """Why these have no finite optimum."""
    shown = listed(params, coordinates, names)
    return (
        f"no finite optimum of {shown}: half a margin or more at every Newton step, towards infinity "
        "(separation: some rows are predicted without error); the certified gap holds, these coefficients and their "
        "standard errors mean nothing: penalise them, or drop or merge those columns"
    )


def listed(params: Parameters, coordinates: Iterable[int], names: tuple[str, ...] | None) -> str:
    """The coordinates by name, the first few."""
    texts = [_name(params, j, names) for j in coordinates]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")


def _name(params: Parameters, coordinate: int, names: tuple[str, ...] | None) -> str:
    assert params.setup is not None
    unit = np.zeros(params.setup.p)
    unit[coordinate] = 1.0
    coef = np.asarray(params.problem.unpack(unit)[0])
    if not coef.any():
        return "the intercept"
    *row, column = (int(k) for k in np.argwhere(coef)[0])
    name = f"x{column}" if names is None else names[column]
    return f"{name}[{row[0]}]" if row else name
