"""ADMM's residual balancing: rho finds its size by itself."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand, logistic
from correctness.cases import case

from paramserver.consensus import ADMM
from paramserver.consensus.balance import CHANGES
from paramserver.penalties import L1, L2
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import Logistic

STRAGGLER = Network((1.0, 1.0, 8.0))
GOOD = {"hessian": 0.3, "diagonal": 0.3, "identity": 30.0}


@pytest.mark.parametrize("off", [1e-3, 1e3])
@pytest.mark.parametrize("metric", GOOD)
def test_a_rho_that_is_a_thousand_times_off_costs_little(metric, off):
    X, y = logistic(2000, 8)
    rho, pushes = GOOD[metric], {}
    for name, rule in (
        ("right", ADMM(metric=metric, rho=rho)),
        ("off", ADMM(metric=metric, rho=off * rho)),
        ("balanced", ADMM(metric=metric, rho=off * rho, balance=True)),
    ):
        run = simulate(
            Logistic(), X, y, chunks=8, penalty=L1(4.0), consensus=rule, network=STRAGGLER, tol=1e-6,
            limit=2000.0 if rule.balance else 400.0,
        )  # fmt: skip
        pushes[name] = run.pushes_per_chunk if run.result.converged else np.inf
    assert pushes["balanced"] <= pushes["right"] + 30 < pushes["off"], pushes


def test_it_is_exact():
    made = case("poisson", "groups", "offset")
    rule = ADMM(metric="diagonal", rho=1e4, balance=True)
    run = simulate(made.problem, made.X, made.y, **made.extras, chunks=6, penalty=made.penalty, consensus=rule)
    assert run.result.converged
    assert made.gap(run.result.z) <= 1e-8 * float(made.null)
    assert "rho=10000" not in run.result.consensus  # the result says what it came to


def test_a_change_keeps_the_unscaled_duals_and_there_are_so_many_at_most():
    X, y = logistic(600)
    hand = ByHand(ADMM(rho=1e3, relaxation=1.0, balance=True), X, y, 3, L2(1.0))
    for _ in range(60):
        hand.round()
        rule, hand.state = hand.rule.tuned(hand.state, hand.slots, hand.bound, hand.z)
        if rule is hand.rule:
            continue
        assert rule.rho != hand.rule.rho
        before = [hand.state.rho * slot["M"] @ (slot["w"] - hand.z) for slot in hand.slots.values()]
        hand.state = rule.update(hand.state, hand.rule, hand.slots, hand.z)
        hand.rule = rule
        after = [hand.state.rho * slot["M"] @ (slot["w"] - hand.z) for slot in hand.slots.values()]
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9)
    assert 1 <= hand.state.changes <= CHANGES
    assert 0.05 < hand.rule.rho < 20
    hand.state.changes, hand.state.before = CHANGES, hand.z + 1.0
    assert hand.rule.tuned(hand.state, hand.slots, hand.bound, hand.z)[0] is hand.rule


def test_a_server_that_took_over_waits_for_a_sweep_of_its_own():
    """It does not know what z was a sweep ago."""
    X, y = logistic(600)
    hand = ByHand(ADMM(rho=1e3, balance=True), X, y, 3, L2(1.0))
    hand.round()
    assert hand.state.before is None
    rule, state = hand.rule.tuned(hand.state, hand.slots, hand.bound, hand.z)
    assert rule is hand.rule
    np.testing.assert_array_equal(state.before, hand.z)


def test_without_it_rho_stays():
    X, y = logistic(600)
    hand = ByHand(ADMM(rho=1e3), X, y, 3, L2(1.0))
    for _ in range(5):
        hand.round()
        assert hand.rule.tuned(hand.state, hand.slots, hand.bound, hand.z)[0] is hand.rule
