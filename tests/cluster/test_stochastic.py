"""Stochastic programs on a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.examples import extensive_form, farmer, inventory


@pytest.mark.parametrize("rule", ["progressive_hedging", "aph"])
def test_the_books_farmer(client: Any, rule: str) -> None:
    run = ps.launch(ps.StochasticProgram(), farmer.scenarios(), consensus=rule, tol=1e-5, keep=True, client=client)
    result = run.result(30)
    assert result.reason == "converged"
    assert result.certificate == "residual"
    assert result.objective == pytest.approx(-108_390, rel=1e-4)
    np.testing.assert_allclose(result.coef_["acres"], [170.0, 80.0, 250.0], atol=0.1)
    duals = run.duals()
    assert [dual.chunk for dual in duals] == [0, 1, 2]
    off = np.sum([dual.value for dual in duals], axis=0)
    assert np.abs(off).max() <= 1e-3 * np.abs([dual.value for dual in duals]).max()


@pytest.mark.parametrize("rule", [ps.ProgressiveHedging(), ps.APH()], ids=str)
def test_three_stages_in_bundles(client: Any, rule: ps.Consensus) -> None:
    tree = inventory.scenarios()
    chunks = [tree[:2], tree[2:4], tree[4:7], tree[7:]]
    result = ps.fit(ps.StochasticProgram(), chunks, consensus=rule, tol=1e-4, client=client)
    assert result.converged
    assert (result.n_chunks, result.n_rows, result.n_features) == (4, 8, 14)
    assert result.objective == pytest.approx(extensive_form.solve(tree).cost, rel=1e-4)


def test_a_scenario_is_replaced_on_a_live_run(client: Any) -> None:
    years = farmer.scenarios()
    first = [*years[:2], farmer.year(2.0 * farmer.YIELDS, 1 / 3, "too good")]
    run = ps.launch(ps.StochasticProgram(), first, consensus="progressive_hedging", tol=1e-5, keep=True, client=client)
    assert run.result(30).objective < -150_000
    run.drop([2])
    assert run.add([years[2]]) == [3]
    result = run.result(30)
    run.stop()
    assert result.converged
    assert result.objective == pytest.approx(-108_390, rel=1e-4)


def test_scenarios_that_cannot_be_used(client: Any) -> None:
    with pytest.raises(ps.errors.InvalidInput, match=r"sum to 0\.666666667, must be 1"):
        ps.launch(ps.StochasticProgram(), farmer.scenarios()[:2], consensus="aph", client=client)
    year = farmer.scenarios()[0]
    greedy = ps.Scenario(c=[-1.0, 0.0, 0.0], probability=1 / 3, nodes={"acres": [0, 1, 2]}, name="greedy")
    with pytest.raises(ps.errors.BadData, match="scenario 'greedy': unbounded"):
        ps.fit(ps.StochasticProgram(), [year, greedy, farmer.scenarios()[2]], consensus="aph", client=client)
