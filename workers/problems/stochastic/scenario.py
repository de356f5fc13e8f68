"""One scenario: a linear or convex quadratic program, how likely it is, and its path through the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from paramserver.errors import InvalidInput
from paramserver.messages import Array

Name = str | int
CONVEX = -1e-9  #: Q's smallest eigenvalue over its largest, at least; looked at where Q is small
SMALL = 500  #: columns


@dataclass(frozen=True, eq=False, kw_only=True)
class Scenario:
    """min cᵀx + ½xᵀQx subject to row_lower ≤ Ax ≤ row_upper and lower ≤ x ≤ upper.

    Parameters
    ----------
    c : (n,) array
    A : (m, n) array or scipy sparse, optional
    row_lower, row_upper : (m,) arrays or numbers
        −inf and inf where there is no bound; equal for an equation.
    lower, upper : (n,) arrays or numbers
        0 and inf if not given.
    Q : (n, n) array or scipy sparse, symmetric and positive semidefinite, or its diagonal (n,), optional
    probability : float
        In (0, 1]; those of all scenarios add up to 1.
    nodes : dict of str or int to sequence of int
        The scenario's path through the tree, root first: each node's name, and which columns are the decisions
        taken there. Scenarios that share a node decide the same there, so its columns correspond in the order
        they are given. Columns of no node are the scenario's own, as those of the last stage are.
    name : str
        What errors call it.
    """

    c: Any
    A: Any = None
    row_lower: Any = -np.inf
    row_upper: Any = np.inf
    lower: Any = 0.0
    upper: Any = np.inf
    Q: Any = None
    probability: float
    nodes: Mapping[Any, Sequence[int]]
    name: str = ""
    n: int = field(init=False, repr=False)  #: columns

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("c", self._numbers("c", self.c, None))
        put("n", len(self.c))
        put("name", str(self.name) or self._path())
        put("A", self._matrix("A", self.A, (None, self.n)) if self.A is not None else sparse.csr_array((0, self.n)))
        put("Q", None if self.Q is None else self._curvature())
        for what, size in (("row_lower", self.A.shape[0]), ("row_upper", self.A.shape[0]), ("lower", self.n),
                           ("upper", self.n)):  # fmt: skip
            put(what, self._numbers(what, getattr(self, what), size, bounds=True))
        for low, high in (("row_lower", "row_upper"), ("lower", "upper")):
            at = np.flatnonzero(~(getattr(self, low) <= getattr(self, high)))
            if len(at):
                values = getattr(self, low)[at[0]], getattr(self, high)[at[0]]
                raise self._wrong(f"{low}[{at[0]}] = {values[0]:g} is above {high}[{at[0]}] = {values[1]:g}")
        if not (isinstance(self.probability, (int, float, np.number)) and 0 < self.probability <= 1):
            raise self._wrong(f"probability must be a number in (0, 1], got {self.probability!r}")
        put("nodes", self._nodes())

    def _path(self) -> str:
        return "/".join(map(str, self.nodes)) if isinstance(self.nodes, Mapping) else ""

    def _wrong(self, text: str) -> InvalidInput:
        return InvalidInput(f"scenario {self.name!r}: {text}")

    def _numbers(self, what: str, value: Any, size: int | None, bounds: bool = False) -> Array:
        """A read-only vector; a number stands for all of it."""
        try:
            out = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._wrong(f"{what} must be numbers, got {type(value).__name__}") from None
        if out.ndim == 0 and size is not None:
            out = np.full(size, out)
        if out.ndim != 1 or len(out) != (len(out) if size is None else size):
            raise self._wrong(f"{what} must have shape ({'n' if size is None else size},), got {np.shape(value)}")
        if np.isnan(out).any() or not (bounds or np.isfinite(out).all()):
            raise self._wrong(f"{what} must be {'numbers' if bounds else 'finite'}, and is not at {_first(out)}")
        out.setflags(write=False)
        return out

    def _matrix(self, what: str, value: Any, shape: tuple[int | None, int]) -> Any:
        try:
            out = sparse.csr_array(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._wrong(f"{what} must be a matrix of numbers, got {type(value).__name__}") from None
        if out.ndim != 2 or out.shape[1] != shape[1] or out.shape[0] != (shape[0] or out.shape[0]):
            wanted = ("m" if shape[0] is None else shape[0], shape[1])
            raise self._wrong(f"{what} must have shape ({wanted[0]}, {wanted[1]}) as c has, got {np.shape(value)}")
        if not np.isfinite(out.data).all():
            raise self._wrong(f"{what} must be finite")
        return out

    def _curvature(self) -> Any:
        """Q as a symmetric matrix, found to be positive semidefinite as far as that is cheap to see."""
        if np.ndim(self.Q) == 1 and not sparse.issparse(self.Q):
            Q = sparse.diags_array(self._numbers("Q", self.Q, self.n)).tocsr()
        else:
            Q = self._matrix("Q", self.Q, (self.n, self.n))
        largest = np.abs(Q.data).max(initial=0.0)
        if abs(Q - Q.T).max() > 1e-10 * largest:
            raise self._wrong("Q must be symmetric")
        lowest = Q.diagonal().min() if self.n > SMALL else float(np.linalg.eigvalsh(Q.toarray())[0])
        if lowest < CONVEX * largest:
            raise self._wrong(f"Q must be positive semidefinite: it has an eigenvalue of {lowest:.2g} or below")
        return Q

    def _nodes(self) -> dict[Name, np.ndarray]:
        if not isinstance(self.nodes, Mapping) or not self.nodes:
            raise self._wrong(f'nodes must be a dict such as {{"root": [0, 1, 2]}}, root first, got {self.nodes!r}')
        out: dict[Name, np.ndarray] = {}
        taken: set[int] = set()
        for node, columns in self.nodes.items():
            if not isinstance(node, (str, int)) or isinstance(node, bool):
                raise self._wrong(f"a node is named by text or a whole number, got {node!r}")
            at = np.atleast_1d(np.asarray(columns))
            right = at.ndim == 1 and at.dtype.kind in "iu" and len(at) and at.min() >= 0 and at.max() < self.n
            if not right or len({*at.tolist()} - taken) < len(at):
                raise self._wrong(f"node {node!r} must name columns of 0 to {self.n - 1}, each once, got {columns!r}")
            taken.update(at.tolist())
            out[node] = at.astype(np.int64)
        return out


def _first(values: Array) -> int:
    return int(np.flatnonzero(~np.isfinite(values))[0])
