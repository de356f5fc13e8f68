"""Null models of every family from any cut of the rows, weights of zero included; and bad input."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from paramserver.errors import BadData, InvalidInput
from paramserver.testing import null_model
from paramserver.workers.problems import Gamma, Huber, Multinomial, Poisson, Quantile, SquaredHinge, Tweedie

RNG = np.random.default_rng(3)
N = 600
X = RNG.standard_normal((N, 2))
MEAN = np.exp(X[:, 0] + 1.0)
WEIGHT = RNG.random(N) * (RNG.random(N) < 0.7)
OFFSET = RNG.standard_normal(N)
HEAVY = RNG.standard_t(1.5, N) * 10.0 + 1000.0
FAMILIES = {
    "poisson": (Poisson(), RNG.poisson(MEAN).astype(float)),
    "poisson, rare": (Poisson(), RNG.poisson(0.05, N).astype(float)),
    "gamma": (Gamma(), RNG.gamma(2.0, MEAN)),
    "tweedie": (Tweedie(1.3), RNG.gamma(2.0, MEAN) * (RNG.random(N) < 0.6)),
    "huber": (Huber(1.35), RNG.standard_normal(N)),
    "huber, heavy tails": (Huber(5.0), HEAVY),
    "quantile": (Quantile(0.9, smoothing=0.3), RNG.standard_normal(N)),
    "squared hinge": (SquaredHinge(), (RNG.random(N) < 0.3).astype(float)),
}


def begin(problem, chunks):
    data = [problem.prepare(*chunk) for chunk in chunks]
    survey = reduce(problem.merge, map(problem.survey, data))
    problem = problem.at(survey)
    return problem, problem.start(survey), data


def found(problem, chunks):
    problem, start, data = begin(problem, chunks)
    return null_model(problem, start, data)


def cut(k, *columns):
    pieces = np.array_split(np.arange(N), k)
    return [tuple(None if c is None else c[rows] for c in columns) for rows in pieces]


@pytest.mark.parametrize("offset", [None, OFFSET], ids=["", "offset"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
@pytest.mark.parametrize("name", FAMILIES)
def test_null_model_is_the_best_constant(name, weight, offset):
    problem, y = FAMILIES[name]
    w, o = np.ones(N) if weight is None else weight, np.zeros(N) if offset is None else offset

    def total(b):
        return float(w @ problem.rows(b + o, y).loss)

    middle = np.median(y) if name.startswith("huber") else 0.0
    best = minimize_scalar(total, bracket=(middle - 1, middle + 1), options={"xtol": 1e-12})
    _, rough, _ = begin(problem, cut(7, X, y, weight, offset))
    exact = found(problem, cut(7, X, y, weight, offset))
    assert exact.objective == pytest.approx(best.fun, rel=1e-9)
    assert exact.objective == pytest.approx(total(exact.z[-1]), rel=1e-12)
    assert exact.z[-1] == pytest.approx(best.x, abs=1e-5 * (1 + abs(best.x)))
    if not (name == "squared hinge" and offset is not None):  # whose tally says nothing of an offset's spread
        assert rough.objective == pytest.approx(best.fun, rel=0.03)
    assert not exact.z[:-1].any()


@pytest.mark.parametrize("name", FAMILIES)
def test_any_cut_and_order_gives_the_same(name):
    problem, y = FAMILIES[name]
    whole = found(problem, [(X, y, WEIGHT, OFFSET)])
    order = np.argsort(y, kind="stable")
    pieces = cut(9, X[order], y[order], WEIGHT[order], OFFSET[order])
    for chunks in (pieces, pieces[::-1], pieces[4:] + pieces[:4]):
        here = found(problem, chunks)
        np.testing.assert_allclose(here.z, whole.z, rtol=1e-7, atol=1e-9)
        assert here.objective == pytest.approx(whole.objective, rel=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_without_weight_do_not_count(name):
    problem, y = FAMILIES[name]
    nothing = (X[:50] * 1e3, y[:50], np.zeros(50), OFFSET[:50] + 800.0)
    chunks = cut(3, X, y, WEIGHT, OFFSET)
    base, more = found(problem, chunks), found(problem, [nothing, *chunks, nothing])
    np.testing.assert_allclose(more.z, base.z, rtol=1e-12)
    assert more.objective == pytest.approx(base.objective, rel=1e-12)
    data, z = problem.prepare(*nothing), np.array([0.1, 0.2, 0.3])
    at = problem.evaluate(data, z)
    assert at.value == 0
    assert not at.gradient.any()
    assert not problem.hessian(data, at.curvature).any()
    assert problem.fenchel(data, z, z, z) == (0.0, 0.0)
    np.testing.assert_array_equal(problem.line(data, z, z, np.array([1.0, 0.0])), 0.0)
    with pytest.raises(BadData, match="weights are zero"):
        begin(problem, [nothing])


@pytest.mark.parametrize("name", FAMILIES)
def test_without_an_intercept_it_is_zero(name):
    problem, y = FAMILIES[name]
    bare = replace(problem, fit_intercept=False)
    here = found(bare, cut(4, X, y, WEIGHT, OFFSET))
    assert not here.z.any()
    assert here.objective == pytest.approx(float(WEIGHT @ problem.rows(OFFSET, y).loss), rel=1e-10)


@pytest.mark.parametrize("mean", [0.05, 50.0, 1000.0, 1e9])
def test_poisson_of_any_size_keeps_its_digits(mean):
    """Σ y·log y − … would cancel: at 1e9 nothing were left."""
    y = np.random.default_rng(0).poisson(mean, N).astype(float)
    start = begin(Poisson(), cut(20, X, y))[1]
    b = np.log(y.mean(dtype=np.longdouble))
    safe = np.where(y > 0, y, 1.0).astype(np.longdouble)
    exact = float((y * (np.log(safe) - b) - y + np.exp(b)).sum())
    assert start.exact
    assert start.objective == pytest.approx(exact, rel=1e-8)


def test_a_large_offset_does_not_overflow():
    y = RNG.poisson(3.0, N).astype(float)
    near, far = begin(Poisson(), [(X, y, None, OFFSET)])[1], begin(Poisson(), [(X, y, None, OFFSET + 2000.0)])[1]
    assert far.z[-1] == pytest.approx(near.z[-1] - 2000.0, rel=1e-12)
    assert far.objective == pytest.approx(near.objective, rel=1e-9)


@pytest.mark.parametrize(("problem", "y"), [(Poisson(), 3.0), (Gamma(), 2.7), (Tweedie(), 0.3)])
def test_a_constant_target_has_a_scale(problem, y):
    assert 0 < begin(problem, [(X, np.full(N, y))])[1].objective < 1e-15 * N


# -- multinomial -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [None, RNG.standard_normal((N, 4))], ids=["", "offset"])
@pytest.mark.parametrize("n_classes", [None, 4])
def test_multinomial_null_model(n_classes, offset):
    y = RNG.integers(0, 4, N).astype(float)
    order = np.argsort(y, kind="stable")  # chunks that have not met every class
    y, weight = y[order], WEIGHT[order]
    problem = Multinomial(n_classes)
    start = found(problem, cut(5, X, y, weight, offset))
    b, o = start.z[-4:], np.zeros((N, 4)) if offset is None else offset
    best = minimize(lambda b: float(weight @ Multinomial(4).rows(b + o, y).loss), np.zeros(4), tol=1e-9)
    assert start.objective == pytest.approx(best.fun, rel=1e-8)
    np.testing.assert_allclose(b - b.mean(), best.x - best.x.mean(), atol=1e-4)
    assert abs(b.mean()) < 1e-12


def test_multinomial_packs_and_centres():
    problem, _, data = begin(Multinomial(), [(X, np.arange(N) % 3)])
    z = np.arange(9.0)
    coef, intercept = problem.unpack(z)
    np.testing.assert_array_equal(coef, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_allclose(intercept, [-1, 0, 1])
    np.testing.assert_allclose(problem.margins(data[0], z), X @ coef.T + [6, 7, 8], rtol=1e-12)
    assert problem.penalised(9).tolist() == [True] * 6 + [False] * 3
    far = X + np.array([1e6, 0.0])
    shifted, _, data = begin(Multinomial(), [(far, np.arange(N) % 3)])
    coef, intercept = shifted.unpack(shifted.inward(z))
    np.testing.assert_allclose(coef, [[0, 1], [2, 3], [4, 5]])
    margins = shifted.margins(data[0], shifted.inward(z))
    np.testing.assert_allclose(
        margins - margins.mean(axis=1, keepdims=True), (far @ coef.T + intercept) @ (np.eye(3) - 1 / 3), atol=1e-8
    )
    bare = begin(Multinomial(fit_intercept=False), [(X, np.arange(N) % 3)])[0]
    assert bare.unpack(np.arange(6.0))[0].shape == (3, 2)


# -- bad input -------------------------------------------------------------------------------------

GOOD = np.arange(N) % 3 + 1.0


@pytest.mark.parametrize(
    ("problem", "bad"),
    [
        (Poisson(), -1.0),
        (Tweedie(1.5), -0.1),
        (Gamma(), 0.0),
        (Gamma(), -2.0),
        (Tweedie(2.0), 0.0),
        (Multinomial(), 1.5),
        (Multinomial(), -1.0),
        (Multinomial(4), 4.0),
        (SquaredHinge(), 2.0),
    ],
    ids=repr,
)
def test_a_bad_target_names_its_row(problem, bad):
    y = GOOD.copy() if not isinstance(problem, SquaredHinge) else np.ones(N)
    y[17] = bad
    with pytest.raises(BadData, match=rf"{bad:g} in row 17: {type(problem).__name__} takes"):
        problem.prepare(X, y)
    with pytest.raises(InvalidInput, match=f"{type(problem).__name__} takes"):
        problem.check_target(y)
    y[17] = 1.0
    problem.check_target(y)
    problem.prepare(X, y)


@pytest.mark.parametrize(
    ("problem", "y", "words"),
    [
        (Poisson(), np.zeros(N), "no finite optimum"),
        (Tweedie(), np.zeros(N), "no finite optimum"),
        (SquaredHinge(), np.ones(N), "all labels are 1"),
        (Multinomial(), np.zeros(N), "K >= 2"),
        (Multinomial(), 2.0 * (np.arange(N) % 2), "label 1 of the 3 classes.*np.unique"),
        (Multinomial(3), np.arange(N) % 2, "label 2 of the 3 classes"),
    ],
    ids=lambda v: repr(v) if not isinstance(v, np.ndarray) else "",
)
def test_data_without_an_optimum_are_refused(problem, y, words):
    with pytest.raises(BadData, match=words):
        begin(problem, cut(4, X, y))


def test_all_zero_counts_in_one_chunk_are_fine():
    y = np.where(np.arange(N) < N // 2, 0.0, 2.0)
    for problem in (Poisson(), Tweedie()):
        assert begin(problem, cut(4, X, y))[1].z[-1] == pytest.approx(0.0, abs=1e-12)
        bare = type(problem)(fit_intercept=False)
        total = float(bare.rows(np.zeros(N), np.zeros(N)).loss.sum())
        assert begin(bare, cut(4, X, 0 * y))[1].objective == pytest.approx(total)


def test_labels_of_text_are_told_how_to_encode():
    for problem in (Multinomial(), SquaredHinge()):
        with pytest.raises(BadData, match=r"np\.unique\(y, return_inverse=True\)\[1\]"):
            problem.prepare(X, np.array(["a", "b", "c"] * 200))


def test_one_class_is_refused_early():
    with pytest.raises(InvalidInput, match="K >= 2"):
        Multinomial().check_target(np.zeros(5, int))


def test_offset_of_another_width_is_refused():
    with pytest.raises(BadData, match=r"one column a class was needed, \(600, 3\)"):
        Multinomial(3).prepare(X, GOOD - 1, None, np.zeros((N, 2)))
    with pytest.raises(BadData, match="offset has 2 columns"):
        Multinomial().prepare(X, GOOD - 1, None, np.zeros((N, 2)))
    with pytest.raises(BadData, match="offset has shape"):
        Poisson().prepare(X, GOOD, None, np.zeros((N, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tweedie(0.5),
        lambda: Tweedie(2.5),
        lambda: Tweedie(np.nan),
        lambda: Huber(0.0),
        lambda: Huber(np.inf),
        lambda: Quantile(0.0, smoothing=1.0),
        lambda: Quantile(0.5, smoothing=0.0),
        lambda: Multinomial(1),
        lambda: Multinomial(2.5),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(InvalidInput, match="must"):
        make()


def test_quantile_must_be_told_its_smoothing():
    with pytest.raises(TypeError, match="smoothing"):
        Quantile(0.5)
    problem, rng = Quantile(0.9, smoothing=0.2), np.random.default_rng(0)
    t = rng.standard_normal(1000)
    pinball = np.where(t < 0, -0.9 * t, 0.1 * t)
    bias = pinball - problem.rows(t, np.zeros(1000)).loss
    assert bias.min() >= 0
    assert 0.8 < bias.max() / (0.2 * 0.81 / 2) <= 1 + 1e-12


def test_names_and_settings_are_shown():
    assert repr(Poisson()).startswith("Poisson(fit_intercept=True")
    assert "power" not in repr(Gamma())
    assert "power=1.3" in repr(Tweedie(1.3))
    assert "smoothing=0.5" in repr(Quantile(0.3, smoothing=0.5))
