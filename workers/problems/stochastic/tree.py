"""The scenario tree as the scenarios' paths tell it, and where each node's decisions are in z.

Every chunk's survey is its part of the tree: a vector of numbers, node names included, so that surveys of
chunks add up to the whole's without anybody having seen all scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.stochastic.scenario import Name, Scenario

WHOLE = 1e-6  #: probabilities sum to 1 up to this
HEAD = 5  #: numbers before the text


class Node(NamedTuple):
    """Where decisions are taken; ``parent`` is None at the first stage."""

    stage: int
    parent: Name | None
    size: int
    of: str  #: a scenario that comes by
    weight: float  #: the probability to come by
    x: Array  #: (size,) Σ probability · what each scenario would decide there if it were alone


class Tree:
    """Nodes by name; scenarios' number, probability, and expected cost if each were alone."""

    def __init__(self, nodes: dict[Name, Node], rows: int, probability: float, cost: float) -> None:
        self.nodes = {name: nodes[name] for name in sorted(nodes, key=lambda name: _order(name, nodes[name]))}
        self.rows, self.probability, self.cost = rows, probability, cost

    @classmethod
    def of(cls, scenario: Scenario, decided: Array | None = None, cost: float = 0.0) -> Tree:
        """One scenario's path; ``decided`` (n,) is its own optimum."""
        p, nodes, parent = scenario.probability, {}, None
        x = np.zeros(scenario.n) if decided is None else decided
        for stage, (name, columns) in enumerate(scenario.nodes.items()):
            nodes[name] = Node(stage, parent, len(columns), scenario.name, p, p * x[columns])
            parent = name
        return cls(nodes, 1, p, p * cost)

    def merged(self, other: Tree) -> Tree:
        """Both: the same node is the same decision."""
        nodes = dict(self.nodes)
        for name, node in other.nodes.items():
            mine = nodes.get(name)
            nodes[name] = node if mine is None else _joined(name, mine, node)
        rows, probability = self.rows + other.rows, self.probability + other.probability
        return Tree(nodes, rows, probability, self.cost + other.cost)

    @classmethod
    def union(cls, trees: Iterable[Tree]) -> Tree:
        """All of them."""
        out = cls({}, 0, 0.0, 0.0)
        for tree in trees:
            out = out.merged(tree)
        return out

    # -- as a vector -----------------------------------------------------------------------------

    def packed(self) -> Array:
        """[scenarios, 0, probability, cost, bytes of text, the text, weights, decisions]."""
        told = [[name, node.stage, node.parent, node.size, node.of] for name, node in self.nodes.items()]
        text = np.frombuffer(json.dumps(told).encode(), np.uint8)
        head = [self.rows, 0.0, self.probability, self.cost, len(text)]
        weights = [node.weight for node in self.nodes.values()]
        return np.concatenate([head, text, weights, *(node.x for node in self.nodes.values())]).astype(np.float64)

    @classmethod
    def read(cls, survey: Array) -> Tree:
        """The inverse of `packed`."""
        rows, _, probability, cost, length = survey[:HEAD].tolist()
        end = HEAD + int(length)
        told = json.loads(survey[HEAD:end].astype(np.uint8).tobytes())
        weights = survey[end : end + len(told)].tolist()
        cuts = np.cumsum([end + len(told), *(size for *_, size, _ in told)])
        parts = [survey[a:b] for a, b in pairwise(cuts.tolist())]
        nodes = {
            name: Node(stage, parent, size, of, weight, x)
            for (name, stage, parent, size, of), weight, x in zip(told, weights, parts, strict=True)
        }
        return cls(nodes, int(rows), probability, cost)

    # -- z ---------------------------------------------------------------------------------------

    @cached_property
    def where(self) -> dict[Name, slice]:
        """Each node's part of z."""
        ends = np.cumsum([0, *(node.size for node in self.nodes.values())]).tolist()
        return {name: slice(a, b) for name, (a, b) in zip(self.nodes, pairwise(ends), strict=True)}

    @property
    def p(self) -> int:
        """The length of z."""
        return sum(node.size for node in self.nodes.values())

    def index(self, nodes: Iterable[Name]) -> np.ndarray:
        """The coordinates of z that are these nodes' decisions, (k,)."""
        return np.concatenate([np.arange(self.where[name].start, self.where[name].stop) for name in nodes])

    def mean(self, seen: Tree) -> Array:
        """(p,): what the scenarios seen would decide alone, on average; 0 where none came by.

        Raises
        ------
        BadData
            A node that this tree does not have, or more probability than there is.
        """
        new = [name for name in seen.nodes if name not in self.nodes]
        if new:
            raise BadData(f"node {new[0]!r} of scenario {seen.nodes[new[0]].of!r} is new: a live run keeps its tree")
        if seen.probability > 1 + WHOLE:
            raise BadData(f"the probabilities of {seen.rows} scenarios sum to {seen.probability:.9g}, must be 1")
        z = np.zeros(self.p)
        for name, node in seen.nodes.items():
            z[self.where[name]] = node.x / node.weight
        return z

    def check_whole(self) -> Tree:
        """Refuse scenarios whose probabilities do not sum to 1."""
        if abs(self.probability - 1) > WHOLE:
            raise BadData(f"the probabilities of the {self.rows} scenarios sum to {self.probability:.9g}, must be 1")
        return self


def _order(name: Name, node: Node) -> tuple[int, bool, Name]:
    return node.stage, isinstance(name, str), name


def _joined(name: Name, a: Node, b: Node) -> Node:
    """The same node, as two parts of the tree have it."""
    for what in ("size", "stage", "parent"):
        mine, other = getattr(a, what), getattr(b, what)
        if mine != other:
            raise BadData(f"{_SAID[what].format(repr(name))} {mine!r} in scenario {a.of!r} and {other!r} in {b.of!r}")
    return a._replace(weight=a.weight + b.weight, x=a.x + b.x)


_SAID = {
    "size": "the number of columns of node {} is",
    "stage": "the stage of node {} (the first is 0) is",
    "parent": "the node before node {} is",
}
