"""Standard errors and statistics equal statsmodels', whatever the units, and are absent where they mean nothing."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.sparse
import statsmodels.api as sm

import paramserver as ps
from paramserver.errors import InvalidInput
from paramserver.messages import Assignment, Push, Task
from paramserver.server import inferring, reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.problems import (
    Gamma,
    Huber,
    LeastSquares,
    Logistic,
    Multinomial,
    Poisson,
    Quantile,
    SquaredHinge,
    Tweedie,
)
from paramserver.workers.tasks import answer

LOG = sm.families.links.Log()
FAMILIES = {
    "logistic": (Logistic, sm.families.Binomial()),
    "gaussian": (LeastSquares, sm.families.Gaussian()),
    "poisson": (Poisson, sm.families.Poisson()),
    "gamma": (Gamma, sm.families.Gamma(LOG)),
    "tweedie": (Tweedie, sm.families.Tweedie(LOG, var_power=1.5)),
}
STATISTICS = {
    "deviance": "deviance", "null_deviance": "null_deviance", "pearson_chi2": "pearson_chi2", "dispersion": "scale",
    "log_likelihood": "llf", "aic": "aic", "df_model": "df_model", "df_resid": "df_resid",
}  # fmt: skip
ERRORS = {"std_err": "bse", "z": "tvalues", "p_value": "pvalues"}
N = 240
NETWORK = ps.Network(speeds=(1.0, 3.0))


@functools.cache
def columns():
    return np.random.default_rng(3).standard_normal((N, 3))


@functools.cache
def given(family):
    """(y, weight, offset)."""
    rng = np.random.default_rng(4)
    eta = columns() @ [0.3, -0.25, 0.1] + 0.2
    mu = np.exp(eta)
    y = {
        "logistic": lambda: rng.random(N) < 1 / (1 + np.exp(-eta)),
        "gaussian": lambda: eta + rng.standard_normal(N),
        "poisson": lambda: rng.poisson(mu),
        "gamma": lambda: rng.gamma(2.0, mu / 2),
        "tweedie": lambda: [rng.gamma(1.0, 1.0, k).sum() for k in rng.poisson(mu)],
    }[family]()
    return np.asarray(y, float), rng.integers(1, 4, N).astype(float), 0.5 * rng.standard_normal(N)


def fit(problem, X, y, weight=None, tol=1e-18, **options):
    return ps.simulate(
        problem, X, y, sample_weight=weight, chunks=4, network=NETWORK, tol=tol, inference=True, **options
    ).result


def reference(family, X, y, cov_type="nonrobust", **options):
    model = sm.GLM(y, np.column_stack([X, np.ones(len(y))]), family=FAMILIES[family][1], **options)
    return model.fit(tol=1e-14, maxiter=200, cov_type=cov_type)


def assert_same(summary, theirs, rows=slice(None), statistics=STATISTICS):
    np.testing.assert_allclose(summary.coef[rows], theirs.params[rows], rtol=1e-6)
    for ours, name in ERRORS.items():
        np.testing.assert_allclose(getattr(summary, ours)[rows], getattr(theirs, name)[rows], rtol=1e-6, err_msg=ours)
    ends = np.column_stack([summary.low, summary.high])
    np.testing.assert_allclose(ends[rows], theirs.conf_int()[rows], rtol=1e-6)
    for ours, name in statistics.items():
        assert getattr(summary, ours) == pytest.approx(float(getattr(theirs, name)), rel=1e-6), ours


# -- statsmodels' numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("dress", ["plain", "standardize", "large", "far"])
@pytest.mark.parametrize("offset", [False, True], ids=["", "offset"])
@pytest.mark.parametrize("weights", [None, "frequency", "precision"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_statsmodels(family, weights, offset, dress):
    y, weight, off = given(family)
    X, rows = columns().copy(), slice(None)
    if dress == "large":
        X[:, 1] *= 1e6
    theirs = X
    if dress == "far":
        X[:, 1] += 1.5e9
        theirs, rows = X - [0, 1.5e9, 0], slice(3)  # the intercept is one at 1.5e9 away: no digit of it is theirs
    kind, options = FAMILIES[family][0], {}
    if weights is not None:
        options["freq_weights" if weights == "frequency" else "var_weights"] = weight
    if offset:
        options["offset"] = off
    result = fit(
        kind(standardize=dress == "standardize"),
        X,
        y,
        None if weights is None else weight,
        offset=options.get("offset"),
    )
    ask = {"weights": weights or "frequency"}
    assert_same(result.summary(**ask), reference(family, theirs, y, **options), rows)
    robust = reference(family, theirs, y, "HC0", **options)
    assert_same(result.summary(**ask, covariance="sandwich"), robust, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_observed_information(family):
    y, weight, _ = given(family)
    theirs = reference(family, columns(), y, freq_weights=weight)
    result = fit(FAMILIES[family][0](), columns(), y, weight)
    exact = np.linalg.inv(-theirs.model.hessian(theirs.params, observed=True))
    summary = result.summary(information="observed")
    np.testing.assert_allclose(summary.covariance_matrix, exact, rtol=1e-6, atol=1e-9)
    apart = np.abs(result.summary().std_err / summary.std_err - 1).max()
    assert (apart > 1e-3) == (family in ("gamma", "tweedie"))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_intercept(family):
    y, *_ = given(family)
    model = sm.GLM(y, columns(), family=FAMILIES[family][1])
    summary = fit(FAMILIES[family][0](fit_intercept=False), columns(), y).summary()
    few = {k: v for k, v in STATISTICS.items() if k not in ("null_deviance", "df_model")}  # theirs have a constant
    assert_same(summary, model.fit(tol=1e-14, maxiter=200), statistics=few)
    zero = model.family.deviance(y, model.family.fitted(np.zeros(N)))
    assert (summary.df_model, summary.null_deviance) == (3, pytest.approx(zero))


@pytest.mark.parametrize("dispersion", [0.5, 2.0])
def test_level_and_dispersion(dispersion):
    y, *_ = given("gamma")
    model = sm.GLM(y, np.column_stack([columns(), np.ones(N)]), family=FAMILIES["gamma"][1])
    theirs = model.fit(scale=dispersion, tol=1e-14, maxiter=200)
    ours = fit(Gamma(), columns(), y).summary(dispersion=dispersion, level=0.8)
    np.testing.assert_allclose(ours.std_err, theirs.bse, rtol=1e-6)
    np.testing.assert_allclose(np.column_stack([ours.low, ours.high]), theirs.conf_int(alpha=0.2), rtol=1e-6)
    assert ours.dispersion == dispersion


@pytest.mark.parametrize("covariance", ["model", "sandwich"])
@pytest.mark.parametrize("family", FAMILIES)
def test_frequencies_are_repeated_rows(family, covariance):
    """And rows without weight are none, whatever is in them."""
    y, weight, _ = given(family)
    weight = weight - 1.0
    again = np.repeat(np.arange(N), weight.astype(int))
    wild = columns().copy()
    wild[weight == 0] *= 1e3
    kind = FAMILIES[family][0]
    ours = fit(kind(), wild, y, weight).summary(covariance=covariance)
    theirs = fit(kind(), columns()[again], y[again]).summary(covariance=covariance)
    for name in (*ERRORS, *STATISTICS, "n", "coef"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, err_msg=name)


# -- classes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(5)
    share = np.exp(columns() @ rng.standard_normal((3, 3)))
    y = (rng.random((N, 1)) > (share / share.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1).astype(float)
    exog = np.column_stack([columns(), np.ones(N)])
    return fit(Multinomial(standardize=True), columns(), y), y, exog


@pytest.mark.parametrize("last", [0, 2])
def test_multinomial_contrasts_are_those_of_mnlogit(classes, last):
    result, y, exog = classes
    order = [k for k in range(3) if k != last]
    theirs = sm.MNLogit([([last, *order]).index(k) for k in y], exog).fit(disp=0, method="newton", maxiter=50)
    ours = result.summary(reference=last)
    assert ours.names == tuple(f"{name}[{k}]" for k in order for name in ("x0", "x1", "x2", "intercept"))
    flat = theirs.params.ravel("F")
    inverse = np.linalg.inv(-theirs.model.hessian(flat))  # theirs is of the step before the last
    np.testing.assert_allclose(ours.coef, flat, rtol=1e-6)
    np.testing.assert_allclose(ours.covariance_matrix, inverse, rtol=1e-6, atol=1e-9)
    scores = theirs.model.score_obs(flat)
    sandwich = result.summary(reference=last, covariance="sandwich").covariance_matrix
    np.testing.assert_allclose(sandwich, inverse @ scores.T @ scores @ inverse, rtol=1e-6, atol=1e-9)
    assert ours.log_likelihood == pytest.approx(theirs.llf)
    assert ours.aic == pytest.approx(theirs.aic)
    assert ours.df_resid == theirs.df_resid
    assert ours.null_deviance == pytest.approx(-2 * theirs.llnull)


def test_multinomial_coefficients_that_sum_to_zero(classes):
    """Each is its mean contrast to the classes; errors follow from those of the contrasts."""
    result, *_ = classes
    symmetric, contrasts = result.summary(), result.summary(reference=0)
    assert len(symmetric.names) == 12
    np.testing.assert_allclose(symmetric.coef.reshape(3, 4).sum(axis=0), 0, atol=1e-12)
    mean = np.kron(np.vstack([np.zeros(2), np.eye(2)]) - 1 / 3, np.eye(4))  # (12, 8)
    np.testing.assert_allclose(mean @ contrasts.covariance_matrix @ mean.T, symmetric.covariance_matrix, atol=1e-9)
    with pytest.raises(InvalidInput, match="class from 0 to 2"):
        result.summary(reference=3)


# -- losses that are no likelihood -------------------------------------------------------------------

SLOPES = {
    "huber": (Huber(delta=0.8), lambda m, y: (np.clip(m - y, -0.8, 0.8), abs(m - y) < 0.8)),
    "quantile": (
        Quantile(0.3, smoothing=0.4),
        lambda m, y: (np.clip((m - y) / 0.4, -0.3, 0.7), (m - y > -0.12) & (m - y < 0.28)),
    ),
    "hinge": (
        SquaredHinge(),
        lambda m, y: (-(2 * y - 1) * np.maximum(1 - (2 * y - 1) * m, 0), (2 * y - 1) * m < 1),
    ),
}


@pytest.mark.parametrize("weights", ["frequency", "precision"])
@pytest.mark.parametrize("loss", SLOPES)
def test_sandwich_is_what_these_losses_have(loss, weights):
    problem, slopes = SLOPES[loss]
    y, weight, _ = given("logistic" if loss == "hinge" else "gaussian")
    result = fit(problem, columns(), y, weight, tol=1e-11)
    exog = np.column_stack([columns(), np.ones(N)])
    first, second = slopes(exog @ result.z, y)
    unit = problem.rows(exog @ result.z, y).second.max()  # both curvatures are 0 or 1, times this
    bread = np.linalg.inv(exog.T @ (exog * (weight * second * unit)[:, None]))
    squared = weight if weights == "frequency" else weight**2
    scale = np.abs(problem.rows(exog @ result.z, y).first).max() / np.abs(first).max()
    meat = exog.T @ (exog * (squared * (scale * first) ** 2)[:, None])
    summary = result.summary(weights=weights)
    assert summary.covariance == "sandwich"
    np.testing.assert_allclose(summary.std_err, np.sqrt(np.diag(bread @ meat @ bread)), rtol=1e-6)
    assert np.isnan([summary.deviance, summary.log_likelihood, summary.aic, summary.dispersion]).all()
    with pytest.raises(InvalidInput, match=r'covariance="sandwich"'):
        result.summary(covariance="model")


# -- one chunk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [Logistic, LeastSquares, Poisson, Gamma, Huber, Multinomial], ids=lambda k: k.__name__)
def test_moments_of_a_chunk(kind, weighted):
    """They are those of any storage, and agree with what certificates are made of."""
    y, weight, _ = given("poisson" if kind is not Gamma else "gamma")
    y = {Logistic: y > 0, Multinomial: y.clip(max=2)}.get(kind, y)
    X = np.where(columns() > 0, columns(), 0.0)
    problem = kind() if kind is not Multinomial else kind(n_classes=3)
    z = 0.1 * np.random.default_rng(0).standard_normal(12 if kind is Multinomial else 4)
    data = problem.prepare(X, y, weight if weighted else None)
    moments = problem.moments(data, z)
    at = problem.evaluate(data, z)
    np.testing.assert_allclose(moments.observed, problem.hessian(data, at.curvature), rtol=1e-12, atol=1e-12)
    assert moments.sums[0] == pytest.approx(at.value)
    assert tuple(moments.sums[2:4]) == (weight.sum() if weighted else N, N)
    one = [problem.prepare(X[i : i + 1], y[i : i + 1], weight[i : i + 1] if weighted else None) for i in range(N)]
    scores = np.array([problem.evaluate(row, z).gradient for row in one])  # weight·s
    np.testing.assert_allclose(moments.meat_precision, scores.T @ scores, rtol=1e-9, atol=1e-9)
    shared = scores / np.sqrt(weight if weighted else np.ones(N))[:, None]
    np.testing.assert_allclose(moments.meat, shared.T @ shared, rtol=1e-9, atol=1e-9)
    sparse = problem.moments(problem.prepare(scipy.sparse.csr_matrix(X), y, weight if weighted else None), z)
    for ours, other in zip(sparse, moments, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-10, atol=1e-10)
    halves = [problem.moments(problem.prepare(X[rows], y[rows]), z) for rows in (slice(0, 100), slice(100, None))]
    if not weighted:
        for ours, *parts in zip(moments, *halves, strict=True):
            np.testing.assert_allclose(sum(parts), ours, rtol=1e-10, atol=1e-10)


# -- what the data do not determine ------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["model", "sandwich"])
@pytest.mark.parametrize("case", ["copy", "empty", "dummy trap", "far constant"])
@pytest.mark.parametrize("family", ["logistic", "gaussian", "gamma"])
def test_undetermined_coefficients_have_no_error(family, case, covariance):
    y, *_ = given(family)
    X = columns()
    level = np.arange(N) % 3
    more, lost = {
        "copy": (2e3 * X[:, :1], {"x0", "x3"}),
        "empty": (np.zeros((N, 1)), {"x3"}),
        "dummy trap": (np.eye(3)[level], {"x3", "x4", "x5", "intercept"}),
        "far constant": (np.full((N, 1), 1.5e9), {"x3", "intercept"}),
    }[case]
    summary = fit(FAMILIES[family][0](), np.hstack([X, more]), y).summary(covariance=covariance)
    kept = X if case != "dummy trap" else np.hstack([X, more[:, 1:]])
    theirs = reference(family, kept, y, {"model": "nonrobust", "sandwich": "HC0"}[covariance])
    assert {n for n, e in zip(summary.names, summary.std_err, strict=True) if np.isnan(e)} == lost
    assert any(all(name in note for name in lost) for note in summary.notes)
    both = [j for j in range(3) if f"x{j}" not in lost]
    np.testing.assert_allclose(summary.std_err[both], theirs.bse[both], rtol=1e-6)
    for ours, name in STATISTICS.items():
        assert getattr(summary, ours) == pytest.approx(float(getattr(theirs, name)), rel=1e-6), ours


def test_a_perfect_fit_and_no_degrees_of_freedom():
    X = columns()
    perfect = fit(LeastSquares(), X, X @ [1.0, 2.0, 3.0]).summary()
    assert perfect.dispersion < 1e-20
    assert (perfect.std_err < 1e-10).all()
    saturated = fit(LeastSquares(), X[:4], np.arange(4.0)).summary()
    assert np.isnan(saturated.std_err).all()
    assert "no degrees of freedom" in " ".join(saturated.notes)
    str(perfect), str(saturated)


def test_a_loose_fit_says_so():
    y, *_ = given("poisson")
    assert not fit(Poisson(), columns(), y).summary().notes
    loose = fit(Poisson(), columns(), y, tol=0.3)
    assert loose.standard_errors > 0.1
    assert "standard errors from the optimum" in " ".join(loose.summary().notes)


def test_separation_is_said_where_the_errors_are():
    y, *_ = given("logistic")
    alone = (np.arange(N) == int(np.argmax(y)))[:, None]  # its level holds one row, a 1
    result = fit(Logistic(), np.hstack([columns(), alone]), y, tol=1e-8)
    assert result.reason == "separation"
    summary = result.summary()
    assert "no finite optimum" in " ".join(summary.notes)
    theirs = reference("logistic", np.delete(columns(), np.argmax(y), axis=0), np.delete(y, np.argmax(y)))
    np.testing.assert_allclose(summary.std_err[:3], theirs.bse[:3], rtol=1e-4)
    assert summary.p_value[3] > 0.5


# -- the protocol ------------------------------------------------------------------------------------


class Cluster:
    """A core and one runner that may leave a task's chunk 1 unanswered."""

    def __init__(self, problem, y, silent=None, **settings):
        parts = [(columns()[rows], y[rows]) for rows in np.array_split(np.arange(N), 3)]
        self.data = [problem.prepare(*part) for part in parts]
        self.core = Core(
            RunSpec(problem, settings.pop("penalty", ps.NoPenalty()), ps.AggregatedNewton(), 3, **settings), 0, 0.0
        )
        self.core.dispatch.holds("w0", {0, 1, 2})
        self.silent, self.now, self.asked = silent, 0.0, []

    def run(self):
        for _ in range(2000):
            self.now += 0.5
            reply = self.core.assign("w0#0", None, self.now)
            if isinstance(reply, Assignment):
                self.asked.append(reply.task)
            if isinstance(reply, Assignment) and not (reply.task is self.silent and reply.chunk == 1):
                params = self.core.params
                payload = answer(params.rule, params.problem, self.data[reply.chunk], reply, reply.z)
                push = Push(reply.chunk, reply.seq, reply.task, reply.version, payload, None, 0.1)
                self.core.deliver(push, self.now)
            while self.core.due:
                self.core.refresh(self.now)
            self.core.tick(self.now)
            if self.core.over:
                break
        assert self.core.error is None
        return reading.result(self.core)


def test_one_question_a_chunk_more_and_two_where_the_dispersion_is_estimated():
    for kind, family, extra in ((Logistic, "logistic", [Task.INFER]), (Gamma, "gamma", inferring.TASKS)):
        with_it = Cluster(kind(), given(family)[0], inference=None)
        without = Cluster(kind(), given(family)[0], inference=False)
        result, plain = with_it.run(), without.run()
        assert result.reason == plain.reason == "converged"
        assert with_it.asked == without.asked + [task for task in extra for _ in range(3)]
        np.testing.assert_array_equal(result.z, plain.z)
        result.summary()
        with pytest.raises(InvalidInput, match="inference=False; pass True"):
            plain.summary()


@pytest.mark.parametrize("silent", inferring.TASKS)
def test_a_chunk_that_does_not_answer_costs_the_errors_not_the_fit(silent):
    cluster = Cluster(Gamma(), given("gamma")[0], silent=silent, inference=True)
    result = cluster.run()
    assert result.converged
    assert result.reason == "converged"
    assert result.certificate == "duality gap"
    assert "chunks [1] did not answer" in " ".join(result.notes)
    if silent is Task.INFER:
        with pytest.raises(InvalidInput, match=r"chunks \[1\] did not answer"):
            result.summary()
    else:
        assert np.isnan(result.summary().log_likelihood)
        assert np.isfinite(result.summary().std_err).all()


def test_a_run_that_is_stopped_has_errors_too():
    cluster = Cluster(Gamma(), given("gamma")[0], inference=None, tol=1e-30, max_pushes=12)
    result = cluster.run()
    assert result.reason == "max_pushes"
    assert np.isfinite(result.summary().std_err).all()


def test_a_kept_run_infers_anew_after_an_update():
    cluster = Cluster(Logistic(), given("logistic")[0], inference=None, keep=True)
    first = cluster.run().summary()
    cluster.core.update(ps.L2(1.0), None, {}, cluster.now)
    assert reading.result(cluster.core).inference is None
    with pytest.raises(InvalidInput, match="penalty=NoPenalty"):
        cluster.run().summary()
    cluster.core.update(ps.NoPenalty(), 1e-12, {}, cluster.now)
    np.testing.assert_allclose(cluster.run().summary().std_err, first.std_err, rtol=1e-2)


def test_refusals(monkeypatch):
    y, *_ = given("logistic")
    with pytest.raises(InvalidInput, match="penalised fit does not define standard errors"):
        fit(Logistic(), columns(), y, penalty=ps.L2(1.0))
    with pytest.raises(InvalidInput, match="moments"):
        fit(ps.Smooth(lambda w: float(w @ w), lambda w: 2 * w, size=3), columns(), y)
    with pytest.raises(InvalidInput, match="inference must be None, True or False"):
        RunSpec(Logistic(), ps.NoPenalty(), ps.AggregatedNewton(), 1, inference="yes")
    with pytest.raises(InvalidInput, match="penalty=NoPenalty"):
        Cluster(Logistic(), y, penalty=ps.L1(1.0), inference=None).run().summary()
    monkeypatch.setattr(inferring, "LARGE", 3)
    with pytest.raises(InvalidInput, match="inference=True"):
        Cluster(Logistic(), y, inference=None).run().summary()
    Cluster(Logistic(), y, inference=True).run().summary()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"covariance": "robust"}, "covariance must be one of"),
        ({"information": "fisher"}, "information must be one of"),
        ({"weights": "analytic"}, "weights must be one of"),
        ({"level": 95}, "between 0 and 1"),
        ({"dispersion": -1.0}, "dispersion must be > 0"),
        ({"reference": 0}, "a Multinomial fit; this is Logistic"),
    ],
)
def test_options_that_are_none(options, words):
    with pytest.raises(InvalidInput, match=words):
        logistic_fit().summary(**options)


@functools.cache
def logistic_fit():
    return fit(Logistic(), columns(), given("logistic")[0])


def test_the_table():
    summary = logistic_fit().summary()
    lines = str(summary).splitlines()
    assert repr(summary) == str(summary)
    assert [line.split()[0] for line in lines[2:6]] == ["x0", "x1", "x2", "intercept"]
    assert len({len(line) for line in lines[1:6]}) == 1
    assert "[0.025" in lines[1]
    assert "0.975]" in lines[1]
    assert float(lines[2].split()[1]) == pytest.approx(summary.coef[0], rel=1e-4)
    frame = summary.to_frame()
    assert list(frame.index) == list(summary.names)
    np.testing.assert_array_equal(frame["std_err"], summary.std_err)
