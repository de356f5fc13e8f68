"""Aggregated Newton on a working set: for many columns, few of which an L1 term leaves non-zero.

`AggregatedNewton` with the chunks' models on the coordinates that are not zero, or that the
gradient pulls from zero; no array of size (p, p) is made anywhere. Where N models of the working
set's size would take the server more than `KEPT`, the Hessians stay on the workers: the server
keeps their sum, and a push carries what is new less what was there before, which any worker can
make again from the point that the slot names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus.anchors import SIGMA_MAX, AnchoredNewton, needs_hessian, too_high
from paramserver.consensus.base import Absorbed, Exact, Kept, Pull, Setup
from paramserver.consensus.working_set import KAPPA, ActiveState, full, never_zero
from paramserver.errors import InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.quadratic import minimise
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem
from paramserver.workers.solvers import curvature_at, drifted

ALWAYS = 4000  #: coordinates without an L1 term, at most: a z takes k³/3 operations
KEPT = 10**9  #: bytes of chunks' Hessians on the server, at most


@dataclass(frozen=True, kw_only=True)
class ActiveNewton(AnchoredNewton):
    """Newton steps on a working set of coordinates, for sparse or wide data with an L1 term.

    Parameters
    ----------
    min_fresh : int
        By default all chunks that have news: a z takes the server k³ operations for k coordinates, and
        one from a part of the chunks costs a sweep or two more. With workers of very different speed a
        quarter of the chunks may be sooner all the same.
    max_staleness :
        See `Consensus`.

    Notes
    -----
    The server keeps N·(p + k²)·8 bytes, or N·p·8 + k²·8 where N·k²·8 is more than 1 GB.
    """

    min_fresh: int | None = None

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "x": ("*",), "f": (), "g": ("p",), "H": ("*", "*"), "h": ("*",), "d": ("p",),
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset({"H", "h", "d"})
    accumulates: ClassVar[bool] = True  # where Hessians stay on the workers
    needs: ClassVar[tuple[str, ...]] = ("evaluate", "curvature", "hessian_of", "hessian_diagonal", "dual")

    def suits(self, penalty: Bound) -> None:
        if penalty.separable() is None:
            raise InvalidInput(
                f"ActiveNewton works on penalties of the elastic-net form, not on {penalty.penalty!r}: "
                'pass consensus="newton", for p of up to a few thousand'
            )
        always = int(never_zero(penalty).sum())
        if always > ALWAYS:
            raise InvalidInput(
                f"{penalty.penalty!r} leaves {always} coordinates without an L1 term: all would be in ActiveNewton's "
                f'working set, which may begin with {ALWAYS}; pass consensus="lbfgs" where there is no L1 term at all'
            )

    def init(self, setup: Setup) -> ActiveState:
        p, null = setup.p, setup.start
        state = ActiveState(
            np.empty(0, np.int64), np.empty((0, 0)), np.empty(0), np.empty(0), np.zeros(p), np.zeros(p), null.z,
            float(setup.rows), 0.0, setup.n_chunks,
            anchor=null.z, anchor_step=np.zeros(p), anchor_objective=null.objective * (1 + 1e-9),
        )  # fmt: skip
        state.extend(np.flatnonzero(never_zero(setup.bound) | (setup.z != 0)))
        state.remote = setup.n_chunks * state.k**2 * 8 > KEPT
        return state

    def enough(self, state: ActiveState, setup: Setup) -> int:
        """All chunks for the first z: part of a gradient would let the wrong coordinates in."""
        return setup.n_chunks if state.rows_seen < state.rows else self.min_fresh or setup.n_chunks

    def support(self, state: ActiveState, penalty: Bound) -> np.ndarray:
        return state.A

    def slot_bytes(self, p: int) -> int:
        return 8 * p

    def is_delta(self, payload: Fields) -> bool:
        return "H" not in payload

    # -- the worker ------------------------------------------------------------------------------

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        at = problem.evaluate(data, pull.z)  # type: ignore[attr-defined]
        if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
            return None
        fields, p = pull.fields, len(pull.z)
        A = fields["A"]
        out: Fields = {"x": pull.z[A], "f": float(at.value), "g": at.gradient}
        if "null" in fields:
            null = problem.curvature(data, fields["null"])  # type: ignore[attr-defined]
            out["d"] = problem.hessian_diagonal(data, null)  # type: ignore[attr-defined]
        else:
            fields = {**fields, "hessian_at": full(p, A[: len(fields["at"])], fields["at"])}
        grew = "null" in fields or len(fields["at"]) < len(A)
        if fields["remote"]:
            self._remotely(problem, data, at, pull, fields, out, grew)
        elif pull.whole or grew or needs_hessian(problem, data, at, fields):
            out["H"] = problem.hessian_of(data, at.curvature, A)  # type: ignore[attr-defined]
            data.memo["hessian_at"] = (pull.z, at.curvature)
        return out

    def _remotely(self, problem: Any, data: Any, at: Any, pull: Pull, fields: Fields, out: Fields, grew: bool) -> None:
        """H (less the old one, where the server has that in its sum alone) and H x."""
        A, x = fields["A"], out["x"]
        if not (pull.whole or grew) and (
            problem.quadratic or not drifted(at.curvature, curvature_at(problem, data, fields["hessian_at"]))
        ):
            where = fields["hessian_at"]
            out["h"] = (problem.dual(data, where, pull.z) - problem.evaluate(data, where).gradient)[A]
            return
        new = problem.hessian_of(data, at.curvature, A)
        out["h"], out["H"] = new @ x, new
        if fields["delta"]:
            old = self._old_hessian(problem, data, fields, pull.whole)
            out["H"] = new.copy()
            out["H"][: len(old), : len(old)] -= old
        data.memo["hessian_at"], data.memo["H"] = (pull.z, at.curvature), (pull.z, len(A), new)

    @staticmethod
    def _old_hessian(problem: Any, data: Any, fields: Fields, whole: bool) -> Array:
        """The slot's Hessian: the last made here if it is that one, else made again."""
        where, k = fields["hessian_at"], len(fields["at"])
        made_at, size, H = data.memo.get("H", (None, 0, None))
        if not whole and size == k and np.array_equal(made_at, where):
            return np.asarray(H)
        return np.asarray(problem.hessian_of(data, problem.curvature(data, where), fields["A"][:k]))

    def plan(self, state: ActiveState, slot: Fields | None, z: Array) -> Fields:
        """The working set; what the slot's model predicts at z, or where its Hessian was made."""
        if slot is None:
            return {"A": state.A, "null": state.null, "remote": state.remote, "delta": False}
        out: Fields = {"A": state.A, "at": slot["at"], "remote": state.remote, "delta": "H" not in slot}
        if len(slot["x"]) == state.k and "H" in slot:
            move = z[state.A] - slot["x"]
            q = 0.5 * float(move @ (slot["H"] @ move))
            out.update(predicted=slot["f"] + float(slot["g"][state.A] @ move) + q, q=q)
        return out

    # -- the server ------------------------------------------------------------------------------

    def fits(self, state: ActiveState, old: Fields | None, payload: Fields) -> bool:
        """A model of the first k coordinates of the working set, or one that keeps the slot's Hessian of as many."""
        k = len(payload["x"])
        whole, remote = "H" in payload, "h" in payload
        sizes = [len(payload[name]) for name in ("H", "h") if name in payload]
        if k > state.k or any(size != k for size in sizes) or (whole and payload["H"].shape[1] != k):
            return False
        if old is None:
            return whole and "d" in payload and (state.remote or not remote)
        if whole:
            return state.remote or not remote
        return len(old["at"]) == k and (state.remote if remote else "H" in old)

    def absorb(self, state: ActiveState, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        k = len(new["x"])
        slot = {**new, "A": state.A[:k], "at": new["x"], "sigma": 1.0}
        if old is None:
            state.D += slot.pop("d")
        if "h" in new:
            return self._absorb_remote(state, old, slot)
        if old is not None and len(old["x"]) == k:
            move = new["x"] - old["x"]
            rise = new["f"] - old["f"] - float(old["g"][slot["A"]] @ move)
            if too_high(old, rise, 0.5 * float(move @ (old["H"] @ move))):
                return self.too_far(state, chunk, old)
            if "H" not in new:
                slot.update(H=old["H"], at=old["at"])
            slot["sigma"] = max(1.0, old["sigma"] / 4.0)
        slot["h"] = slot["H"] @ slot["x"]
        return self._replace(state, old, slot)

    @staticmethod
    def _absorb_remote(state: ActiveState, old: Fields | None, slot: Fields) -> Absorbed:
        H = slot.pop("H", None)
        if old is not None:
            state.add(old, -1.0)
        if H is not None:
            state.B[: len(H), : len(H)] += H
        elif old is not None:
            slot.update(at=old["at"])
            if "H" in old:  # as good as ever, and still here
                slot.update(H=old["H"], h=old["H"] @ slot["x"])
        state.add(slot, 1.0)
        state.stiff = max(1.0, state.stiff / 4.0 ** (1.0 / state.n_chunks))
        return Absorbed(state, slot)

    def too_far(self, state: ActiveState, chunk: int, old: Fields | None) -> Absorbed:
        if old is None:
            return Absorbed(state, {}, False)
        if "H" not in old:
            state.stiff = min(4.0 * state.stiff, SIGMA_MAX)
            return Absorbed(state, old, False)
        stiffer = {**old, "sigma": min(4.0 * old["sigma"], SIGMA_MAX)}
        return self._replace(state, old, stiffer)._replace(accepted=False)

    @staticmethod
    def _replace(state: ActiveState, old: Fields | None, new: Fields) -> Absorbed:
        same = old is not None and old.get("H") is new["H"] and old["sigma"] == new["sigma"]
        if old is not None:
            state.add(old, -1.0, not same)
        state.add(new, 1.0, not same)
        return Absorbed(state, new)

    def adopt(self, state: ActiveState, chunk: int, old: Fields | None, exact: Exact) -> Absorbed | None:
        """At once; where Hessians are not kept, set aside until all are there: see `adopted`."""
        if old is None:
            return None
        x = exact.z[state.A]
        new = {
            "x": x, "f": exact.value, "g": exact.gradient, "H": exact.hessian, "h": exact.hessian @ x,
            "at": exact.made_at[state.A], "A": state.A, "sigma": 1.0, "rows": exact.rows,
        }  # fmt: skip
        if not state.remote:
            return self._replace(state, old, new)
        del new["H"]
        return Absorbed(state, {**old, "exact": new})

    def adopted(self, state: ActiveState, slots: dict[int, Fields], z: Array, hessian: Array) -> ActiveState:
        """One chunk's old Hessian cannot be taken from the sum here, but all can: the sum is theirs."""
        here = z[state.A]
        if not all("exact" in slot and np.array_equal(slot["exact"]["x"], here) for slot in slots.values()):
            return state
        slots.update({i: slot["exact"] for i, slot in slots.items()})
        return self._summed(replace(state, stiff=1.0), slots, hessian.copy())

    @staticmethod
    def _summed(state: ActiveState, slots: Mapping[int, Fields], B: Array) -> ActiveState:
        """The sums anew, but for B where it is given whole."""
        fresh = replace(
            state, B=B, h=np.zeros(state.k), covered=np.zeros(state.k), G=np.zeros_like(state.G), rows_seen=0.0
        )
        for slot in slots.values():
            fresh.add(slot, 1.0)
        return fresh

    def recount(self, state: ActiveState, setup: Setup, slots: Mapping[int, Fields], z: Array) -> ActiveState:
        """Other chunks than before; where Hessians are not kept, those of chunks that left remain in B.

        They hold z back a little, until a verification puts the sum right.
        """
        state = self.update(state, self, {}, z)
        state = replace(state, rows=float(setup.rows), n_chunks=setup.n_chunks, cautious=False)
        return self.rebuild(state, slots, z)

    def rebuild(self, state: ActiveState, slots: Mapping[int, Fields], z: Array) -> ActiveState:
        if all("H" in slot for slot in slots.values()):
            return self._summed(state, slots, np.zeros_like(state.B))
        B = state.B.copy()
        for slot in slots.values():
            if "H" in slot:
                B[: len(slot["H"]), : len(slot["H"])] -= slot["sigma"] * slot["H"]
        return self._summed(state, slots, B)

    def consensus(self, state: ActiveState, penalty: Bound, z: Array) -> tuple[Array, ActiveState]:
        if state.rows_seen < state.rows:
            return z, state
        state.grow(penalty, z, KEPT)
        if not state.k:
            return np.zeros_like(z), state
        B = state.stiff * state.B
        B.flat[:: state.k + 1] += state.uncovered()
        c = state.stiff * state.h - state.G[state.A]
        w = minimise(B, c, penalty.on(state.A), np.zeros(state.k), z[state.A])
        return full(len(z), state.A, w), state

    # -- how far ---------------------------------------------------------------------------------

    def residuals(self, state: ActiveState, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """½Σ‖z − x_i‖²_{M_i}, M_i the chunk's model, and what coordinates off the working set promise."""
        if state.rows_seen < state.rows:
            return Residuals(np.inf)
        on = z[state.A]
        estimate = sum(self._apart(state, slot, on) for slot in slots.values())
        where, beyond = state.outstanding(penalty)
        diagonal = state.D[where]
        estimate += float((beyond**2 / np.where(diagonal > 0, diagonal, 1.0)).sum())
        return Residuals(0.5 * estimate, primal=float(np.sqrt(estimate)))

    @staticmethod
    def _apart(state: ActiveState, slot: Fields, on: Array) -> float:
        k, share = len(slot["x"]), float(slot["rows"]) / state.rows
        move = on[:k] - slot["x"]
        new = KAPPA * share * float(state.D[state.A[k:]] @ on[k:] ** 2)
        # A Hessian that is not here counts as its share of all.
        bent: Array = slot["H"] @ move if "H" in slot else share * (state.B[:k, :k] @ move)
        return float(max(move @ bent, 0.0)) + new

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """The chunks' models at z, summed; of Hessians that are not here, their lines."""
        total = penalty.value(z)
        for slot in slots.values():
            move = z[slot["A"]] - slot["x"]
            total += slot["f"] + float(slot["g"] @ z) - float(slot["g"][slot["A"]] @ slot["x"])
            total += 0.5 * float(move @ (slot["H"] @ move)) if "H" in slot else 0.0
        return float(total)

    def kept(self, slot: Fields) -> Kept | None:
        return None if "H" not in slot else Kept(slot["H"], full(len(slot["g"]), slot["A"], slot["at"]))

    def local(self, slot: Fields) -> Array:
        return full(len(slot["g"]), slot["A"], slot["x"])
