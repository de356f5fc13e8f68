"""Newton with sampled Hessians, averaged (Na, Dereziński & Mahoney 2023, Mathematical Programming 201).

Chunk i answers the z that it pulled, x_i, with the exact gradient there and a Hessian of a few of its rows. The server
keeps the mean of those Hessians, H_i, and makes z = argmin_w R(w) + Σ_i ∇f_i(x_i)ᵀw + ½‖w − x_i‖²_{H_i}.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paramserver.consensus import Absorbed, Consensus, Pull, Setup
from paramserver.examples.straggler import race
from paramserver.messages import Array, Fields
from paramserver.quadratic import minimise
from paramserver.views import Residuals


@dataclass(frozen=True)
class _Sums:
    B: Array  # Σ H_i, (p, p)
    c: Array  # Σ H_i x_i − ∇f_i(x_i), (p,)
    missing: float  # rows of the chunks that have not answered yet


@dataclass(frozen=True, kw_only=True)
class HessianAverage(Consensus):
    """Exact; for many columns, where a Hessian of all rows is what costs. ``batch`` rows a chunk at a time."""

    batch: int = 100
    payload: ClassVar = {"x": ("p",), "f": (), "y": ("p",), "H": ("p", "p")}
    needs: ClassVar = ("evaluate", "curvature", "hessian", "batch")

    def init(self, setup: Setup) -> _Sums:
        return _Sums(np.zeros((setup.p, setup.p)), np.zeros(setup.p), float(setup.rows))

    def step(self, problem: Any, data: Any, pull: Pull) -> Fields | None:
        at, few = problem.evaluate(data, pull.z), problem.batch(data, min(self.batch, data.rows), pull.version)
        H = problem.hessian(few, problem.curvature(few, pull.z)) * (data.rows / few.rows)
        return {"x": pull.z, "f": at.value, "y": -at.gradient, "H": H} if np.isfinite(at.value) else None

    def absorb(self, state: _Sums, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        had = old or {"H": 0.0, "c": 0.0, "rows": 0.0, "times": 0}
        H = had["H"] + (new["H"] - had["H"]) / (had["times"] + 1)
        slot = {**new, "H": H, "times": had["times"] + 1, "c": H @ new["x"] + new["y"]}
        missing = state.missing + had["rows"] - new["rows"]
        return Absorbed(_Sums(state.B + H - had["H"], state.c + slot["c"] - had["c"], missing), slot)

    def consensus(self, state: _Sums, penalty: Any, z: Array) -> tuple[Array, _Sums]:
        return minimise(state.B, state.c, penalty, np.zeros_like(z), z), state

    def residuals(self, state: _Sums, slots: Any, penalty: Any, z: Array) -> Residuals:
        apart = sum((z - slot["x"]) @ slot["H"] @ (z - slot["x"]) for slot in slots.values())
        return Residuals(np.inf if state.missing else 0.5 * float(apart))


if __name__ == "__main__":
    race(HessianAverage())
