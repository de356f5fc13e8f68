"""What rules share whose workers take several steps of their own before they push.

The steps of all chunks are of one metric, L·D/rate: D = Σ_i diag H_i(null model), which the first
pushes bring, L the largest curvature that any chunk met, in units of D. A chunk's own, f_i, counts by
the inverse of its share of the rows, so that f_i/share + R is what it knows of F.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Consensus, Pull, Setup
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound, Terms
from paramserver.workers.descent import Local, parts, terms_of
from paramserver.workers.problems.base import Problem

ONE_SHOT = 0.25  #: the gap of the mean of the chunks' own optima, over (p/n_i)², measured: 0.19 to 0.45
STIFF = 2.0  #: L of ordinary columns, which are correlated a little


@dataclass(kw_only=True)
class LocalState:
    """What the local steps go by."""

    null: Array
    D: Array  #: over the chunks seen, (p,)
    stiff: float
    l1: Array  #: R's terms, each (p,)
    l2: Array
    lower: Array
    upper: Array
    n_chunks: int
    rows: float  #: of all chunks
    rows_seen: float

    @property
    def share(self) -> float:
        """What has been seen, of all rows."""
        return min(self.rows_seen / self.rows, 1.0)


@dataclass(frozen=True, kw_only=True)
class LocalSteps(Consensus):
    """A rule with local steps."""

    local_steps: int = 5
    rate: float = 1.0

    optional: ClassVar[frozenset[str]] = frozenset({"d"})
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_diagonal")
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_steps < 1:
            raise InvalidInput(f"local_steps must be ≥ 1, got {self.local_steps!r}")
        if not 0 < self.rate <= 1:
            raise InvalidInput(f"rate must lie in (0, 1], of the longest step that is safe, got {self.rate!r}")

    def suits(self, penalty: Bound) -> None:
        if penalty.separable() is None:
            raise InvalidInput(
                f"{type(self).__name__} takes local steps on the penalty too, and knows sums over coordinates (L1, L2, "
                f'Box …), not {penalty.penalty!r}: pass consensus="newton", "admm" or "prox_gradient"'
            )

    def begun(self, setup: Setup) -> dict[str, Any]:
        """The fields of a `LocalState` before any push."""
        terms = setup.bound.separable()
        assert terms is not None  # `suits`
        return {
            "null": setup.start.z, "D": np.zeros(setup.p), "stiff": 1.0, **terms._asdict(),
            "n_chunks": setup.n_chunks, "rows": float(setup.rows), "rows_seen": 0.0,
        }  # fmt: skip

    # -- the worker ------------------------------------------------------------------------------

    def first(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        """The first answer takes no steps: it brings the chunk's part of the metric."""
        at = problem.evaluate(data, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        null = problem.curvature(data, pull.fields["null"])  # type: ignore[attr-defined]
        d = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        return {"x": pull.z, "f": float(at.value), "g": at.gradient, "stiff": np.float64(0.0), "d": d}

    @staticmethod
    def stepping(fields: Fields) -> Local:
        """What `paramserver.workers.descent` goes by: as planned, for settings may have changed since the launch."""
        D = fields["D"]
        share, stiff, rate, steps = (fields[name] for name in ("share", "stiff", "rate", "steps"))
        return Local(share, terms_of(fields, len(D)), D, stiff, rate, steps, fields.get("mu", 0.0))

    def plan(self, state: LocalState, slot: Fields | None, z: Array) -> Fields:
        if slot is None:
            return {"null": state.null}
        terms = parts(Terms(state.l1, state.l2, state.lower, state.upper))
        D = state.D / state.share  # what has reported stands for the rest
        settings: Fields = {"rate": self.rate, "steps": self.local_steps}
        return {"D": D, "stiff": state.stiff, "share": slot["rows"] / state.rows, **settings, **terms}

    def fits(self, state: LocalState, old: Fields | None, payload: Fields) -> bool:
        return old is not None or "d" in payload

    # -- the server ------------------------------------------------------------------------------

    @staticmethod
    def met(state: Any, old: Fields | None, new: Fields) -> Any:
        """The state with what a push says of curvature."""
        if old is None:
            return replace(state, D=state.D + new["d"], rows_seen=state.rows_seen + new["rows"])
        return replace(state, stiff=max(state.stiff, float(new["stiff"])))

    @staticmethod
    def under(state: Any, penalty: Bound) -> Any:
        """The state with today's R."""
        terms = penalty.separable()
        assert terms is not None  # `suits`
        return replace(state, **terms._asdict())

    def rebuild(self, state: Any, slots: Mapping[int, Fields], z: Array) -> Any:
        D = sum((slot["d"] for slot in slots.values()), np.zeros_like(state.D))
        return replace(state, D=D, rows_seen=float(sum(slot["rows"] for slot in slots.values())))

    def recount(self, state: Any, setup: Setup, slots: Mapping[int, Fields], z: Array) -> Any:
        """A chunk's part of the metric holds whatever chunks are beside it."""
        return self.rebuild(replace(state, rows=float(setup.rows), n_chunks=setup.n_chunks), slots, z)

    def dual(self, slot: Fields) -> Array:
        return -np.asarray(slot["g"])


def one_shot(setup: Setup) -> float:
    """The gap of the mean of the chunks' own optima, relatively, where their rows are alike.

    That mean is off by order 1/n_i (Zhang, Duchi & Wainwright 2013, theorem 1), in the losses' own units
    by p/n_i, and F therefore by n·(p/n_i)².
    """
    return ONE_SHOT * (setup.p * setup.n_chunks / setup.rows) ** 2
