"""Federated averaging and FedProx: the papers' rounds, and the gap that they leave."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand, diagonal, gap, gradient, logistic
from correctness.cases import case
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.consensus import FedAvg
from paramserver.errors import InvalidInput
from paramserver.penalties import L2, Bound, ElasticNet, GroupL1
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import Logistic


def local(X, y, z, share, steps, metric, mu=0.0, D=0.0, l1=0.0, l2=0.0):
    """Proximal gradient steps on f/share + R + ½μ‖x − z‖²_D, R of all but the intercept."""
    penalised, x = np.arange(len(z)) < len(z) - 1, z
    for _ in range(steps):
        v = x - (gradient(X, y, x) / share + mu * D * (x - z)) / metric
        shrunk = np.sign(v) * np.maximum(np.abs(v) - l1 / metric, 0) / (1 + l2 / metric)
        x = np.where(penalised, shrunk, v)
    return x


def settled(rule, X, y, chunks, rounds=60, penalty=None):
    """By hand, until the curvature is known."""
    hand = ByHand(rule, X, y, chunks, penalty)
    for _ in range(rounds):
        hand.round()
    return hand


@pytest.mark.parametrize(("mu", "rate"), [(0.0, 1.0), (0.7, 0.5)])
def test_a_round_is_the_papers(mu, rate):
    X, y = logistic(600)
    hand = settled(FedAvg(local_steps=4, mu=mu, rate=rate), X, y, 3, 10, ElasticNet(6.0, 0.5))
    z, D, stiff = hand.z, diagonal(X, y), hand.state.stiff
    metric = (stiff + mu) * D / rate
    parts = [local(X[r], y[r], z, len(r) / 600, 4, metric, mu, D, 3.0, 3.0) for r in hand.rows]
    expected = sum(len(r) / 600 * x for r, x in zip(hand.rows, parts, strict=True))
    np.testing.assert_allclose(hand.state.D, D, rtol=0.2)  # chunks differ a little in their null models
    np.testing.assert_allclose(hand.round(), expected, rtol=1e-6)
    assert hand.state.stiff == stiff


def test_one_step_is_exact():
    """The mean of the chunks' gradient steps is one of the whole."""
    made = case("logistic", "l2", "weight")
    run = simulate(
        made.problem, made.X, made.y, **made.extras, chunks=6, penalty=made.penalty, consensus=FedAvg(local_steps=1),
        network=Network((1.0, 1.0, 6.0)),
    )  # fmt: skip
    assert run.result.converged
    assert made.gap(run.result.z) <= 1e-8 * float(made.null)
    assert not run.result.notes


def reference_floor(X, y, chunks, steps, stiff, mu=0.0, l2=1.0):
    """The gap of the synchronous method at rest, in plain numpy."""
    D, z = diagonal(X, y), np.zeros(X.shape[1] + 1)
    rows = np.array_split(np.arange(len(X)), chunks)
    for _ in range(max(60, 600 // steps)):
        parts = [local(X[r], y[r], z, len(r) / len(X), steps, (stiff + mu) * D, mu, D, l2=l2) for r in rows]
        z = sum(len(r) / len(X) * x for r, x in zip(rows, parts, strict=True))
    return gap(X, y, z, l2)


SETTINGS = [
    (FedAvg(), 1600, 5, 16), (FedAvg(local_steps=20), 3000, 10, 10), (FedAvg(local_steps=2), 3000, 5, 20),
    (FedAvg(mu=1.0), 3000, 10, 10), (FedAvg(local_steps=10, mu=0.2), 1600, 10, 8),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "n", "d", "chunks"), SETTINGS, ids=repr)
def test_the_floor_is_that_of_a_synchronous_reference(rule, n, d, chunks):
    X, y = logistic(n, d)
    hand = settled(rule, X, y, chunks, 30, L2(1.0))
    reference = reference_floor(X, y, chunks, rule.local_steps, hand.state.stiff, rule.mu)
    assert reference / 6 <= rule.floor(hand.setup) <= 6 * reference


@pytest.mark.parametrize("network", [Network((1.0,) * 4), Network((1.0, 1.0, 6.0))], ids=["even", "straggler"])
@pytest.mark.parametrize("min_fresh", [1, 10])
def test_it_ends_where_the_synchronous_reference_does_and_says_so(min_fresh, network):
    X, y = logistic(2000, 8)
    rule = FedAvg(min_fresh=min_fresh)
    floor = reference_floor(X, y, 10, 5, settled(rule, X, y, 10, 30, L2(1.0)).state.stiff)
    run = simulate(Logistic(), X, y, chunks=10, penalty=L2(1.0), consensus=rule, network=network, tol=1e-8)
    assert run.result.reason == "stalled"
    assert run.result.certificate == "duality gap"
    assert floor / 1.5 <= gap(X, y, run.result.z, 1.0) <= 1.5 * floor
    assert gap(X, y, run.result.z, 1.0) <= run.result.gap * (1 + 1e-9)
    assert any("FedAvg is not exact" in note for note in run.result.notes)


def test_chunks_that_differ_hold_it_far_off():
    X, y = logistic(2000, 8, sort=True)
    run = simulate(Logistic(), X, y, chunks=10, penalty=L2(1.0), consensus="fedavg", tol=1e-8)
    assert run.result.reason == "stalled"
    assert gap(X, y, run.result.z, 1.0) > 0.01


def test_a_pull_towards_z_brings_it_nearer():
    X, y = logistic(2000, 8)
    ends = [settled(FedAvg(local_steps=10, mu=mu), X, y, 10, 80, L2(1.0)).z for mu in (0.0, 1.0, 5.0)]
    free, held, tight = (gap(X, y, z, 1.0) for z in ends)
    assert tight < held < free


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.permutations(range(4)))
def test_what_is_pushed_again_changes_nothing(again, order):
    """Whatever the order of a full round."""
    X, y = logistic(200)
    one, two = (settled(FedAvg(), X, y, 4, 3) for _ in range(2))
    pushes = [one.push(i) for i in range(4)]
    for i in range(4):
        one.absorb(i, pushes[i])
    for i in (*order, *again):
        two.absorb(i, pushes[i])
    np.testing.assert_allclose(one.consensus(), two.consensus(), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FedAvg(local_steps=0), "local_steps"),
        (lambda: FedAvg(rate=1.5), "rate"),
        (lambda: FedAvg(mu=-1.0), "mu"),
        (lambda: FedAvg().suits(Bound(GroupL1(2), np.ones(4, bool))), "prox_gradient"),
    ],
)
def test_bad_settings(make, says):
    with pytest.raises(InvalidInput, match=says):
        make()
