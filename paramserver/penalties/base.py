"""What a penalty says, and a penalty on the whole of z.

A penalty acts on the penalised coordinates only: `Bound` puts one onto the whole of z, where the
problem says which coordinates (the intercept, say) are free. To write one, subclass `Penalty`:
value, prox and subgradient suffice (`paramserver.testing.check_penalty` checks them). Where it is
a separable elastic net with bounds, or a sum of group norms, subclass `KnownForm` and say `terms`
instead: the rest follows, the exact consensus step and the certificate too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from paramserver.messages import Array
from paramserver.penalties.norms import Ids, Norms
from paramserver.penalties.terms import Terms


class Penalty(ABC):
    """A convex R: w ↦ R(w) ≥ 0 for a (d,) vector w of penalised coordinates."""

    @abstractmethod
    def value(self, w: Array) -> float:
        """R(w), infinite outside its domain."""

    @abstractmethod
    def prox(self, v: Array, steps: Array) -> Array:
        """argmin_w R(w) + Σ (w_j − v_j)²/(2·steps_j); one positive step a coordinate, (d,)."""

    @abstractmethod
    def subgradient(self, w: Array, near: Array) -> Array:
        """The element of ∂R(w) nearest to ``near``, (d,)."""

    def terms(self, d: int) -> Terms | Norms | None:
        """R's form on d coordinates; None: known by its prox alone.

        Raises
        ------
        InvalidInput
            The settings are for another number of coordinates.
        """
        return None

    def blocks(self, d: int) -> Ids | None:
        """Ids (d,), from 0: ``prox`` needs equal steps where these are equal; None: it takes any.

        Called where ``terms`` says None. A separable R takes any steps; one that is not says here
        which coordinates it ties together (zeros: all).
        """
        return None

    def check_columns(self, n_columns: int, d: int) -> None:  # noqa: B027
        """Refuse settings for another number of columns than the data's; d coordinates are penalised."""

    def project(self, w: Array) -> Array:
        """The point nearest to ``w`` where R is finite; by default R is finite everywhere."""
        return w

    def distance(self, w: Array, v: Array) -> float:
        """Euclidean distance from ``v`` to ∂R(w)."""
        return float(np.linalg.norm(v - self.subgradient(w, v)))


class KnownForm(Penalty):
    """A penalty that is what its ``terms`` say."""

    @abstractmethod
    def terms(self, d: int) -> Terms | Norms:
        """R's form on d coordinates."""

    def value(self, w: Array) -> float:
        return self.terms(len(w)).value(w)

    def prox(self, v: Array, steps: Array) -> Array:
        return self.terms(len(v)).prox(v, steps)

    def subgradient(self, w: Array, near: Array) -> Array:
        return self.terms(len(w)).subgradient(w, near)

    def project(self, w: Array) -> Array:
        return self.terms(len(w)).project(w)


class Given(KnownForm):
    """A penalty that is known by its terms alone."""

    def __init__(self, form: Terms) -> None:
        self.form = form

    def terms(self, d: int) -> Terms:
        return self.form


class Bound(NamedTuple):
    """A penalty on the whole of z: ``mask`` (p,) bool says which coordinates are penalised."""

    penalty: Penalty
    mask: np.ndarray

    def value(self, z: Array) -> float:
        """R of the penalised coordinates of z."""
        return self.penalty.value(z[self.mask])

    def prox(self, v: Array, steps: Array) -> Array:
        """`Penalty.prox` on the penalised coordinates, the identity on the others."""
        return self._with(v, self.penalty.prox(v[self.mask], steps[self.mask]))

    def project(self, z: Array) -> Array:
        """The point nearest to z where R is finite."""
        return self._with(z, self.penalty.project(z[self.mask]))

    def subgradient(self, z: Array, near: Array) -> Array:
        """The element of ∂R(z) nearest to ``near``; zero on free coordinates."""
        return self._with(np.zeros_like(z), self.penalty.subgradient(z[self.mask], near[self.mask]))

    def distance(self, z: Array, v: Array) -> float:
        """Euclidean distance from ``v`` to ∂R(z), free coordinates included."""
        return float(np.linalg.norm(v - self.subgradient(z, v)))

    def bregman(self, z: Array, at: Array, slope: Array) -> float:
        """R(z) − R(at) − slopeᵀ(z − at) ≥ 0 for ``slope`` ∈ ∂R(at); infinite where R(z) is."""
        terms = self.terms()
        if terms is not None:
            return terms.bregman(z, at, slope)
        value = self.value(z)
        return max(value - self.value(at) - float(slope @ (z - at)), 0.0) if np.isfinite(value) else np.inf

    def terms(self) -> Terms | Norms | None:
        """`Penalty.terms` over the whole of z, free coordinates without any."""
        terms = self.penalty.terms(int(self.mask.sum()))
        return None if terms is None else terms.lift(self.mask)

    def separable(self) -> Terms | None:
        """`terms` where R is a sum over coordinates."""
        terms = self.terms()
        return terms if isinstance(terms, Terms) else None

    def on(self, coordinates: np.ndarray) -> Bound:
        """A separable R of these coordinates alone."""
        terms = self.separable()
        assert terms is not None
        return Bound(Given(terms.of(coordinates)), np.ones(len(coordinates), bool))

    def blocks(self) -> Ids | None:
        """`Penalty.blocks` over the whole of z, each free coordinate a block of its own."""
        blocks = self.penalty.blocks(int(self.mask.sum()))
        if blocks is None:
            return None
        out = np.arange(len(self.mask)) + int(np.max(blocks, initial=-1)) + 1
        out[self.mask] = blocks
        return out

    def _with(self, z: Array, part: Array) -> Array:
        out: Array = z.copy()
        out[self.mask] = part
        return out
