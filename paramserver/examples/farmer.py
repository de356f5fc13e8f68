"""The farmer's problem, in two stages (Birge & Louveaux, Introduction to Stochastic Programming, section 1.1).

500 acres are given to wheat, corn and sugar beets before the year's yields are known; after the harvest cattle
must be fed, what lacks is bought and what is left is sold. With the book's three yields the expected profit
is 108,390, at 170, 80 and 250 acres.

    python -m paramserver.examples.farmer
"""

from __future__ import annotations

import numpy as np

import paramserver as ps
from paramserver.examples import extensive_form

YIELDS = np.array([2.5, 3.0, 20.0])  #: tons an acre, in a normal year: wheat, corn, beets
#: Costs of: acres of the three; tons of wheat and corn sold, and bought; of beets sold, up to 6000 t and beyond.
COSTS = np.array([150.0, 230.0, 260.0, -170.0, -150.0, 238.0, 210.0, -36.0, -10.0])
QUOTA = 6000.0


def scenarios(n: int = 3, seed: int = 0) -> list[ps.Scenario]:
    """Equally likely years: the book's three, or any number of random ones, good and bad, no crop like the others."""
    if n == 3:
        years = [YIELDS * factor for factor in (1.2, 1.0, 0.8)]
    else:
        rng = np.random.default_rng(seed)
        years = [YIELDS * (1 + rng.uniform(-0.2, 0.2) + rng.uniform(-0.1, 0.1, 3)) for _ in range(n)]
    return [year(yields, 1 / n, f"year {k}") for k, yields in enumerate(years)]


def year(yields: np.ndarray, probability: float, name: str) -> ps.Scenario:
    """One year: the land there is, wheat and corn for the cattle, no more beets sold than grown."""
    wheat, corn, beets = yields
    A = [
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [wheat, 0, 0, -1, 0, 1, 0, 0, 0],
        [0, corn, 0, 0, -1, 0, 1, 0, 0],
        [0, 0, -beets, 0, 0, 0, 0, 1, 1],
    ]
    return ps.Scenario(
        c=COSTS, A=A, row_lower=[-np.inf, 200, 240, -np.inf], row_upper=[500, np.inf, np.inf, 0],
        upper=np.where(np.arange(9) == 7, QUOTA, np.inf), nodes={"acres": [0, 1, 2]}, probability=probability,
        name=name,
    )  # fmt: skip


def main(n: int = 3) -> None:
    """Both rules beside the one large program."""
    years = scenarios(n)
    exact = extensive_form.solve(years)
    print(f"{'extensive form':20} cost {exact.cost:12.2f}   acres {np.round(exact.decisions['acres'], 2)}")
    for rule in (ps.ProgressiveHedging(), ps.APH()):
        result = ps.simulate(ps.StochasticProgram(), years, consensus=rule, tol=1e-4).result
        acres = np.round(result.coef_["acres"], 2)
        print(f"{type(rule).__name__:20} cost {result.objective:12.2f}   acres {acres}   {result.n_pushes} pushes")


if __name__ == "__main__":
    main()
