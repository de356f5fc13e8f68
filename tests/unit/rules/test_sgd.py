"""Asynchronous minibatch SGD: its steps, its draws, and the floor that its settings say."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand, diagonal, gap, gradient, logistic, objective, optimum

from paramserver.consensus import AsyncSGD
from paramserver.errors import InvalidInput, MissingMethod
from paramserver.messages import Version
from paramserver.penalties import L1, L2
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import Logistic, Smooth


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_whole_batches_of_one_chunk_are_proximal_gradient_steps(decay):
    X, y = logistic(400)
    hand = ByHand(AsyncSGD(rate=0.3, decay=decay, batch=400), X, y, 1, L1(4.0))
    z, D = hand.z, diagonal(X, y)
    for sweep in range(1, 20):
        step = 0.3 / (1 + sweep) ** decay
        v = z - step * gradient(X, y, z) / D
        w = np.sign(v) * np.maximum(np.abs(v) - 4.0 * step / D, 0)
        z = np.append(w[:-1], v[-1])
        np.testing.assert_allclose(hand.round(), z, rtol=1e-9, atol=1e-12)


def test_chunks_that_answer_one_by_one_stand_for_all():
    """N times a chunk's gradient, of whatever size the chunk is."""
    X, y = logistic(400)
    hand = ByHand(AsyncSGD(rate=0.3, batch=400), X, y, 4)
    hand.round()
    z, chunk = hand.z, hand.rows[2]
    hand.absorb(2, hand.push(2))
    expected = z - 0.3 * 4 * gradient(X[chunk], y[chunk], z) / hand.state.D
    np.testing.assert_allclose(hand.consensus(), expected, rtol=1e-9)


def test_late_gradients_shorten_the_steps_of_all():
    X, y = logistic(400)
    hand = ByHand(AsyncSGD(rate=0.3, batch=400), X, y, 4)
    hand.round()
    late = hand.pull(0)
    for _ in range(5):
        hand.absorb(1, hand.push(1))
        hand.consensus()
    assert hand.state.delay == 0
    hand.absorb(0, hand.push(0, late))
    assert hand.state.delay == pytest.approx(0.1 * 5)
    z, g = hand.z, hand.slots[0]["g"]
    np.testing.assert_allclose(hand.consensus(), z - 0.3 / 1.5 * 4 * g / hand.state.D, rtol=1e-9)


def test_batches_are_drawn_by_the_pull_alone_and_unbiased():
    X, y = logistic(400)
    hand = ByHand(AsyncSGD(batch=20), X, y)
    pulls = [hand.pull(0)._replace(version=Version(0, n)) for n in range(400)]
    g = np.array([hand.push(0, pull)["g"] for pull in pulls])
    np.testing.assert_array_equal(hand.push(0, pulls[7])["g"], g[7])
    assert not np.array_equal(g[7], g[8])
    other = ByHand(AsyncSGD(batch=20, seed=1), X, y)
    assert not np.array_equal(other.push(0, other.pull(0)._replace(version=Version(0, 7)))["g"], g[7])
    errors = g.std(axis=0) / np.sqrt(len(g))
    assert (np.abs(g.mean(axis=0) - gradient(X, y, hand.z)) < 5 * errors).all()


def floor_of_reference(X, y, rate, batch, rounds=6000):
    """The mean gap of plain SGD on rows drawn with replacement, after a third of the rounds."""
    rng, D, z, gaps = np.random.default_rng(0), diagonal(X, y), np.zeros(X.shape[1] + 1), []
    least, null = objective(X, y, optimum(X, y)), np.append(np.zeros(X.shape[1]), np.log(y.mean() / (1 - y.mean())))
    for k in range(rounds):
        rows = rng.integers(0, len(X), batch)
        z = z - rate * len(X) / batch * gradient(X[rows], y[rows], z) / D
        if 3 * k > rounds and k % 20 == 0:
            gaps.append(objective(X, y, z) - least)
    return np.mean(gaps) / objective(X, y, null)


@pytest.mark.parametrize(("rate", "batch"), [(0.1, 16), (0.1, 64), (0.3, 64)])
@pytest.mark.parametrize("d", [3, 12])
def test_the_floor_is_that_of_a_synchronous_reference(d, rate, batch):
    X, y = logistic(3000, d)
    rule = AsyncSGD(rate=rate, batch=batch)
    reference = floor_of_reference(X, y, rate, batch)
    assert reference / 2 <= rule.floor(ByHand(rule, X, y, 8).setup) <= 2 * reference


@pytest.mark.parametrize("network", [Network((1.0,)), Network((1.0, 1.0, 6.0))], ids=["alone", "straggler"])
def test_it_ends_at_its_floor_and_says_so(network):
    X, y = logistic(2000, 6)
    rule = AsyncSGD(batch=32)
    run = simulate(Logistic(), X, y, chunks=8, penalty=L2(1.0), consensus=rule, network=network, tol=1e-6)
    floor = rule.floor(ByHand(rule, X, y, 8).setup)
    assert run.result.reason == "stalled"
    assert run.result.certificate == "duality gap"
    assert 1e-5 < gap(X, y, run.result.z, 1.0) <= run.result.gap * (1 + 1e-9) < 2 * floor
    assert any("AsyncSGD is not exact" in note and f"{floor:.1g}" in note for note in run.result.notes)


def test_a_tolerance_above_the_floor_is_no_news():
    X, y = logistic(2000, 6)
    run = simulate(Logistic(), X, y, chunks=8, penalty=L2(1.0), consensus="sgd", tol=0.01)
    assert run.result.converged
    assert not run.result.notes


def test_steps_that_decay_come_nearer():
    X, y = logistic(2000, 6)
    ends = [
        simulate(Logistic(), X, y, chunks=8, penalty=L2(1.0), consensus=rule, tol=1e-6, limit=400.0).result
        for rule in (AsyncSGD(batch=16, rate=0.5), AsyncSGD(batch=16, rate=0.5, decay=0.7))
    ]
    constant, decaying = (gap(X, y, end.z, 1.0) for end in ends)
    assert decaying < constant / 3
    assert any("not exact" in note for note in ends[0].notes)
    assert not ends[1].notes


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"batch": 0}, "batch"), ({"rate": 0.0}, "rate"), ({"rate": np.inf}, "rate"), ({"decay": 1.5}, "decay"),
     ({"seed": -1}, "seed"), ({"min_fresh": 0}, "min_fresh")],
)  # fmt: skip
def test_bad_settings(settings, says):
    with pytest.raises(InvalidInput, match=says):
        AsyncSGD(**settings)


def test_a_problem_without_rows_has_no_batches():
    with pytest.raises(MissingMethod, match=r"def batch\(data, rows, seed\)"):
        AsyncSGD().check(Smooth(lambda z, x: 0.0, lambda z, x: z, size=2))
