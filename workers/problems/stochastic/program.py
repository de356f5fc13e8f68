"""One chunk's scenarios as one program, their shared decisions first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.stochastic.scenario import Name, Scenario
from paramserver.workers.problems.stochastic.tree import Tree


class Form(NamedTuple):
    """min cᵀx + ½xᵀQx subject to bounds of Ax and x; Q is None where it is zero."""

    c: Array
    A: Any  #: (m, n), CSC
    row_lower: Array
    row_upper: Array
    lower: Array
    upper: Array
    Q: Any  #: (n, n), CSC


class Program:
    """The scenarios of one chunk, which share what they decide at the same node, as one `Form`.

    Its first columns are the decisions at ``nodes``, one after the other; its objective is the expected
    cost given that one of these scenarios comes about, ``probability`` is that one does.

    Attributes
    ----------
    weight : (k,) the probability to come by, for each of the shared decisions
    """

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self.scenarios, self.memo = tuple(scenarios), {}  # type: tuple[Scenario, ...], dict[str, Any]
        tree = Tree.union(map(Tree.of, self.scenarios))
        self.nodes: tuple[Name, ...] = tuple(tree.nodes)
        self.probability = tree.probability
        self.weight = np.concatenate([np.full(node.size, node.weight) for node in tree.nodes.values()])
        self.columns = self._columns(tree)
        self.form = self._form()

    @property
    def rows(self) -> int:
        """How many scenarios."""
        return len(self.scenarios)

    def __str__(self) -> str:
        names = [repr(scenario.name) for scenario in self.scenarios]
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return f"scenario {shown}" if len(names) == 1 else f"scenarios {shown} together"

    def _columns(self, tree: Tree) -> list[np.ndarray]:
        """For each scenario, which columns of the whole are its own columns (n,)."""
        out, end = [], tree.p
        for scenario in self.scenarios:
            at = np.full(scenario.n, -1)
            for name, columns in scenario.nodes.items():
                at[columns] = np.arange(tree.where[name].start, tree.where[name].stop)
            own = np.flatnonzero(at < 0)
            at[own] = end + np.arange(len(own))
            end += len(own)
            out.append(at)
        self.n = end
        return out

    def _form(self) -> Form:
        c, lower, upper = np.zeros(self.n), np.full(self.n, -np.inf), np.full(self.n, np.inf)
        A, Q = [], sparse.csc_array((self.n, self.n))
        for scenario, at in zip(self.scenarios, self.columns, strict=True):
            share, S = scenario.probability / self.probability, _spread(at, self.n)
            c[at] += share * scenario.c
            lower[at], upper[at] = np.maximum(lower[at], scenario.lower), np.minimum(upper[at], scenario.upper)
            A.append(scenario.A @ S)
            if scenario.Q is not None:
                Q = Q + share * (S.T @ scenario.Q @ S)
        crossed = np.flatnonzero(lower > upper)
        if len(crossed):
            raise BadData(f"{self}: no decision is within the bounds of all of them (column {crossed[0]})")
        low, high = (np.concatenate([getattr(s, what) for s in self.scenarios]) for what in ("row_lower", "row_upper"))
        return Form(c, sparse.vstack(A, format="csc"), low, high, lower, upper, Q.tocsc() if Q.nnz else None)

    def cost(self, x: Array) -> float:
        """The objective at x (n,)."""
        bent = 0.0 if self.form.Q is None else 0.5 * float(x @ (self.form.Q @ x))
        return float(self.form.c @ x) + bent

    @property
    def alone(self) -> list[Program]:
        """Each scenario by itself."""
        return [self] if self.rows == 1 else [Program([scenario]) for scenario in self.scenarios]


def _spread(at: np.ndarray, n: int) -> Any:
    """(n_i, n): the scenario's columns among all."""
    return sparse.csr_array((np.ones(len(at)), (np.arange(len(at)), at)), shape=(len(at), n))
