"""Every family's losses, slopes, curvatures and Fenchel terms against formulas in extended precision, far out too."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.workers.problems import Gamma, Huber, Logistic, Multinomial, Poisson, Quantile, SquaredHinge, Tweedie
from paramserver.workers.problems.entropy import divergence, excess

LONG = np.longdouble
MARGINS = np.array([-1000.0, -700.0, -40.0, -3.0, -0.3, -1e-3, 0.0, 1e-9, 0.2, 1.0, 5.0, 40.0, 700.0, 1000.0])


def tweedie(p):
    a, b = LONG(p - 1.0), LONG(2.0 - p)

    def loss(m, y):
        m, y = LONG(m), LONG(y)
        if y == 0:
            return np.exp(b * m) / b, np.exp(b * m), b * np.exp(b * m)
        u1, u2 = y * np.exp(-a * m), np.exp(b * m)
        left = u1 / a if a else -y * (m - np.log(y))
        right = u2 / b if b else m - np.log(y)
        base = y**b
        flat = (base / a if a else -LONG(0)) + (base / b if b else LONG(0))
        return left + right - flat, u2 - u1, a * u1 + b * u2

    return loss


def clipped(eps, lo, hi):
    def loss(m, y):
        t = LONG(m) - LONG(y)
        s = np.clip(t / LONG(eps), LONG(lo), LONG(hi))
        return s * t - LONG(eps) * s * s / 2, s, LONG(1) / LONG(eps) if eps * lo < t < eps * hi else LONG(0)

    return loss


def hinge(m, y):
    sign = 1 if y > 0 else -1
    short = max(LONG(1) - sign * LONG(m), LONG(0))
    return short * short / 2, -sign * short, LONG(short > 0)


TABLE = {
    "poisson": (Poisson(), tweedie(1.0), [0.0, 1.0, 3.0, 50.0, 1000.0]),
    "gamma": (Gamma(), tweedie(2.0), [1e-3, 1.0, 3.7, 1000.0]),
    "tweedie 1.5": (Tweedie(), tweedie(1.5), [0.0, 1e-3, 1.0, 7.0, 1000.0]),
    "tweedie 1.1": (Tweedie(1.1), tweedie(1.1), [0.0, 1.0, 1000.0]),
    "huber": (Huber(1.35), clipped(1.0, -1.35, 1.35), [0.0, -2.5, 1000.0]),
    "quantile": (Quantile(0.9, smoothing=0.01), clipped(0.01, -0.9, 1.0 - 0.9), [0.0, -2.5, 1000.0]),
    "squared hinge": (SquaredHinge(), hinge, [-1.0, 0.0, 1.0]),
}
CASES = [(name, y) for name, (_, _, ys) in TABLE.items() for y in ys]


def rows(problem, m, y):
    with np.errstate(over="ignore"):
        return problem.rows(np.atleast_1d(m), np.full(np.size(m), y))


@pytest.mark.parametrize(("name", "y"), CASES)
def test_rows_keep_their_digits(name, y):
    problem, exact, _ = TABLE[name]
    optimum = np.log(y) if y > 0 and name not in ("huber", "quantile") else y
    near = optimum + np.array([-0.4, 0.0, 1e-3, 0.3, 0.6, 2.0])
    margins = np.concatenate([MARGINS, near])
    got = rows(problem, margins, y)
    with np.errstate(over="ignore"):
        want = np.array([exact(m, y) for m in margins])
    out_of_range = np.abs(want) > np.finfo(float).max
    for k, what in enumerate(("loss", "slope", "curvature")):
        # m − log y is no better than log y itself, and near the optimum the loss is what is left of y.
        slack = 1e-15 * (1 + abs(y)) * (1 + abs(np.log(y) if y > 0 else 0)) ** 2
        true = np.where(out_of_range[:, k], np.copysign(np.inf, want[:, k]), want[:, k]).astype(float)
        np.testing.assert_allclose(got[k], true, rtol=1e-12, atol=slack, err_msg=what)
        assert not np.isnan(got[k]).any()
    assert (got.loss >= 0).all()
    assert (got.second >= 0).all()


@pytest.mark.parametrize("p", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("e", [1e-12, 1e-6, 1e-3, 0.1, -1e-6, -0.3])
def test_tweedie_near_its_optimum_is_half_a_square(p, e):
    """y = 1: log y is exact, so every digit of the loss can be asked for."""
    a, b, x = p - 1.0, 2.0 - p, LONG(e)
    terms = (((-a * x) ** k / a if a else 0) + ((b * x) ** k / b if b else 0) for k in range(2, 25))
    want = sum(term / factorial(k) for k, term in enumerate(terms, 2))
    assert rows(Tweedie(p), e, 1.0).loss[0] == pytest.approx(float(want), rel=2e-15)


@pytest.mark.parametrize(("name", "y"), CASES)
def test_far_away_nothing_is_nan(name, y):
    """pytest turns a warning into an error; overflow is the caller's to silence."""
    problem = TABLE[name][0]
    for m in MARGINS:
        for delta in (-1000.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 1000.0):
            for moved in (-1000.0, 0.0, delta, 1000.0):
                with np.errstate(over="ignore"):
                    term = problem.fenchel_rows(*map(np.atleast_1d, (m, y, delta, moved)))
                assert term[0] >= 0, (m, delta, moved, term)


# -- Fenchel terms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "y"), CASES)
@settings(max_examples=60, deadline=None)
@given(m=st.floats(-4, 4), delta=st.floats(-1.5, 1.5), moved=st.floats(-2, 2))
def test_fenchel_term_is_that_of_one_minorant(name, y, m, delta, moved):
    """ℓ(m') + c − θm' for one c ≥ ℓ*(θ): ≥ 0 everywhere, and its differences are the loss's own."""
    problem, exact, _ = TABLE[name]
    if y > 50 and name not in ("huber", "quantile"):
        m += float(np.log(y))
    here, there = (problem.fenchel_rows(*map(np.atleast_1d, (m, y, delta, v)))[0] for v in (0.0, moved))
    assert np.isinf(here) == np.isinf(there)
    if np.isinf(here):
        return
    loss, slope, bend = exact(m, y)
    after = exact(m + moved, y)[0]
    theta = slope + bend * LONG(delta)
    want = float(here + (after - loss) - theta * LONG(moved))
    assert there == pytest.approx(want, rel=1e-9, abs=1e-12 * float(1 + abs(loss) + abs(after) + abs(theta) + abs(y)))
    if "huber" not in name and "quantile" not in name and "hinge" not in name and abs(delta) < 1:
        bound = problem.fenchel_bound(float(bend) * delta**2, abs(delta))
        assert here <= bound * (1 + 1e-9) + 1e-300


@pytest.mark.parametrize("name", ["poisson", "gamma", "huber", "quantile", "squared hinge"])
def test_fenchel_term_is_exact(name):
    """It touches zero at the margin whose slope is θ."""
    problem, exact, ys = TABLE[name]
    rng = np.random.default_rng(0)
    for y in ys:
        for _ in range(20):
            m = float(rng.uniform(-1, 1)) + (y if name in ("huber", "quantile") else np.log(y) if y > 0 else 0.0)
            delta = 0.3 * float(rng.uniform(-1, 1)) * (0.01 if name == "quantile" else 1.0)
            if not np.isfinite(problem.fenchel_rows(*map(np.atleast_1d, (m, y, delta, 0.0)))[0]):
                continue
            _, slope, bend = (float(v) for v in exact(m, y))
            theta = slope + bend * delta
            low, high = -50.0, 50.0  # the slope is monotone
            for _ in range(200):
                middle = (low + high) / 2
                low, high = (middle, high) if exact(m + middle, y)[1] < theta else (low, middle)
            term = problem.fenchel_rows(*map(np.atleast_1d, (m, y, delta, low)))[0]
            # Where the slope is flat, the whole stretch is a minimum.
            assert term <= 1e-9 * (1 + float(exact(m, y)[0])), (y, m, delta)


@pytest.mark.parametrize("name", ["poisson", "gamma", "tweedie 1.5"])
def test_a_row_alone_in_its_level_has_a_finite_fenchel_term(name):
    """Unpenalised, its Newton step leads to θ = 0: all of its loss, or a bound of it."""
    problem, _, ys = TABLE[name]
    for y in ys:
        m = np.linspace(-30, 30, 601)
        at = rows(problem, m, y)
        terms = problem.fenchel_rows(m, np.full_like(m, y), -at.first / at.second, np.zeros_like(m))
        assert np.isfinite(terms[np.abs(m - np.log(y)) < 0.5] if y > 0 else terms).all()
        finite = np.isfinite(terms)
        assert (terms[finite] >= at.loss[finite] * (1 - 1e-9)).all()
        if y == 0:
            np.testing.assert_allclose(terms, at.loss, rtol=1e-9)


def test_tweedie_bound_is_tight_to_second_order():
    y, m = np.array([0.5, 2.0, 9.0]), np.array([0.1, 0.2, 2.5])
    second = Tweedie().rows(m, y).second
    for delta in (1e-1, 1e-3, 1e-6):
        terms = Tweedie().fenchel_rows(m, y, np.full(3, delta), np.zeros(3))
        np.testing.assert_allclose(terms, 0.5 * second * delta**2, rtol=delta)


# -- multinomial -----------------------------------------------------------------------------------


def softmax(m, label):
    m = np.asarray(m, LONG)
    top = m.argmax()
    p = np.exp(m - m[top])
    return np.log1p(np.delete(p, top).sum()) + (m[top] - m[label]), p / p.sum()


@pytest.mark.parametrize("margins", [(0.1, -0.2, 0.3), (1000.0, -1000.0, 0.0), (40.0, 0.0, -1.0), (-700.0, 30.0, 31.0)])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_multinomial_rows(margins, label):
    got = rows_of(margins, label)
    loss, p = softmax(margins, label)
    others = np.delete(p, label)
    assert got.loss[0] == pytest.approx(float(loss), rel=1e-13, abs=0)
    np.testing.assert_allclose(got.second[0], p.astype(float), rtol=1e-13, atol=1e-300)
    want = p.copy()
    want[label] = -others.sum()
    np.testing.assert_allclose(got.first[0], want.astype(float), rtol=1e-13, atol=1e-300)


def rows_of(margins, label):
    return Multinomial(len(margins)).rows(np.array([margins], float), np.array([float(label)]))


@settings(max_examples=200, deadline=None)
@given(
    m=st.lists(st.floats(-6, 6), min_size=3, max_size=3),
    d=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    v=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    size=st.sampled_from([1e-7, 1e-3, 1.0]),
)
def test_multinomial_fenchel_is_a_divergence(m, d, v, size):
    m, d, v = (np.array([w], float) for w in (m, d, v))
    d, v = size * d, size * v
    got = Multinomial(3).fenchel_rows(m, np.zeros(1), d, v)[0]
    p, after = softmax(m[0], 0)[1], softmax(LONG(1) * m[0] + v[0], 0)[1]
    apart = d[0] - (p * d[0]).sum()
    q = p * (1 + apart)
    if (q < 0).any():
        assert got == np.inf
        return
    want = float(np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / after), 0).sum())
    assert got == pytest.approx(want, rel=1e-6, abs=1e-18)
    reach = float(np.abs(d).sum())
    bound = Multinomial(3).fenchel_bound(float((p * apart**2).sum()), reach)
    still = Multinomial(3).fenchel_rows(m, np.zeros(1), d, 0 * v)[0]
    rounding = 1e-30 * float((d * d).sum()) + 1e-300  # of δ − δ̄; and of numbers that are not normal
    assert bound is None or still <= bound * (1 + 1e-9) + rounding


@pytest.mark.parametrize("size", [1e-9, 1.0, 1000.0])
def test_multinomial_fenchel_is_never_nan(size):
    rng = np.random.default_rng(1)
    for spread in (1.0, 1000.0):
        m, d, v = (
            spread * rng.standard_normal((50, 4)),
            size * rng.standard_normal((50, 4)),
            rng.standard_normal((50, 4)),
        )
        for moved in (0 * v, size * v, 1000 * v):
            assert (Multinomial(4).fenchel_rows(m, np.zeros(50), d, moved) >= 0).all()


def test_two_classes_are_logistic():
    m = np.linspace(-5, 5, 41)
    y = (np.arange(41) % 2).astype(float)
    two = np.stack([np.zeros(41), m], axis=1)
    np.testing.assert_allclose(Multinomial(2).rows(two, y).loss, Logistic().rows(m, y).loss, rtol=1e-13)
    step = 0.3 * np.cos(m)
    pair = np.stack([np.zeros(41), step], axis=1)
    np.testing.assert_allclose(
        Multinomial(2).fenchel_rows(two, y, pair, 0.5 * pair),
        Logistic().fenchel_rows(m, y, step, 0.5 * step),
        rtol=1e-9,
    )


# -- what they are made of -------------------------------------------------------------------------


@given(st.floats(-50, 50))
@settings(deadline=None)
def test_excess(x):
    want = np.expm1(LONG(x)) - LONG(x) if abs(x) > 1e-2 else sum(LONG(x) ** k / factorial(k) for k in range(2, 12))
    assert excess(np.array([x]))[0] == pytest.approx(float(want), rel=4e-15, abs=0)


def test_divergence_at_the_edge():
    u, zero = np.ones(1), np.zeros(1)
    assert divergence(u, -u, u, zero)[0] == 1.0  # q = 0: all of u
    assert divergence(u, -(1 + 1e-13) * u, u, zero)[0] == 1.0
    assert divergence(u, -1.001 * u, u, zero)[0] == np.inf
    assert divergence(zero, -2 * u, zero, zero)[0] == 0.0
    assert divergence(np.full(1, np.inf), u, u, zero)[0] == np.inf
