"""Production and inventory over three seasons, in three stages.

Before each season so much is made, at a cost that rises; then the season's demand is known, high or low, and
is met from stock, by what was made, or not at all, at a penalty. What is left is stored. What is made before the
first season is the same whatever comes; before the second it may depend on the first demand, before the third on
the first two: 1 + 2 + 4 nodes with `branches=2`, and as many scenarios as there are sequences of demands.

    python -m paramserver.examples.inventory
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np

import paramserver as ps
from paramserver.examples import extensive_form

SEASONS = 3
MEAN = (90.0, 120.0, 150.0)  #: demand
CHEAP, OVERTIME, STORE, LOST = 10.0, 16.0, 2.0, 40.0  #: costs a unit
CAPACITY = 100.0  #: of what is made cheaply in a season


def scenarios(branches: int = 2, seed: int = 0) -> list[ps.Scenario]:
    """Every sequence of ``branches`` demands a season; how likely each is, depends on the one before."""
    rng = np.random.default_rng(seed)
    factors = np.linspace(0.6, 1.4, branches)
    likely = rng.dirichlet(np.full(branches, 5.0), size=branches)  #: given the season before
    return [
        _scenario(
            path, float(likely[0, path[0]] * np.prod([likely[a, b] for a, b in pairwise(path)])),
            np.array(MEAN) * factors[list(path)],
        )
        for path in product(range(branches), repeat=SEASONS)
    ]  # fmt: skip


def _scenario(path: tuple[int, ...], probability: float, demand: np.ndarray) -> ps.Scenario:
    """Columns, season by season: made cheaply, made in overtime, in stock after it, sales lost."""
    A = np.zeros((SEASONS, 4 * SEASONS))
    nodes: dict[str, list[int]] = {}
    for t in range(SEASONS):
        A[t, 4 * t : 4 * t + 4] = 1.0, 1.0, -1.0, 1.0  # made − stored + lost, with what was in stock, is the demand
        if t:
            A[t, 4 * t - 2] = 1.0
        nodes["root" + "".join(f"/{k}" for k in path[:t])] = [4 * t, 4 * t + 1]
    return ps.Scenario(
        c=np.tile([CHEAP, OVERTIME, STORE, LOST], SEASONS), A=A, row_lower=demand, row_upper=demand,
        upper=np.tile([CAPACITY, np.inf, np.inf, np.inf], SEASONS), probability=probability, nodes=nodes,
        name="demands " + "".join(map(str, path)),
    )  # fmt: skip


def main(branches: int = 2) -> None:
    """Both rules beside the one large program."""
    tree = scenarios(branches)
    exact = extensive_form.solve(tree)
    print(f"{'extensive form':20} cost {exact.cost:9.3f}   made first {np.round(exact.decisions['root'], 2)}")
    for rule in (ps.ProgressiveHedging(), ps.APH()):
        result = ps.simulate(ps.StochasticProgram(), tree, consensus=rule, tol=1e-4).result
        made = np.round(result.coef_["root"], 2)
        print(f"{type(rule).__name__:20} cost {result.objective:9.3f}   made first {made}   {result.n_pushes} pushes")


if __name__ == "__main__":
    main()
