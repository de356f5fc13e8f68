"""A problem and a rule without arithmetic: where others would compute, they tell a meter what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.consensus import Consensus
from paramserver.consensus.base import Absorbed, Exact, Setup
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.views import Residuals
from paramserver.workers.problems import Problem
from paramserver.workers.problems.base import Start

from .costs import Costs


@dataclass
class Meter:
    """Seconds that the server has worked since it was last read."""

    seconds: float = 0.0

    def read(self) -> float:
        """And begin anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@dataclass(frozen=True)
class Blank(Problem):
    """Nothing to fit, and certified as soon as it is asked: f = 1 everywhere, z a single number."""

    costs: Costs
    meter: Meter
    curved = True

    def prepare(self, *parts: Any) -> Any: ...

    def survey(self, data: Any) -> Array:
        return np.array([1.0, 1.0])

    def merge(self, a: Array, b: Array) -> Array:
        self.meter.seconds += self.costs.merge
        return a

    def start(self, survey: Array) -> Start:
        return Start(np.zeros(1), 1.0)

    def evaluate(self) -> None:
        """On the workers: not called here, as are the four that follow but the bound."""

    hessian = fenchel = reach = line = evaluate

    def fenchel_bound(self, bend: float, reach: float) -> float:
        """Called once by a verification, after its Newton step."""
        self.meter.seconds += self.costs.consensus
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Charged(Consensus):
    """Every call of the core's is counted at its price; what a slot keeps is that there was a push."""

    costs: Costs
    meter: Meter

    payload = {"H": ()}  # noqa: RUF012
    optional = frozenset({"H"})

    def init(self, setup: Setup) -> int:
        return setup.n_chunks

    def step(self, problem: Problem, data: Any, pull: Any) -> Fields:
        raise NotImplementedError("workers only take their time")

    def enough(self, state: int, setup: Setup) -> int:
        """Asked at every push; unless one is enough, the core then counts what is wanted still."""
        enough = self.min_fresh or 1
        self.meter.seconds += self.costs.choose_live * setup.n_chunks * (enough > 1)
        return enough

    def plan(self, state: int, slot: Fields | None, z: Array) -> Fields:
        self.meter.seconds += self.costs.plan
        return {}

    def absorb(self, state: int, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        self.meter.seconds += self.costs.absorb_hessian if "H" in new else self.costs.absorb
        return Absorbed(state, {"H": 0.0})

    def adopt(self, state: int, chunk: int, old: Fields | None, exact: Exact) -> None:
        self.meter.seconds += self.costs.absorb_hessian

    def consensus(self, state: int, penalty: Bound, z: Array) -> tuple[Array, int]:
        self.meter.seconds += self.costs.consensus
        return z, state

    def rebuild(self, state: int, slots: Mapping[int, Fields], z: Array) -> int:
        self.meter.seconds += len(slots) * self.costs.absorb_hessian
        return state

    def residuals(self, state: int, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """Never near: the run ends by its count of pushes."""
        self.meter.seconds += len(slots) * self.costs.look
        return Residuals(np.inf)
