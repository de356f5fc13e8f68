"""What progressive and projective hedging share: local solves near a point, of the coordinates that a chunk knows.

F(z) = Σ_i f_i(z_J) + R(z), where J is the part of z that chunk i knows (the problem's `knows`; all of it for an
ordinary problem) and m_j > 0 how much the chunk counts in the mean at coordinate j: a scenario's
probability. Chunk i answers with

    x = argmin_x f_i(x) + ½Σ_j m_j·ρ(x_j − c_j)²,    y = ρ(x − c),

so that −m·y ∈ ∂f_i(x): whatever z and duals it was made of, an answer stays true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.base import Consensus, Pull
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.views import Residuals
from paramserver.workers.problems.base import Share

KNOWN = ("index", "weight")  #: payload fields that are the same in every push of a chunk


@dataclass(frozen=True, kw_only=True)
class Hedging(Consensus):
    """Base class: settings, payload, readings."""

    rho: float = 1.0

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("*",), "y": ("*",), "f": (), "index": ("*",), "weight": ("*",),
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset(KNOWN)
    replays: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("prox",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.rho) and self.rho > 0):
            raise InvalidInput(f"rho must be a finite number > 0, got {self.rho!r}")

    def slot_bytes(self, p: int) -> int:
        """At most: of a chunk that knows all of z."""
        return 8 * p * len(self.shapes)

    def is_delta(self, payload: Fields) -> bool:
        return "index" not in payload

    # -- the worker ------------------------------------------------------------------------------

    def near(self, problem: Any, data: Any, z: Array, share: Share | None, centre: Array, rho: float) -> Fields:
        """x, y and f of a solve about ``centre``, (k,)."""
        if share is None:
            x, f = problem.prox(data, centre, rho)
        else:
            point, bend = z.copy(), np.zeros(len(z))
            point[share.coordinates], bend[share.coordinates] = centre, rho * share.weight
            whole, f = problem.prox(data, point, bend)
            x = whole[share.coordinates]
        return {"x": x, "y": rho * (x - centre), "f": float(f)}

    # -- the server ------------------------------------------------------------------------------

    def fits(self, state: Any, old: Fields | None, payload: Fields) -> bool:
        """Every field is as long as the chunk's part of z, and that is of z."""
        known = payload if "index" in payload else old
        if known is None:
            return False
        index, weight, p = known["index"], known["weight"], self.size(state)
        k = len(index if old is None else old["index"])
        if any(len(value) != k for name, value in payload.items() if name != "f"):
            return False
        inside = (index >= 0).all() and (index < p).all() and (index % 1 == 0).all()
        return bool(inside and len(np.unique(index)) == k and (weight > 0).all())

    def size(self, state: Any) -> int:
        """The length of z."""
        return len(state.ref)

    def slot(self, state: Any, old: Fields | None, new: Fields) -> Fields:
        """What is kept of a chunk: its last answer, and what its first one said."""
        if old is None:
            first = float(np.sqrt(square(new, new["x"] - state.ref[at(new)])))
            pull = float(np.linalg.norm(new["weight"] * new["y"]))
            return {"size": float(self.size(state)), "first": first, "pull": pull, **new}
        return {**old, **{name: value for name, value in new.items() if name not in KNOWN}}

    def residuals(self, state: Any, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """Boyd et al. 2011, section 3.3: (Σ m(x_i − z)²)^½ and dist(Σ m·y_i, ∂R(z)), and both over their scales."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        apart = sum(square(slot, slot["x"] - z[at(slot)]) for slot in slots.values())
        y, scale_y = np.zeros_like(z), 0.0
        for slot in slots.values():
            part = slot["weight"] * slot["y"]
            y[at(slot)] += part
            scale_y += float(np.linalg.norm(part))
        primal, dual = float(np.sqrt(apart)), float(np.linalg.norm(y - penalty.subgradient(z, y)))
        estimate = sum(abs(_slope(slot, z)) for slot in slots.values())
        scales = self._scales(state, slots, z, scale_y)
        pairs = zip((primal, dual), scales, strict=True)
        relative = max(0.0 if r == 0 else r / scale if scale else np.inf for r, scale in pairs)
        return Residuals(estimate, primal, dual, float(relative))

    def _scales(self, state: Any, slots: Mapping[int, Fields], z: Array, y: float) -> tuple[float, float]:
        """max(‖x‖, ‖z‖) and Σ‖m·y_i‖ (Boyd et al. 2011, 3.3.1), or those of the first step: they may go to zero."""
        x, there, first = 0.0, 0.0, 0.0
        for slot in slots.values():
            x += square(slot, slot["x"])
            there += square(slot, z[at(slot)])
            first += slot["first"] ** 2
        return float(np.sqrt(max(x, there, first))), max(y, sum(slot["pull"] for slot in slots.values()))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """F(z) by the chunks' last answers, each continued from x_i to z along its slope."""
        return float(sum(slot["f"] + _slope(slot, z) for slot in slots.values())) + penalty.value(z)

    def local(self, slot: Fields) -> Array:
        """x_i, (p,); nan at what the chunk does not know."""
        out = np.full(int(slot["size"]), np.nan)
        out[at(slot)] = slot["x"]
        return out

    def dual(self, slot: Fields) -> Array:
        """m·y_i, (p,); 0 at what the chunk does not know."""
        out = np.zeros(int(slot["size"]))
        out[at(slot)] = slot["weight"] * slot["y"]
        return out


def share_of(problem: Any, data: Any) -> Share | None:
    """The coordinates that a chunk knows; None: all, each with weight 1."""
    return problem.knows(data) if callable(getattr(problem, "knows", None)) else None


def told(share: Share | None, pull: Pull) -> Fields:
    """`KNOWN`, where the server lacks it."""
    if not pull.whole:
        return {}
    p = len(pull.z)
    share = share or Share(np.arange(p), np.ones(p))
    return {"index": share.coordinates.astype(np.float64), "weight": np.asarray(share.weight, np.float64)}


def part(share: Share | None, z: Array) -> Array:
    """z, as far as the chunk knows it."""
    return z if share is None else z[share.coordinates]


def at(slot: Fields) -> np.ndarray:
    """The coordinates of z that a chunk knows."""
    out: np.ndarray = slot["index"].astype(np.int64)
    return out


def square(slot: Fields, v: Array) -> float:
    """Σ m·v²."""
    return float(slot["weight"] @ v**2)


def _slope(slot: Fields, z: Array) -> float:
    """The change of f_i from x_i to z, to first order: convex, it changes by this at least."""
    return float((slot["weight"] * slot["y"]) @ (slot["x"] - z[at(slot)]))
