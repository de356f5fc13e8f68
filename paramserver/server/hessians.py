"""Which Hessians a verification is made of: asked for, or kept from before.

Let D̃ be the rows' curvatures at a z near by and H̃ = XᵀD̃X. The duals θ = ℓ' + D̃·xᵀΔ, with Δ from H̃,
are as feasible as those of a Hessian made here (`paramserver.certificate`). Where ℓ'' > 0 they are
ℓ' + ℓ''·δ with δ = (D̃/ℓ'')·xᵀΔ, so that with ρ = max D̃/ℓ'' what bounds the Fenchel term holds for
ρ·ΔᵀH̃Δ and ρ·max|xᵀΔ|: a verification costs no more than a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from paramserver.consensus.base import Kept
from paramserver.messages import Array, Fields
from paramserver.server.gather import Gather
from paramserver.server.parameters import Parameters

WORTH = 32  #: coordinates from which a Hessian costs more than a gradient: below, Newton's own are better


@dataclass
class Hessians:
    """Where the Hessians were made that the last model is the sum of.

    Attributes
    ----------
    anew : the kept ones did not do: the next verification asks for all.
    made_at : of each chunk that answered, the z.
    told : of each chunk that was asked, what was kept then: its answer is about that, whatever comes in between.
    """

    params: Parameters
    anew: bool = False
    made_at: dict[int, Array] = field(default_factory=dict, repr=False)
    told: dict[int, Kept | None] = field(default_factory=dict, repr=False)
    borrowed: bool = False  #: some were made at another z than the one verified

    def begin(self) -> None:
        """Another model."""
        self.made_at, self.told, self.borrowed = {}, {}, False

    def void(self) -> None:
        """Nothing that was found holds."""
        self.begin()
        self.anew = False

    def question(self, gather: Gather, chunk: int) -> Fields:
        """What this chunk is to be asked about its Hessian in a VERIFY gather."""
        if chunk not in self.told:
            self.told[chunk] = self._kept(gather, chunk)
        kept = self.told[chunk]
        if kept is None or self.params.problem.quadratic:
            return {"hessian": kept is None}
        return {"hessian": False, "hessian_at": kept.at}

    def dual(self, chunk: int) -> Fields:
        """Whose curvatures the last model's dual is made of, for a CONJUGATE gather."""
        return {"hessian_at": self.made_at[chunk]} if self.borrowed else {}

    def completed(self, gather: Gather, chunk: int, answer: Fields) -> tuple[Fields, Array] | None:
        """(an answer with the Hessian that was kept, if it has none itself; the z of that); None where none is."""
        assert gather.z is not None
        if "H" in answer:
            return answer, gather.z
        kept = self.told.get(chunk)
        return None if kept is None else ({**answer, "H": kept.hessian}, kept.at)

    def settle(self, gather: Gather, chunk: int, at: Array) -> None:
        """A chunk's answer is taken, its Hessian made there."""
        assert gather.z is not None
        self.borrowed |= not (at is gather.z or self.params.problem.quadratic or np.array_equal(at, gather.z))
        self.made_at[chunk] = at

    def _kept(self, gather: Gather, chunk: int) -> Kept | None:
        """The chunk's Hessian, where it need not be made again to certify."""
        problem, slot, support = self.params.problem, self.params.slots[chunk].fields, gather.fields.get("support")
        setup = self.params.setup
        size = 0 if setup is None else setup.p if support is None else len(support)
        borrows = problem.bending and not self.anew and size >= WORTH
        if slot is None or "without" in gather.fields or not (problem.quadratic or borrows):
            return None
        kept = self.params.rule.kept(slot)
        return kept if kept is None or support is None or len(kept.hessian) == len(support) else None
