"""Progressive hedging (Rockafellar & Wets 1991), asynchronous.

Chunk i is a scenario: f_i its cost times its probability m, J the part of z that is decided on its path. It
keeps w_i = x_i + u_i. A worker that pulls ẑ takes u = w_i − ẑ and answers

    x_i = argmin_x f_i(x) + ½mρ‖x − ẑ + u‖²,    w_i = x_i + u,

and the server's z is, at every node of the scenario tree, the mean of what passes there,

    z = argmin_z R(z) + ½ρΣ_i m‖z − w_i‖²,  without R: z = Σ m(x_i + u_i)/Σ m.

Their duals are W_i = ρu_i; with all chunks answering at every z, Σ m·u_i = 0, z is the mean of x_i, and this is
the paper's algorithm. Else z = mean(x_i) would lead to the wrong point, and so would a dual that is advanced
with another z than the one the worker pulled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.balance import balanced
from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup
from paramserver.consensus.hedging import Hedging, at, part, share_of, square, told
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.workers.problems.base import Problem


@dataclass
class HedgingState:
    """B = Σm and c = Σm(w_i − ref), (p,); ref is where the run started."""

    ref: Array
    B: Array
    c: Array
    rho: float
    rows: float
    rows_seen: float
    before: Array | None = None  #: z a sweep ago; not known when a run begins, or is taken up again
    changes: int = 0  #: of rho


@dataclass(frozen=True, kw_only=True)
class ProgressiveHedging(Hedging):
    """Progressive hedging: exact for convex programs, a linear number of sweeps at best.

    For `StochasticProgram`, and for any problem whose prox is known and depends on all of z (`Proximal`): there
    it is `ADMM` with metric "identity". It ends by residuals.

    Parameters
    ----------
    rho : float
        > 0, cost a unit of z squared: the change of a scenario's cost with a decision, over the change of the
        decision from scenario to scenario. Without ``balance`` a factor of 10 off may cost as much in rounds.
    relaxation : float
        In (0, 2): w_i moves by so many times x_i − ẑ; 1 is the paper's.
    balance : bool
        Change rho, about once a sweep, by the square root of the ratio of the primal to the dual residual, each
        relative to its own scale, so that it may be orders of magnitude off at first; at most 20 times.
    min_fresh, max_staleness :
        See `Consensus`; the paper's is ``min_fresh=N``.
    """

    relaxation: float = 1.0
    balance: bool = False

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {**Hedging.payload, "w": ("*",)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.relaxation < 2:
            raise InvalidInput(f"relaxation must lie in (0, 2), got {self.relaxation!r}")

    def init(self, setup: Setup) -> HedgingState:
        zeros = np.zeros(setup.p)
        return HedgingState(setup.start.z, zeros, zeros.copy(), self.rho, float(setup.rows), 0.0)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields:
        share, fields = share_of(problem, data), pull.fields
        z = part(share, pull.z)
        w = fields.get("w", z)
        found = self.near(problem, data, pull.z, share, 2.0 * z - w, fields["rho"])
        return {**found, "w": w + fields["relaxation"] * (found["x"] - z), **told(share, pull)}

    def plan(self, state: HedgingState, slot: Fields | None, z: Array) -> Fields:
        own = {} if slot is None else {"w": slot["w"]}
        return {"rho": state.rho, "relaxation": self.relaxation, **own}

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: HedgingState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        slot = self.slot(state, old, new)
        here, weight = at(slot), slot["weight"]
        if old is None:
            state.B[here] += weight
            state.rows_seen += new["rows"]
        state.c[here] += weight * (new["w"] - (state.ref[here] if old is None else old["w"]))
        return Absorbed(state, slot)

    def consensus(self, state: HedgingState, penalty: Bound, z: Array) -> tuple[Array, HedgingState]:
        if state.rows_seen <= 0:
            return z, state
        share = state.rho * (state.rows / state.rows_seen if state.rows_seen < state.rows else 1.0)
        return minimise(share * state.B, share * state.c, penalty, state.ref, z), state

    def rebuild(self, state: HedgingState, slots: Mapping[int, Fields], z: Array) -> HedgingState:
        zeros = np.zeros_like(state.B)
        fresh = replace(state, B=zeros, c=zeros.copy(), rows_seen=0.0)
        for chunk, slot in slots.items():
            self.absorb(fresh, chunk, None, slot)
        return fresh

    def recount(self, state: HedgingState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> HedgingState:
        """Chunks keep their w_i."""
        return self.rebuild(replace(state, rows=float(setup.rows)), slots, z)

    def update(self, state: HedgingState, old: Consensus, slots: dict[int, Fields], z: Array) -> HedgingState:
        """A new rho keeps the unscaled duals: u_i = w_i − z shrinks by as much as rho grows."""
        ratio = state.rho / self.rho
        for chunk, slot in slots.items():
            here = z[at(slot)]
            slots[chunk] = {**slot, "w": here + ratio * (slot["w"] - here)}
        changes = state.changes + (ratio != 1.0)
        return self.rebuild(replace(state, rho=self.rho, changes=changes), slots, z)

    def tuned(
        self, state: HedgingState, slots: Mapping[int, Fields], penalty: Bound, z: Array
    ) -> tuple[Consensus, HedgingState]:
        """By residual balancing."""

        def squared(slot: Fields, name: str, centre: Array) -> float:
            return square(slot, slot[name] - centre[at(slot)])

        return balanced(self, state, slots, z, squared, lambda v: float(state.B @ v**2))
