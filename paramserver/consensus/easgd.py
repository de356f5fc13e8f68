"""Elastic averaging, asynchronous (Zhang, Choromanska & LeCun 2015, algorithm 1).

Chunk i keeps a variable x_i of its own. A worker that pulls ẑ moves it towards ẑ, and ẑ by as much towards
it, before it takes k proximal gradient steps on what the chunk knows of F, f_i·n/n_i + R:

    e = α(x_i − ẑ),    x_i ← (x_i − e), then k steps,    z ← z + e,    α = β/N.

The elastic difference e counts once: it is a delta on the variable that it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Absorbed, Pull, Setup
from paramserver.consensus.local import STIFF, LocalState, LocalSteps, one_shot
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.workers.descent import descend
from paramserver.workers.problems.base import Problem


@dataclass(kw_only=True)
class ElasticState(LocalState):
    """What z has yet to move by."""

    e: Array  #: Σ e of the pushes since the last z, (p,)


@dataclass(frozen=True, kw_only=True)
class EASGD(LocalSteps):
    """Chunks' own variables, each tied to z by a spring (elastic averaging). Not exact.

    To compare with. The springs give, so that z stays off the optimum where chunks differ: `ADMM` has the
    same springs and the duals that take their pull away.

    Parameters
    ----------
    local_steps : int
        k ≥ 1 between two exchanges of a chunk, each a pass over it (the paper's τ).
    beta : float
        β in (0, 1]: how far z moves towards the mean of the x_i in one sweep.
    rate : float
        In (0, 1], of the longest step that no chunk's curvature forbids.
    min_fresh, max_staleness :
        See `Consensus`.

    Notes
    -----
    Where rows are alike it comes to a gap of about (p/n_i)²/4 + p/(15n) of F(null model), the latter where
    chunks report one by one (`floor`); where they differ it may be no better than the null model.
    """

    beta: float = 0.9

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("p",), "f": (), "g": ("p",), "stiff": (), "d": ("p",), "e": ("p",),
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset({"d", "e"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta <= 1:
            raise InvalidInput(f"beta must lie in (0, 1], got {self.beta!r}")

    def init(self, setup: Setup) -> ElasticState:
        return ElasticState(**self.begun(setup), e=np.zeros(setup.p))

    def floor(self, setup: Setup) -> float:
        """That of the chunks' own optima, by how far the springs let the chunks go towards them; and what z lags.

        A chunk's variable comes to rest where x_i = (w_i + s·z)/(1 + s), w_i its own optimum, s = α·l/(1 − l) with
        what k steps leave, l = (1 − hλ)^k; −dln(A/λ)/dlnλ with A = 1/(1 + s) is between 0 and 1, as in `FedAvg.floor`.
        Where chunks report one by one, z weighs them by how lately they did, by e^−βt in the order of a sweep:
        β²/12 too much of what they vary by, which is p in units of the losses.
        """
        k, h, alpha = self.local_steps, self.rate / STIFF, self.beta / setup.n_chunks
        left = (1.0 - h) ** k
        spring = alpha * left / (1.0 - left)
        way = 1.0 - alpha * k * h * left / ((1.0 - h) * (1.0 - left) ** 2 * (1.0 + spring))
        lag = 0.0 if (self.min_fresh or 1) >= setup.n_chunks else self.beta**2 / 12.0 * setup.p / setup.rows
        return one_shot(setup) * way**2 + lag

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        if "null" in pull.fields:
            return self.first(problem, data, pull)
        out: Fields = {}
        x = pull.z
        if not pull.whole:
            out["e"] = pull.fields["alpha"] * (pull.fields["x"] - pull.z)
            x = pull.fields["x"] - out["e"]
        moved = descend(problem, data, x, self.stepping(pull.fields))
        if moved is None:
            return None
        at, stiff = moved.at, np.float64(moved.stiff)
        return {**out, "x": moved.x, "f": float(at.value), "g": at.gradient, "stiff": stiff}

    def plan(self, state: LocalState, slot: Fields | None, z: Array) -> Fields:
        own = {} if slot is None else {"x": slot["x"], "alpha": self.beta / state.n_chunks}
        return {**super().plan(state, slot, z), **own}

    def is_delta(self, payload: Fields) -> bool:
        return "e" in payload

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: ElasticState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        state, slot = self.met(state, old, new), {**(old or {}), **new}
        e = slot.pop("e", None)
        return Absorbed(state if e is None else replace(state, e=state.e + e), slot)

    def consensus(self, state: ElasticState, penalty: Bound, z: Array) -> tuple[Array, ElasticState]:
        moved = penalty.project(z + state.e)  # several at once may lead beyond a bound
        return moved, replace(self.under(state, penalty), e=np.zeros_like(state.e))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' values and slopes at their own variables, drawn out to z: from below."""
        lines = (slot["f"] + slot["g"] @ (z - slot["x"]) for slot in slots.values())
        return penalty.value(z) + float(sum(lines))
