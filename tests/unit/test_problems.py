"""Local problems where numbers are large, labels odd, weights zero, and data narrow."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from paramserver.errors import BadData, InvalidInput
from paramserver.workers.problems import LeastSquares, Logistic

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3))
Y = (RNG.random(60) < 0.4).astype(float)


def start(problem, *chunks):
    return problem.start(functools.reduce(problem.merge, [problem.survey(problem.prepare(*c)) for c in chunks]))


# -- logistic: the tails --------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 1e-9, 1.0, 36.0, 40.0, 700.0, 745.0, 1000.0, 1e6])
@pytest.mark.parametrize("y", [0.0, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_logistic_rows_keep_their_digits(margin, sign, y):
    loss, first, second = (float(v[0]) for v in Logistic().rows(np.array([sign * margin]), np.array([y])))
    m = np.longdouble(sign * margin)
    t = -m if y else m  # the loss is log(1 + exp(t))
    tail = np.exp(-np.abs(t))
    assert loss == pytest.approx(float(np.maximum(t, 0) + np.log1p(tail)), rel=1e-15, abs=0)
    slope = (1 if t >= 0 else tail) / (1 + tail)
    assert first == pytest.approx(float(-slope if y else slope), rel=4e-16, abs=0)
    assert second == pytest.approx(float(tail / (1 + tail) ** 2), rel=4e-16, abs=1e-323)


@pytest.mark.parametrize("size", [1000.0, 1e6])
@pytest.mark.parametrize("weight", [None, np.where(np.arange(60) % 3, 1.0, 0.0)], ids=["plain", "some zero"])
def test_logistic_far_away_is_finite_and_quiet(size, weight):
    """pytest turns an overflow's warning into an error."""
    problem = Logistic()
    data = problem.prepare(X, Y, weight)
    z = size * np.array([1.0, -1.0, 1.0, 1.0])
    at = problem.evaluate(data, z)
    assert np.isfinite(at.value)
    assert np.isfinite(at.gradient).all()
    assert np.isfinite(problem.hessian(data, at.curvature)).all()
    assert np.isfinite(problem.line(data, 0 * z, z, np.array([1.0, 0.5, 0.0]))).all()
    for step in (z, -z, 1e-3 * z, 1e-9 * z):
        assert problem.fenchel(data, z, step)[0] >= 0  # inf, where the dual leaves its domain; never nan
        assert problem.fenchel(data, 0 * z, step)[0] >= 0


@pytest.mark.parametrize("offset", [None, np.linspace(-1, 1, 60)], ids=["plain", "offset"])
def test_a_value_comes_with_its_margins(offset):
    problem = Logistic()
    data = problem.prepare(X, Y, None, offset)
    z = np.array([0.3, -0.2, 0.1, 0.5])
    np.testing.assert_array_equal(problem.evaluate(data, z).margins, problem.margins(data, z))


def test_a_row_without_weight_does_not_count():
    """Not even where its Fenchel term is infinite: 0·inf would be nan, and the answer refused."""
    problem = Logistic(fit_intercept=False)
    weight = np.ones(60)
    weight[7] = 0.0
    others = np.arange(60) != 7
    wild = X.copy()
    wild[7] = 1e4
    data, without = problem.prepare(wild, Y, weight), problem.prepare(X[others], Y[others])
    z, step = np.array([0.1, 0.2, -0.1]), np.array([0.05, 0.0, 0.1])
    assert problem.fenchel(data, z, step) == pytest.approx(problem.fenchel(without, z, step), rel=1e-12)
    a, b = problem.evaluate(data, z), problem.evaluate(without, z)
    assert a.value == pytest.approx(b.value, rel=1e-12)
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-10)
    ones = problem.tally(Y[others], np.ones(59), None)[:2]
    np.testing.assert_allclose(problem.tally(Y, weight, None)[:2], ones)


@pytest.mark.parametrize("reach", [1e-6, 1e-3, 0.0011, 0.1, 0.5, 0.9, 0.999])
def test_logistic_fenchel_bound_is_a_bound_and_a_close_one(reach):
    problem = Logistic()
    for m in np.linspace(-8, 8, 33):
        for y in (0.0, 1.0):
            for delta in (-reach, reach):
                term = problem.fenchel_rows(np.array([m]), np.array([y]), np.array([delta]), np.zeros(1))[0]
                curvature = problem.rows(np.array([m]), np.array([y])).second[0]
                assert term <= problem.fenchel_bound(curvature * delta**2, reach) * (1 + 1e-9) + 1e-22
    # the share of ½ΔᵀHΔ that the bound adds goes to nothing
    assert problem.fenchel_bound(1.0, reach) <= 0.5 * (1 + reach)
    assert problem.fenchel_bound(1.0, 1.0) is None


# -- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, RNG.random(60)], ids=["plain", "weighted"])
def test_labels_in_every_dress_are_the_same_problem(weight):
    problem, z = Logistic(), np.array([0.3, -0.2, 0.1, 0.4])
    dresses = [
        Y,
        Y.astype(int),
        Y.astype(bool),
        2 * Y - 1,
        Y.astype(np.float32),
        Y[:, None],
        (2 * Y - 1).astype(np.int8),
    ]
    expected = problem.evaluate(problem.prepare(X, Y, weight), z)
    for dress in dresses:
        problem.check_target(dress)
        at = problem.evaluate(problem.prepare(X, dress, weight), z)
        assert at.value == expected.value
        np.testing.assert_array_equal(at.gradient, expected.gradient)
        assert start(problem, (X, dress, weight)).objective == start(problem, (X, Y, weight)).objective


@pytest.mark.parametrize("bad", [2.0, 0.5, -2.0, 1.0000001])
def test_bad_label_names_its_row(bad):
    y = Y.copy()
    y[17] = bad
    with pytest.raises(BadData, match="row 17"):
        Logistic().prepare(X, y)
    with pytest.raises(InvalidInput, match="0/1, -1/1 or bool"):
        Logistic().check_target(y)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("problem", [Logistic(), LeastSquares()], ids=repr)
def test_target_that_is_not_finite_names_its_row(problem, bad):
    y = Y.copy()
    y[5] = bad
    with pytest.raises(BadData, match="row 5"):
        problem.prepare(X, y)


def test_text_is_not_a_target():
    with pytest.raises(BadData, match="encode"):
        Logistic().prepare(X, np.array(["yes", "no"] * 30))


def test_mixed_labels_are_found_across_chunks():
    zero_one, plus_minus = (X[:30], Y[:30]), (X[30:], 2 * Y[30:] - 1)
    with pytest.raises(BadData, match="0/1 in some rows and -1/1 in others"):
        start(Logistic(), zero_one, plus_minus)
    with pytest.raises(InvalidInput):
        Logistic().check_target(np.array([-1, 0, 1]))


@pytest.mark.parametrize(("y", "named"), [(np.ones(60), "1"), (np.zeros(60), "0"), (-np.ones(60), "-1")])
def test_one_class_has_no_optimum_with_an_intercept(y, named):
    with pytest.raises(BadData, match=f"all labels are.*{named}.*fit_intercept=False"):
        start(Logistic(), (X, y))
    assert start(Logistic(fit_intercept=False), (X, y)).objective == pytest.approx(60 * np.log(2))


def test_one_class_a_chunk_is_fine():
    order = np.argsort(Y, kind="stable")
    chunks = [(X[rows], Y[rows]) for rows in np.array_split(order, 5)]
    here, there = start(Logistic(), *chunks), start(Logistic(), (X, Y))
    np.testing.assert_allclose(here.z, there.z, rtol=1e-14)


# -- weights and shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [Logistic(), LeastSquares()], ids=repr)
def test_weights(problem):
    weight = RNG.integers(0, 3, 60).astype(float)
    repeated = np.repeat(np.arange(60), weight.astype(int))
    z = np.array([0.3, -0.2, 0.1, 0.4])
    a = problem.evaluate(problem.prepare(X, Y, weight), z)
    b = problem.evaluate(problem.prepare(X[repeated], Y[repeated]), z)
    assert a.value == pytest.approx(b.value, rel=1e-13)
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-11)
    assert start(problem, (X, Y, weight)).objective == pytest.approx(
        start(problem, (X[repeated], Y[repeated])).objective
    )
    weight[11] = -0.5
    with pytest.raises(BadData, match="row 11"):
        problem.prepare(X, Y, weight)
    with pytest.raises(BadData, match="weights are zero"):
        start(problem, (X, Y, np.zeros(60)))


@pytest.mark.parametrize("problem", [Logistic(), LeastSquares()], ids=repr)
def test_shapes(problem):
    with pytest.raises(BadData, match="rows"):
        problem.prepare(X, Y[:-1])
    with pytest.raises(BadData, match="needs a target"):
        problem.prepare(X)
    one = problem.prepare(X[:, 0], Y)
    assert problem.evaluate(one, np.array([0.5, 0.1])).gradient.shape == (2,)
    nothing = problem.prepare(X[:0], Y[:0])
    assert problem.survey(nothing)[0] == 0
    assert problem.evaluate(nothing, np.zeros(4)).value == 0
    assert start(problem, (X, Y), (X[:0], Y[:0])).objective == start(problem, (X, Y)).objective


def test_integers_become_floats():
    whole = (10 * X).astype(int)
    at = Logistic().evaluate(Logistic().prepare(whole, Y), np.array([0.1, 0.1, 0.1, 0.0]))
    assert (
        at.value
        == Logistic().evaluate(Logistic().prepare(whole.astype(float), Y), np.array([0.1, 0.1, 0.1, 0.0])).value
    )


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [60, 5000])
@pytest.mark.parametrize("problem", [Logistic(), LeastSquares(), Logistic(fit_intercept=False)], ids=repr)
def test_float32_data_lose_nothing_more(problem, rows):
    """Same values, half the memory: every sum is in float64."""
    wide = RNG.standard_normal((rows, 70)).astype(np.float32)
    y = (RNG.random(rows) < 0.5).astype(float)
    narrow, widened = problem.prepare(wide, y), problem.prepare(wide.astype(np.float64), y)
    assert narrow.X.nbytes == widened.X.nbytes / 2
    z = 0.1 * RNG.standard_normal(70 + problem.fit_intercept)
    a, b = problem.evaluate(narrow, z), problem.evaluate(widened, z)
    assert a.value == b.value
    np.testing.assert_array_equal(a.gradient, b.gradient)
    np.testing.assert_array_equal(problem.hessian(narrow, a.curvature), problem.hessian(widened, b.curvature))
    np.testing.assert_array_equal(problem.reach(narrow), problem.reach(widened))


def test_least_squares_survey_keeps_its_digits_at_a_large_mean():
    """Mean 1e9, deviation 1: Σy² − (Σy)²/n would have no digit left."""
    rng = np.random.default_rng(2)
    left = rng.standard_normal(1000)
    y = 1e9 + left
    left = y - 1e9  # what is left of it in float64
    exact = 0.5 * float(((left - left.mean()) ** 2).sum())
    problem = LeastSquares()
    for cuts in (1, 7, 100):
        here = start(problem, *((np.zeros((len(p), 1)), p) for p in np.array_split(y, cuts)))
        assert here.objective == pytest.approx(exact, rel=2e-4)  # what a float64 gradient at 1e9 can resolve
        assert here.z[-1] - 1e9 == pytest.approx(left.mean(), abs=1e-6)


def test_constant_target_has_a_scale():
    """F(null model) = 0 would make every relative gap infinite."""
    null = start(LeastSquares(), (X, np.full(60, 3.3)))
    assert 0 < null.objective < 1e-18


def test_blocks_cover_every_row_once():
    data = LeastSquares().prepare(RNG.standard_normal((3000, 900)), RNG.standard_normal(3000))
    seen = np.concatenate([np.arange(3000)[rows] for rows, _ in data.X.blocks()])
    np.testing.assert_array_equal(seen, np.arange(3000))
    assert sum(1 for _ in data.X.blocks()) > 5


def test_a_row_alone_in_its_level_has_a_finite_fenchel_term():
    """Unpenalised, its Newton step leads to the edge of the conjugate's domain, and rounding beyond it."""
    m = np.linspace(-30, 30, 1201)
    for y in (0.0, 1.0):
        rows = Logistic().rows(m, np.full_like(m, y))
        step = -rows.first / rows.second
        terms = Logistic().fenchel_rows(m, np.full_like(m, y), step, np.zeros_like(m))
        np.testing.assert_allclose(terms, rows.loss, rtol=1e-9)  # θ = 0: all of its loss
        assert np.isinf(Logistic().fenchel_rows(m, np.full_like(m, y), 1.0001 * step, np.zeros_like(m))).all()
