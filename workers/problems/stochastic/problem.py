"""Multistage stochastic programs as a local problem: a chunk is a scenario, z what is decided at the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array
from paramserver.workers.problems.base import Problem, Share, Start
from paramserver.workers.problems.stochastic.highs import Model, highspy
from paramserver.workers.problems.stochastic.program import Program
from paramserver.workers.problems.stochastic.scenario import Name, Scenario
from paramserver.workers.problems.stochastic.tree import Tree


@dataclass(frozen=True)
class StochasticProgram(Problem):
    """The least expected cost of scenarios that decide the same as long as they are the same.

    minimise Σ probability_i·f_i(x_i), f_i the linear or convex quadratic program of `Scenario` i, over x that
    agree at every node of the scenario tree. z is what is decided at the nodes, one after the other, and
    ``coef_`` a dict of it: node → array. Each chunk knows the coordinates of z that are on its scenarios'
    paths, and no others; a chunk of several scenarios (a bundle) makes them agree among themselves, so
    that fewer rounds are needed. Launch it with a list: of scenarios, or of lists of them, one a chunk.

    For `ProgressiveHedging` and `APH`. Scenarios are solved by HiGHS, ``pip install "paramserver[stochastic]"``.

    Notes
    -----
    A fit starts from what the scenarios would decide if each knew that it comes (wait and see), on average;
    a scenario that is infeasible or unbounded by itself is refused then. Nothing but residuals ends a run:
    `Result.certificate` is "residual". `Result.objective` is the expected cost at z as the last answers
    tell it, linear in z about the scenarios' own decisions, and so never above it.

    HiGHS solves quadratic programs by an active set method, the faster one up to some hundred rows and columns;
    larger ones are solved by an interior point method of our own, which begins anew each time.
    """

    tree: Tree | None = field(default=None, repr=False)

    # -- the data --------------------------------------------------------------------------------

    def check_list(self, chunks: Sequence[Any]) -> None:
        """Scenarios at hand are looked at before they are sent."""
        highspy()
        found = [one for chunk in chunks for one in (chunk if _several(chunk) else [chunk])]
        if all(isinstance(one, Scenario) for one in found):
            try:
                Tree.union(map(Tree.of, found)).check_whole()
            except BadData as error:
                raise InvalidInput(str(error)) from None

    def prepare(self, *parts: Any) -> Program:
        if len(parts) > 1 and all(isinstance(part, Scenario) for part in parts):
            parts = (list(parts),)  # a bundle that was a tuple, which the parts of a chunk are too
        first, *others = parts
        if any(part is not None for part in others):
            raise BadData("a chunk of StochasticProgram is scenarios alone: pass no y, sample_weight or offset")
        scenarios = list(first) if _several(first) else [first]
        if not scenarios:
            raise BadData("a chunk without scenarios")
        wrong = next((one for one in scenarios if not isinstance(one, Scenario)), None)
        if wrong is not None:
            raise BadData(f"a chunk of StochasticProgram is a paramserver.Scenario, or several, got {wrong!r:.80}")
        return Program(scenarios)

    def survey(self, data: Program) -> Array:
        """The scenarios' part of the tree, with what each would decide alone."""
        return Tree.union(map(_alone, data.alone)).packed()

    def merge(self, a: Array, b: Array) -> Array:
        return Tree.read(a).merged(Tree.read(b)).packed()

    def at(self, survey: Array) -> StochasticProgram:
        """The problem of this tree."""
        return replace(self, tree=Tree.read(survey).check_whole())

    def start(self, survey: Array) -> Start:
        """What scenarios would decide alone, on average, and the expected cost of that: below what is possible."""
        seen = Tree.read(survey)
        return Start((self.tree or seen).mean(seen), seen.cost)

    def unpack(self, z: Array) -> tuple[dict[Name, Array], float]:
        """(node → what is decided there, 0)."""
        return {name: z[where] for name, where in self._whole().where.items()}, 0.0

    def _whole(self) -> Tree:
        if self.tree is None:
            raise InvalidInput("the scenario tree is known only once every chunk was surveyed: use problem.at(survey)")
        return self.tree

    # -- one chunk -------------------------------------------------------------------------------

    def knows(self, data: Program) -> Share:
        """The decisions on these scenarios' paths, and how likely it is to come by."""
        return Share(self._whole().index(data.nodes), data.weight)

    def prox(self, data: Program, centre: Array, rho: Any) -> tuple[Array, float]:
        """argmin_x P·f(x) + ½Σ rho_j(x_j − centre_j)², and P·f there; P is the scenarios' probability.

        ``rho`` is a number or (p,). Where no scenario comes by, x is the centre.
        """
        index, P = self.knows(data).coordinates, data.probability
        bend, c = np.zeros(data.n), data.form.c.copy()
        k = len(index)
        bend[:k] = np.broadcast_to(rho, centre.shape)[index] / P
        c[:k] -= bend[:k] * centre[index]
        found = _solve(data, c, bend)
        x = centre.copy()
        x[index] = found[:k]
        return x, P * data.cost(found)


def _alone(one: Program) -> Tree:
    x = _solve(one, one.form.c, np.zeros(one.n))
    return Tree.of(one.scenarios[0], x[one.columns[0]], one.cost(x))


def _several(chunk: Any) -> bool:
    return isinstance(chunk, (list, tuple)) or (isinstance(chunk, np.ndarray) and chunk.ndim == 1)


def _solve(data: Program, c: Array, bend: Array) -> Array:
    """By the chunk's model; taken out meanwhile, as two runners must not use one at a time."""
    kind = "bent" if bend.any() else "plain"
    model = data.memo.pop(kind, None) or Model(data.form)
    x = model.solve(data, c, bend)
    data.memo[kind] = model
    return x
