"""Elastic averaging: the paper's exchange, differences that count once, and the gap that the springs leave."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand, diagonal, gap, gradient, logistic

from paramserver.consensus import EASGD
from paramserver.errors import InvalidInput
from paramserver.penalties import L2
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import Logistic


def local(X, y, x, share, steps, metric, l2):
    """Proximal gradient steps on f/share + R, R of all but the intercept."""
    ridge = np.append(np.full(X.shape[1], l2), 0.0)
    for _ in range(steps):
        x = (x - gradient(X, y, x) / share / metric) / (1 + ridge / metric)
    return x


def settled(rule, X, y, chunks, rounds, penalty=None):
    hand = ByHand(rule, X, y, chunks, penalty)
    for _ in range(rounds):
        hand.round()
    return hand


def test_an_exchange_is_the_papers():
    X, y = logistic(600)
    rule = EASGD(local_steps=3, beta=0.6, rate=0.8)
    hand = settled(rule, X, y, 3, 20, L2(2.0))
    z, stiff, slot, rows = hand.z, hand.state.stiff, hand.slots[1], hand.rows[1]
    push = hand.push(1)
    e = 0.6 / 3 * (slot["x"] - z)
    np.testing.assert_allclose(push["e"], e, rtol=1e-12)
    after = local(X[rows], y[rows], slot["x"] - e, len(rows) / 600, 3, stiff * hand.state.D / 0.8, 2.0)
    np.testing.assert_allclose(push["x"], after, rtol=1e-9)
    hand.absorb(1, push)
    np.testing.assert_allclose(hand.consensus(), z + e, rtol=1e-12)
    np.testing.assert_array_equal(hand.consensus(), hand.z)  # and no further


def test_the_difference_is_a_delta_and_a_whole_answer_has_none():
    X, y = logistic(600)
    hand = settled(EASGD(), X, y, 3, 5)
    assert hand.rule.is_delta(hand.push(1))
    whole = hand.push(1, hand.pull(1, whole=True))
    assert not hand.rule.is_delta(whole)
    z = hand.z
    hand.absorb(1, whole)
    np.testing.assert_array_equal(hand.consensus(), z)
    np.testing.assert_array_equal(hand.slots[1]["x"], whole["x"])


def reference_floor(X, y, chunks, rule, stiff, l2=1.0):
    """The gap of the synchronous method at rest, in plain numpy."""
    D, z = diagonal(X, y), np.zeros(X.shape[1] + 1)
    rows = np.array_split(np.arange(len(X)), chunks)
    own = [z for _ in rows]
    for _ in range(max(60, 600 // rule.local_steps)):
        pulls = [rule.beta / chunks * (x - z) for x in own]
        own = [
            local(X[r], y[r], x - e, len(r) / len(X), rule.local_steps, stiff * D, l2)
            for r, x, e in zip(rows, own, pulls, strict=True)
        ]
        z = z + sum(pulls)
    return gap(X, y, z, l2)


SETTINGS = [
    (EASGD(), 1600, 5, 16),
    (EASGD(local_steps=1), 3000, 10, 10),
    (EASGD(local_steps=20, beta=0.5), 3000, 5, 20),
]


@pytest.mark.parametrize(("rule", "n", "d", "chunks"), SETTINGS, ids=repr)
def test_the_floor_is_that_of_a_synchronous_reference(rule, n, d, chunks):
    X, y = logistic(n, d)
    hand = settled(rule, X, y, chunks, 30, L2(1.0))
    reference = reference_floor(X, y, chunks, rule, hand.state.stiff)
    together = EASGD(local_steps=rule.local_steps, beta=rule.beta, min_fresh=chunks)
    assert reference / 4 <= together.floor(hand.setup) <= 4 * reference
    assert rule.floor(hand.setup) > together.floor(hand.setup)


@pytest.mark.parametrize("network", [Network((1.0,) * 4), Network((1.0, 1.0, 6.0))], ids=["even", "straggler"])
def test_under_a_barrier_it_ends_where_the_synchronous_reference_does_and_says_so(network):
    X, y = logistic(2000, 8)
    rule = EASGD(min_fresh=10)
    floor = reference_floor(X, y, 10, rule, settled(rule, X, y, 10, 30, L2(1.0)).state.stiff)
    run = simulate(Logistic(), X, y, chunks=10, penalty=L2(1.0), consensus=rule, network=network, tol=1e-8)
    assert run.result.reason == "stalled"
    assert run.result.certificate == "duality gap"
    assert floor / 1.5 <= gap(X, y, run.result.z, 1.0) <= 1.5 * floor
    assert any("EASGD is not exact" in note for note in run.result.notes)


@pytest.mark.parametrize("network", [Network((1.0,)), Network((1.0, 1.0, 6.0))], ids=["alone", "straggler"])
def test_chunk_by_chunk_it_ends_near_its_floor(network):
    X, y = logistic(2000, 8)
    rule = EASGD()
    run = simulate(Logistic(), X, y, chunks=10, penalty=L2(1.0), consensus=rule, network=network, tol=1e-8)
    floor = rule.floor(ByHand(rule, X, y, 10).setup)
    assert run.result.reason == "stalled"
    assert floor / 4 <= gap(X, y, run.result.z, 1.0) <= 4 * floor


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"beta": 1.2}, {"local_steps": 0}, {"rate": 0.0}])
def test_bad_settings(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        EASGD(**settings)
