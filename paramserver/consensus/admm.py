"""Consensus ADMM in Douglas–Rachford order, asynchronous (Zhang & Kwok 2014; Boyd et al. 2011, 7.2).

Chunk i keeps w_i = x_i + u_i. A worker that pulls ẑ solves x = prox_{f_i}(2ẑ − w_i) in the metric
M_i = ρ·H_i(null model) and answers w_i + α(x − ẑ); the server's z is argmin R(z) + ½Σ‖z − w_i‖²_{M_i}.
The dual is advanced with the ẑ that was pulled, never with a newer z (that diverges).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from paramserver.consensus.balance import balanced
from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem, require
from paramserver.workers.solvers import prox, times


@dataclass
class ADMMState:
    """B = ΣM_i/ρ, (p, p) or (p,); c = Σ(M_i/ρ)(w_i − ref), (p,); ref is the null model."""

    ref: Array
    B: Array
    c: Array
    rho: float
    rows: float
    rows_seen: float
    before: Array | None = None  #: z a sweep ago; not known when a run begins, or is taken up again
    changes: int = 0  #: of rho


@dataclass(frozen=True, kw_only=True)
class ADMM(Consensus):
    """Consensus ADMM: exact, a linear number of sweeps.

    For problems of which only a prox is known, for slots that must stay small (metric "diagonal"), and
    where a chunk's solve is cheap beside an exchange; else `AggregatedNewton` takes fewer pushes.

    Parameters
    ----------
    metric : {"hessian", "diagonal", "identity"}
        M_i = rho·H_i at the null model, its diagonal, or rho·I. The first two make rho
        dimensionless; with the identity it must suit the data within a factor of about 3, and a
        problem that knows its prox and no Hessian, such as `Proximal`, will do.
    rho : float
        > 0; 0.1 to 1 with a Hessian metric.
    relaxation : float
        Over-relaxation α in (0, 2) (Boyd et al. 2011, 3.4.3).
    balance : bool
        Residual balancing (Boyd et al. 2011, 3.4.1): rho follows the ratio of the primal to the dual
        residual, each relative to its own scale and in the metric (Wohlberg 2017), so that it may be
        orders of magnitude off at first. It is changed at most 20 times, after which nothing stands
        in the way of convergence.
    min_fresh, max_staleness :
        See `Consensus`.
    """

    metric: Literal["hessian", "diagonal", "identity"] = "hessian"
    rho: float = 0.3
    relaxation: float = 1.6
    balance: bool = False

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("p",), "w": ("p",), "y": ("p",), "f": (), "M": ("p", "p"),
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset({"M"})
    replays: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in ("hessian", "diagonal", "identity"):
            raise InvalidInput(f'metric must be "hessian", "diagonal" or "identity", got {self.metric!r}')
        if not (np.isfinite(self.rho) and self.rho > 0):
            raise InvalidInput(f"rho must be a finite number > 0, got {self.rho!r}")
        if not 0 < self.relaxation < 2:
            raise InvalidInput(f"relaxation must lie in (0, 2), got {self.relaxation!r}")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        diagonal = ("hessian_diagonal",) if self.metric == "diagonal" else ()
        return ("evaluate", "hessian", "curvature", *diagonal)

    def check(self, problem: Problem) -> None:
        if self.metric != "identity":
            super().check(problem)
        elif not (_has(problem, "prox") and not _has(problem, "hessian")):
            require(self.needs, problem, type(self).__name__, instead="prox")

    @property
    def shapes(self) -> Mapping[str, tuple[str | int, ...]]:
        """The payload of this metric."""
        return self.payload if self.metric == "hessian" else {**self.payload, "M": ("p",)}

    def init(self, setup: Setup) -> ADMMState:
        p = setup.p
        B = np.zeros((p, p) if self.metric == "hessian" else p)
        return ADMMState(setup.start.z, B, np.zeros(p), self.rho, float(setup.rows), 0.0)

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields:
        z, fields = pull.z, pull.fields
        w = fields["w"] if "w" in fields else fields["ref"]
        warm = fields.get("x", z)
        unit = self._unit_metric(problem, data, fields["ref"])
        M, centre = fields["rho"] * unit, 2.0 * z - w
        if _has(problem, "hessian"):
            x, at = prox(problem, data, centre, M, warm, z)
            value = at.value
        else:
            x, value = problem.prox(data, centre, fields["rho"])  # type: ignore[attr-defined]
        out: Fields = {
            "x": x, "w": w + fields["relaxation"] * (x - z), "y": times(M, x - centre), "f": float(value),
        }  # fmt: skip
        if pull.whole or "w" not in fields:
            out["M"] = unit
        return out

    def _unit_metric(self, problem: Problem, data: Any, ref: Array) -> Array:
        """M_i/ρ, made once a worker and chunk."""
        if self.metric == "identity":
            return np.ones_like(ref)
        where, unit = data.memo.get(self.metric, (None, None))
        if where is None or not np.array_equal(where, ref):
            D = problem.curvature(data, ref)  # type: ignore[attr-defined]
            make = problem.hessian if self.metric == "hessian" else problem.hessian_diagonal  # type: ignore[attr-defined]
            unit = make(data, D)
            data.memo[self.metric] = (ref, unit)
        return np.asarray(unit)

    def plan(self, state: ADMMState, slot: Fields | None, z: Array) -> Fields:
        own = {} if slot is None else {"w": slot["w"], "x": slot["x"]}
        return {"ref": state.ref, "rho": state.rho, "relaxation": self.relaxation, **own}

    # -- the server ------------------------------------------------------------------------------

    def absorb(self, state: ADMMState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        if old is not None:  # M_i is the same for the whole run
            state.c += times(old["M"], new["w"] - old["w"])
            return Absorbed(state, {**new, "M": old["M"], "first": old["first"], "pull": old["pull"]})
        state.B += new["M"]
        state.c += times(new["M"], new["w"] - state.ref)
        state.rows_seen += new["rows"]
        first, pull = float(np.linalg.norm(new["x"] - state.ref)), float(np.linalg.norm(new["y"]))
        return Absorbed(state, {"first": first, "pull": pull, **new})

    def consensus(self, state: ADMMState, penalty: Bound, z: Array) -> tuple[Array, ADMMState]:
        if state.rows_seen <= 0:
            return z, state
        share = state.rho * (state.rows / state.rows_seen if state.rows_seen < state.rows else 1.0)
        return minimise(share * state.B, share * state.c, penalty, state.ref, z), state

    def rebuild(self, state: ADMMState, slots: Mapping[int, Fields], z: Array) -> ADMMState:
        fresh = replace(state, B=np.zeros_like(state.B), c=np.zeros_like(state.c), rows_seen=0.0)
        for chunk, slot in slots.items():
            self.absorb(fresh, chunk, None, slot)
        return fresh

    def recount(self, state: ADMMState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> ADMMState:
        """The metrics keep the point at which they were made."""
        return self.rebuild(replace(state, rows=float(setup.rows)), slots, z)

    def update(self, state: ADMMState, old: Consensus, slots: dict[int, Fields], z: Array) -> ADMMState:
        """A new rho keeps the unscaled duals: u_i = w_i − z shrinks by as much as M_i grows."""
        if isinstance(old, ADMM) and old.metric != self.metric:
            raise InvalidInput(f"the metric of a live run is fixed ({old.metric!r}): launch a new one with z0= its z")
        ratio = state.rho / self.rho
        changes = state.changes + (ratio != 1.0)
        for chunk, slot in slots.items():
            slots[chunk] = {**slot, "w": z + ratio * (slot["w"] - z)}
        return self.rebuild(replace(state, rho=self.rho, changes=changes), slots, z)

    def tuned(
        self, state: ADMMState, slots: Mapping[int, Fields], penalty: Bound, z: Array
    ) -> tuple[Consensus, ADMMState]:
        """By residual balancing."""

        def square(slot: Fields, name: str, centre: Array) -> float:
            return _square(slot["M"], slot[name] - centre)

        return balanced(self, state, slots, z, square, lambda v: _square(state.B, v))

    def residuals(self, state: ADMMState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """Boyd et al. 2011, section 3.3: (Σ‖x_i − z‖²_{M_i})^½ and dist(Σy_i, ∂R(z))."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        apart = sum(_square(slot["M"], slot["x"] - z) for slot in slots.values())
        y = np.sum([slot["y"] for slot in slots.values()], axis=0)
        off = y - penalty.subgradient(z, y)
        # Its diagonal only: B itself may be singular (all levels of a factor), and B⁻¹ explode.
        diagonal = np.diag(state.B) if state.B.ndim == 2 else state.B
        estimate = 0.5 * (apart + float(off @ (off / np.where(diagonal > 0, diagonal, 1.0))))
        primal, dual = float(np.sqrt(state.rho * apart)), float(np.linalg.norm(off))
        if self.metric != "identity":
            return Residuals(estimate, primal, dual)
        return Residuals(estimate, primal, dual, _relative(list(slots.values()), z, np.sqrt(apart), dual))


def _relative(slots: list[Fields], z: Array, primal: float, dual: float) -> float:
    """Residuals over their scales, max(‖x‖, ‖z‖) and Σ‖y_i‖ (Boyd et al. 2011, 3.3.1), or the first step's.

    The latter where those go to zero themselves: chunks of one minimiser leave no dual.
    """
    x = np.sqrt(sum(float(slot["x"] @ slot["x"]) for slot in slots))
    first = np.sqrt(sum(slot["first"] ** 2 for slot in slots))
    y = sum(float(np.linalg.norm(slot["y"])) for slot in slots)
    # Of the first step as it was: a rho that has grown since makes no residual small.
    scales = max(x, np.sqrt(len(slots)) * np.linalg.norm(z), first), max(y, sum(slot["pull"] for slot in slots))
    pairs = zip((primal, dual), scales, strict=True)
    return float(max(0.0 if residual == 0 else residual / scale if scale else np.inf for residual, scale in pairs))


def _square(M: Array, v: Array) -> float:
    """‖v‖²_M"""
    return float(v @ times(M, v))


def _has(problem: Problem, method: str) -> bool:
    return callable(getattr(problem, method, None))
