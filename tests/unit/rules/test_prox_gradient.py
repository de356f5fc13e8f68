"""Proximal incremental aggregated gradient: the paper's step, the curvature it learns, and exact ends."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand, diagonal, gradient, logistic
from correctness.cases import FAMILIES, case
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.consensus import ProxGradient
from paramserver.penalties import L1
from paramserver.simulator import Network, simulate

STRAGGLER = Network(speeds=(1.0, 1.0, 1.0, 8.0))


def steps_of(X, y, l1, rounds):
    """Proximal gradient steps as the papers have them, with the largest curvature met so far: z by round, and how
    many steps were too long."""
    z = np.append(np.zeros(X.shape[1]), np.log(y.mean() / (1 - y.mean())))
    D, sigma, out, back, at, g = diagonal(X, y), 1.0, [], 0, None, None
    for _ in range(rounds):
        new = gradient(X, y, z)
        met = 0.0 if at is None else (new - g) @ (z - at) / ((z - at) @ (D * (z - at)))
        if met > 2 * sigma:  # too long: from where it was, a quarter as far
            sigma, back = 4 * sigma, back + 1
        else:
            at, g, sigma = z, new, max(sigma, met)
        v = at - g / (sigma * D)
        w = np.sign(v) * np.maximum(np.abs(v) - l1 / (sigma * D), 0)
        z = np.append(w[:-1], v[-1])
        out.append(z)
    return out, back


@pytest.mark.parametrize("spread", [0.0, 8.0])  # of correlations: some first steps are too long
def test_one_chunk_takes_the_papers_steps(spread):
    X, y = logistic(600)
    X = X + spread * X[:, :1]
    hand = ByHand(ProxGradient(), X, y, 1, L1(4.0))
    steps, back = steps_of(X, y, 4.0, 40)
    assert (back > 0) == (spread > 0)
    for z in steps:
        np.testing.assert_allclose(hand.round(), z, rtol=1e-9, atol=1e-12)


def test_a_full_barrier_of_equal_chunks_is_one_chunk():
    X, y = logistic(600)
    whole, four = ByHand(ProxGradient(), X, y, 1), ByHand(ProxGradient(), np.tile(X, (4, 1)), np.tile(y, 4), 4)
    for _ in range(20):
        np.testing.assert_allclose(four.round(), whole.round(), rtol=1e-9)


@pytest.mark.parametrize("network", [Network((1.0,) * 4), STRAGGLER], ids=["even", "straggler"])
@pytest.mark.parametrize("penalty", ["none", "l2", "l1", "groups", "box"])
@pytest.mark.parametrize("family", ["logistic", "least squares", "quantile", "multinomial"])
def test_it_is_exact(family, penalty, network):
    made = case(family, penalty, "weight")
    run = simulate(
        made.problem, made.X, made.y, **made.extras, chunks=6, penalty=made.penalty, consensus="prox_gradient",
        network=network, tol=1e-8,
    )  # fmt: skip
    assert run.result.reason == "converged", run.result
    assert run.result.certificate == "duality gap"
    assert made.gap(run.result.z) <= min(run.result.gap_absolute, 1e-8 * float(made.null)) + 1e-12 * float(made.null)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"logistic", "least squares", "quantile", "multinomial"}))
def test_every_loss(family):
    made = case(family, "elastic net", "offset")
    run = simulate(
        made.problem, made.X, made.y, **made.extras, chunks=6, penalty=made.penalty, consensus=ProxGradient(min_fresh=3)
    )
    assert run.result.converged
    assert made.gap(run.result.z) <= 1e-8 * float(made.null)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1)), min_size=4, max_size=30))
def test_the_sums_are_those_of_the_slots(visits):
    """Whatever comes in whatever order, from whatever z, taken or too far."""
    X, y = logistic(200)
    hand = ByHand(ProxGradient(), X, y, 4)
    hand.round()
    sigmas = {i: slot["sigma"] for i, slot in hand.slots.items()}
    for i, shift in visits:
        hand.z = hand.setup.z + 4.0 * shift
        hand.absorb(i, hand.push(i))
        assert hand.slots[i]["sigma"] >= sigmas[i]
        sigmas[i] = hand.slots[i]["sigma"]
    fresh = hand.rule.rebuild(hand.state, hand.slots, hand.z)
    np.testing.assert_allclose(hand.state.g, fresh.g, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(hand.state.x, fresh.x, rtol=1e-9, atol=1e-9)
    assert hand.state.weight == pytest.approx(fresh.weight)
