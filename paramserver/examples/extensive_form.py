"""A stochastic linear program as one large linear program, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from paramserver.messages import Array
from paramserver.workers.problems import Scenario


class Optimum(NamedTuple):
    """The least expected cost, and what is decided at each node."""

    cost: float
    decisions: dict[str | int, Array]


def solve(scenarios: Sequence[Scenario]) -> Optimum:
    """All scenarios side by side, and an equation for every decision that two of them share; without Q."""
    begins = np.cumsum([0, *(len(s.c) for s in scenarios)])
    first: dict[str | int, tuple[int, Any]] = {}
    pairs: list[tuple[int, int]] = []
    for i, scenario in enumerate(scenarios):
        for node, columns in scenario.nodes.items():
            k, others = first.setdefault(node, (i, columns))
            if k != i:
                pairs += [(begins[k] + a, begins[i] + b) for a, b in zip(others, columns, strict=True)]
    A = sparse.block_diag([s.A for s in scenarios], format="csr")
    low, high = (np.concatenate([getattr(s, what) for s in scenarios]) for what in ("row_lower", "row_upper"))
    equal, below, above = low == high, (low != high) & np.isfinite(low), (low != high) & np.isfinite(high)
    same = np.array(pairs).reshape(-1, 2)
    rows = np.arange(len(same))
    agree = sparse.csr_array((np.ones(len(rows)), (rows, same[:, 0])), shape=(len(rows), begins[-1]))
    agree = agree - sparse.csr_array((np.ones(len(rows)), (rows, same[:, 1])), shape=(len(rows), begins[-1]))
    found = linprog(
        np.concatenate([s.probability * s.c for s in scenarios]),
        A_ub=sparse.vstack([A[above], -A[below]]),
        b_ub=np.concatenate([high[above], -low[below]]),
        A_eq=sparse.vstack([A[equal], agree]),
        b_eq=np.concatenate([low[equal], np.zeros(len(rows))]),
        bounds=np.column_stack([np.concatenate([getattr(s, what) for s in scenarios]) for what in ("lower", "upper")]),
        method="highs",
    )
    decisions = {node: found.x[begins[i] + columns] for node, (i, columns) in first.items()}
    return Optimum(float(found.fun), decisions)
