"""Each problem once on a real cluster: the objective that the simulator finds, certified."""

from __future__ import annotations

from typing import Any

import pytest
from correctness.cases import FAMILIES, Case, case

import paramserver as ps
from paramserver.simulator import simulate

#: A penalty and an extra for each, so that every one of them goes through `launch` somewhere.
ROWS = {
    "logistic": ("elastic net", "offset"),
    "least squares": ("factors", "weight"),
    "poisson": ("l1", "offset"),
    "gamma": ("groups", "offset"),
    "tweedie": ("l2", "weight"),
    "huber": ("box", "plain"),
    "quantile": ("none", "weight"),
    "squared hinge": ("non-negative", "plain"),
    "multinomial": ("groups", "offset"),
}


def test_every_problem_has_its_row() -> None:
    assert ROWS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", ROWS)
def test_a_cluster_and_the_simulator_agree(client: Any, family: str) -> None:
    made: Case = case(family, *ROWS[family])
    run = ps.launch(
        made.problem, made.X, made.y, **made.extras, penalty=made.penalty, tol=1e-9, chunks=4, client=client
    )
    result = run.result(60)
    alone = simulate(
        made.problem, made.X, made.y, **made.extras, penalty=made.penalty, tol=1e-9, chunks=4
    ).result  # fmt: skip
    null = float(made.null)
    assert result.converged
    assert alone.converged
    assert result.certificate == alone.certificate == "duality gap"
    assert result.n_chunks == 4
    assert result.objective == pytest.approx(alone.objective, rel=1e-8)
    assert -1e-16 * null <= made.gap(result.z) <= result.gap_absolute + 1e-13 * null
    assert result.coef_.shape == ((3, 6) if made.model.classes == 3 else (6,))
