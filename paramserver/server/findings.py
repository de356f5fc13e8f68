"""What a certified fit leaves open, in words: dependent and empty columns, coefficients without a finite value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from paramserver.consensus.base import Consensus, Setup
from paramserver.identify import Undetermined
from paramserver.penalties import Bound, Norms
from paramserver.server.parameters import Parameters

SHOWN = 12  #: columns named in one note


class Notes(list[str]):
    """What a reader should know; ``found`` are those that hold for today's objective only."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def say(self, text: str) -> None:
        """Once, if it says anything."""
        if text and text not in self:
            self.append(text)

    def find(self, text: str) -> None:
        """Once, and until the objective is another."""
        if text:
            self.say(text)
            self.found.add(text)

    def unfind(self) -> None:
        """Another objective: what was found of the old one does not hold for it."""
        self[:] = [text for text in self if text not in self.found]
        self.found.clear()


def free_of(bound: Bound) -> np.ndarray:
    """Mask (p,) of the coordinates that nothing but the data hold: no penalty and no bound."""
    form = bound.terms()
    if form is None:
        return ~bound.mask
    if isinstance(form, Norms):
        return np.asarray(form.ids < 0)
    return np.asarray((form.l1 == 0) & (form.l2 == 0) & np.isneginf(form.lower) & np.isposinf(form.upper))


def notes(params: Parameters, found: Undetermined, names: tuple[str, ...] | None, fits: bool) -> list[str]:
    """One note on empty columns, one on each group of dependent ones; ``fits``: z is the one of least norm."""
    out = []
    if found.empty:
        shown = listed(params, found.empty, names)
        given = ": given as 0" if fits else ""
        out.append(f"without effect, because zero (or constant beside an intercept) in every row: {shown}{given}")
    known = set(params.problem.redundant(len(params.bound.mask)))
    for group in (group for group in found.groups if group not in known):
        shown = listed(params, group, names)
        if fits:
            out.append(
                f"linearly dependent: {shown}: only their sum effect is determined; least-norm coefficients given"
            )
        else:
            out.append(f"linearly dependent in the rows that have curvature to speak of here: {shown}: given as found")
    return out


def floor(rule: Consensus, setup: Setup, tol: float) -> str:
    """That this rule does not come to the tolerance."""
    least = rule.floor(setup)
    if not tol < least:
        return ""
    return (
        f"{type(rule).__name__} is not exact: with these settings and chunks that are alike it comes to a gap of about "
        f"{least:.1g}, not to tol = {tol:.1g}, and less far where chunks differ; expect it to stall, or pass an exact "
        'rule: consensus="auto"'
    )


def separation(params: Parameters, coordinates: Iterable[int], names: tuple[str, ...] | None) -> str:
    """Why these have no finite optimum."""
    shown = listed(params, coordinates, names)
    return (
        f"no finite optimum in sight: the coefficients of {shown} run to infinity, each Newton step moves them by half "
        "a margin or more (separation: some rows are predicted without error); the certified gap holds, but these "
        "coefficients and their standard errors mean nothing: penalise them, or drop or merge those columns"
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
