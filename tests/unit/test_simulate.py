"""Whole runs in virtual time: stragglers, deaths, a bad network, and data made to break Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from paramserver.certificate import model_at
from paramserver.consensus import ADMM, AggregatedNewton
from paramserver.errors import InvalidInput, MissingMethod
from paramserver.penalties import L1, L2, Bound, ElasticNet, NoPenalty
from paramserver.simulator import Network, simulate
from paramserver.workers.problems import LeastSquares, Logistic, Smooth

STRAGGLER = (10.0,) + (1.0,) * 7
PINNED = Network(speeds=STRAGGLER, copies=1, fetch=np.inf)


def logistic(n=1600, d=8, layout="iid", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * rng.uniform(0.3, 2, d)
    y = (rng.random(n) < 1 / (1 + np.exp(-(X @ rng.standard_normal(d) * 0.5 - 0.7)))).astype(float)
    if layout == "sorted":
        order = np.argsort(y, kind="stable")
        X, y = X[order], y[order]
    if layout == "scaled":
        X = X * 10.0 ** np.resize([6, -6, 0], d)
    return X, y


def F(z, X, y, penalty):
    m = X @ z[:-1] + z[-1]
    return float((np.logaddexp(0, m) - y * m).sum() + penalty.value(z[:-1]))


def least(X, y, penalty) -> float:
    """F*, by damped Newton on the undivided data."""
    problem = Logistic()
    data = problem.prepare(X, y)
    z, best = problem.start(problem.survey(data)).z, np.inf
    for _ in range(200):
        at = problem.evaluate(data, z)
        model = model_at(
            z, at.value, at.gradient, problem.hessian(data, at.curvature), Bound(penalty, problem.penalised(len(z)))
        )
        values = [F(z + t * (model.z_plus - z), X, y, penalty) for t in 0.5 ** np.arange(30)]
        k = int(np.argmin(values))
        if values[k] >= best:
            break
        z, best = z + 0.5**k * (model.z_plus - z), values[k]
    return best


def assert_optimal(run, X, y, penalty, tol):
    assert run.result.converged, run.result
    assert run.result.certificate == "duality gap"
    assert run.result.gap <= tol
    true = F(run.result.z, X, y, penalty) - least(X, y, penalty)
    assert true <= run.result.gap_absolute + 1e-13 * abs(run.result.objective)


# -- the simulator itself --------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [AggregatedNewton(), ADMM()], ids=lambda r: type(r).__name__)
def test_the_seed_decides_everything(rule):
    X, y = logistic()
    bad = Network(speeds=(3.0, 1.0, 1.0), lost=0.1, late=0.1, doubled=0.1, deaths=((1, 9.0, 30.0),))
    one, two = (simulate(Logistic(), X, y, chunks=8, consensus=rule, network=bad, tol=1e-6, seed=5) for _ in range(2))
    assert one.result.z.tobytes() == two.result.z.tobytes()
    assert (one.time, one.pushes_per_chunk, one.hessians) == (two.time, two.pushes_per_chunk, two.hessians)
    other = simulate(Logistic(), X, y, chunks=8, consensus=rule, network=bad, tol=1e-6, seed=6)
    assert other.time != one.time


def test_work_takes_its_time():
    X, y = logistic()
    alone = simulate(Logistic(), X, y, chunks=8, network=Network(speeds=(1.0,), copies=1))
    eight = simulate(Logistic(), X, y, chunks=8, network=Network(speeds=(1.0,) * 8, copies=1))
    slow = simulate(Logistic(), X, y, chunks=8, network=Network(speeds=(2.0,), latency=0.2, copies=1))
    assert alone.time > 3 * eight.time
    assert slow.time == pytest.approx(2 * alone.time)
    assert 0.5 < alone.busy[0] <= 1


def test_limit_and_bad_input():
    X, y = logistic()
    late = simulate(Logistic(), X, y, chunks=8, limit=5.0)
    assert (late.result.reason, late.result.converged) == ("max_seconds", False)
    with pytest.raises(InvalidInput, match="differ in length"):
        simulate(Logistic(), X, y[:-1])
    with pytest.raises(InvalidInput, match="not one chunk"):
        simulate(Logistic(), X, y, limit=0.01)

    class NoHessian(Logistic):
        hessian = None

    with pytest.raises(MissingMethod, match="hessian"):
        simulate(NoHessian(), X, y)


def test_chunks_that_are_cut_already():
    X, y = logistic(400, 3)
    cuts, weight = np.array_split(np.arange(400), 5), np.arange(400) % 3
    whole = simulate(Logistic(), X, y, sample_weight=weight, chunks=cuts)
    given = simulate(Logistic(), [(X[rows], y[rows], weight[rows]) for rows in cuts])
    assert np.array_equal(given.result.z, whole.result.z)
    assert given.result.n_chunks == 5
    with pytest.raises(InvalidInput, match=r"pass \[\(X_0, y_0"):
        simulate(Logistic(), [X[:200], X[200:]], y)


def test_chunks_that_are_objects():
    lines = [{"a": 1.0}, {"a": 2.0}, {"a": 6.0}]
    square = Smooth(lambda z, line: 0.5 * (z[0] - line["a"]) ** 2 + 1.0, lambda z, line: z - line["a"], size=1)
    assert simulate(square, lines).result.z == pytest.approx(3.0)


# -- faults ----------------------------------------------------------------------------------------

FAULTS = {
    "none": Network(speeds=(1.0,) * 4),
    "one copy": Network(speeds=(4.0, 1.0, 1.0, 1.0), copies=1),
    "deaths and returns": Network((1.0,) * 4, copies=1, deaths=((0, 3.0, 25.0), (1, 9.0, 20.0), (0, 40.0, 60.0))),
    "deaths for good": Network((1.0,) * 4, copies=1, deaths=((0, 3.0, np.inf), (1, 12.0, np.inf), (2, 30.0, np.inf))),
    "lost": Network(speeds=(1.0,) * 4, lost=0.2),
    "late": Network(speeds=(1.0,) * 4, late=0.2),
    "doubled": Network(speeds=(1.0,) * 4, doubled=0.5),
    "all": Network(speeds=(1.0, 2.0, 5.0, 1.0), copies=1, lost=0.1, late=0.1, doubled=0.3, deaths=((3, 10.0, 50.0),)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("min_fresh", [1, 12])
@pytest.mark.parametrize(("rule", "tol"), [(AggregatedNewton, 1e-8), (ADMM, 1e-6)], ids=["newton", "admm"])
def test_faults_change_only_the_speed(rule, tol, min_fresh, fault):
    X, y = logistic(600, 5, "sorted" if min_fresh > 1 else "iid")
    consensus = rule(min_fresh=min_fresh, max_staleness=None if fault == "none" else 60)
    run = simulate(
        Logistic(), X, y, chunks=12, penalty=L2(1.0), consensus=consensus, network=FAULTS[fault], tol=tol, limit=5e3
    )
    assert_optimal(run, X, y, L2(1.0), tol)


@pytest.mark.parametrize("metric", ["diagonal", "identity"])
def test_other_metrics(metric):
    X, y = logistic(600, 5)
    rule = ADMM(metric=metric, rho=0.3 if metric == "diagonal" else 10.0)
    run = simulate(Logistic(), X, y, chunks=8, penalty=ElasticNet(2.0, 0.5), consensus=rule, tol=1e-6)
    assert_optimal(run, X, y, ElasticNet(2.0, 0.5), 1e-6)


def test_weights_and_unequal_chunks():
    X, y = logistic(600, 5)
    weight = np.arange(600) % 3 + 0.0
    cuts = np.split(np.arange(600), [3, 50, 400, 410])
    run = simulate(Logistic(), X, y, sample_weight=weight, chunks=cuts, penalty=L2(1.0))
    repeated = np.repeat(np.arange(600), weight.astype(int))
    assert run.result.converged
    assert F(run.result.z, X[repeated], y[repeated], L2(1.0)) == pytest.approx(run.result.objective, rel=1e-12)
    assert run.result.objective - least(X[repeated], y[repeated], L2(1.0)) <= run.result.gap_absolute + 1e-11


# -- how many pushes -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["iid", "sorted", "scaled"])
@pytest.mark.parametrize("penalty", [NoPenalty(), L2(1.0), L1(5.0), ElasticNet(5.0, 0.5)], ids=repr)
@pytest.mark.parametrize(
    ("min_fresh", "network"), [(1, Network()), (64, Network()), (1, Network(speeds=STRAGGLER))],
    ids=["async", "sync", "async, straggler"],
)  # fmt: skip
def test_newton_takes_at_most_eight_pushes_a_chunk(layout, penalty, min_fresh, network):
    X, y = logistic(layout=layout)
    run = simulate(
        Logistic(), X, y, penalty=penalty, consensus=AggregatedNewton(min_fresh=min_fresh), network=network, tol=1e-8
    )
    assert run.result.converged
    assert run.result.gap <= 1e-8
    assert run.pushes_per_chunk <= 8


@pytest.mark.parametrize("penalty", [NoPenalty(), L2(1.0), L1(5.0)], ids=repr)
@pytest.mark.parametrize("layout", ["iid", "scaled"])
def test_least_squares_survey_one_hessian_one_verification(layout, penalty):
    X, _ = logistic(layout=layout)
    y = X @ np.ones(8) + np.random.default_rng(1).standard_normal(len(X)) + 1e3
    run = simulate(LeastSquares(), X, y, chunks=16, penalty=penalty, consensus=AggregatedNewton(min_fresh=16))
    assert run.result.converged
    assert run.pushes_per_chunk == 3
    assert run.hessians == 16


# -- asynchrony ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "tol"), [(AggregatedNewton, 1e-8), (ADMM, 1e-6)], ids=["newton", "admm"])
def test_one_worker_ten_times_slower(rule, tol):
    """Fine chunks that can move beat the barrier with each chunk pinned to its worker: virtual time to tol."""
    X, y = logistic(1600, 6)
    time = {}
    for name, min_fresh, network in (("async", 1, Network(speeds=STRAGGLER)), ("sync", 64, PINNED)):
        run = simulate(
            Logistic(), X, y, penalty=L2(1.0), consensus=rule(min_fresh=min_fresh), network=network, tol=tol, limit=1e4
        )
        assert_optimal(run, X, y, L2(1.0), tol)
        time[name] = run.time
    assert 5 * time["async"] <= time["sync"], time


# -- adversarial data ------------------------------------------------------------------------------


def heavy(scale, n=4000, d=30, seed=3):
    """Heavy-tailed columns (t, 1.5 degrees of freedom), label-sorted chunks: Newton's method alone diverges."""
    rng = np.random.default_rng(seed)
    X = rng.standard_t(1.5, (n, d - 1)) * scale
    w = rng.standard_normal(d - 1) * 3
    m = np.clip(X @ w / (1 + np.abs(X).max(1)) * 3 - 4, -50, 50)
    y = (rng.random(n) < 1 / (1 + np.exp(-m))).astype(float)
    order = np.argsort(y, kind="stable")
    return X[order], y[order]


@dataclass(frozen=True)
class Watched(AggregatedNewton):
    """Notes every anchor's objective."""

    def judge(self, state, model):
        after, line = super().judge(state, model)
        if after.anchor is not None:
            ANCHORS.append(after.anchor_objective)
        return after, line


ANCHORS: list[float] = []


@pytest.mark.parametrize("min_fresh", [1, 16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("l2", [1.0, 1e-3, 1e-6])
def test_heavy_tails_end_certified_and_anchors_never_rise(l2, scale, min_fresh):
    ANCHORS.clear()
    X, y = heavy(scale)
    run = simulate(
        Logistic(), X, y, chunks=16, penalty=L2(l2), consensus=Watched(min_fresh=min_fresh), tol=1e-8, limit=5e3
    )
    assert_optimal(run, X, y, L2(l2), 1e-8)
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(ANCHORS)), ANCHORS


def nearly_separable(seed):
    """Rare indicator columns and a target that a few of them decide."""
    rng = np.random.default_rng(seed)
    X = (rng.random((800, 12)) < 0.02).astype(float)
    m = 10 * X @ rng.standard_normal(12) + 0.3 * rng.standard_normal(800)
    y = (m > np.median(m)).astype(float)
    order = np.argsort(y, kind="stable")
    return X[order], y[order]


@pytest.mark.parametrize("min_fresh", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_nearly_separable_data_end_certified(seed, min_fresh):
    ANCHORS.clear()
    X, y = nearly_separable(seed)
    run = simulate(
        Logistic(), X, y, chunks=8, penalty=L2(1e-4), consensus=Watched(min_fresh=min_fresh), tol=1e-8, limit=2e4
    )
    assert_optimal(run, X, y, L2(1e-4), 1e-8)
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(ANCHORS)), ANCHORS


def separable(seed):
    """Rare indicator columns that separate the labels: Newton's steps overshoot by orders of magnitude."""
    rng = np.random.default_rng(seed)
    X = (rng.random((600, 6)) < 0.02).astype(float)
    m = X @ rng.standard_normal(6) + 1e-3 * rng.standard_normal(600) * (seed % 2)
    y = (m > np.median(m)).astype(float)
    y[0], y[-1] = 0, 1
    return X, y


@pytest.mark.parametrize(("min_fresh", "chunks"), [(1, 7), (1, 2), (2, 2)])
@pytest.mark.parametrize("seed", [22, 24, 28, 50, 56])
def test_separable_data_end_certified(seed, min_fresh, chunks):
    """F falls along anchors while no gap is finite: that is progress, and the null model is the first anchor."""
    ANCHORS.clear()
    X, y = separable(seed)
    run = simulate(
        Logistic(), X, y, chunks=chunks, penalty=L2(1e-5), consensus=Watched(min_fresh=min_fresh),
        network=Network((1.0, 1.0, 1.0)), tol=1e-8, limit=2e4,
    )  # fmt: skip
    assert_optimal(run, X, y, L2(1e-5), 1e-8)
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(ANCHORS)), ANCHORS
    assert ANCHORS[0] <= 600 * np.log(2) * (1 + 1e-8)


@pytest.mark.parametrize("network", [Network(), Network(STRAGGLER)], ids=["even", "straggler"])
def test_sorted_labels_cost_no_more_than_mixed_ones(network):
    """Chunks are not served in the data's order, and z waits until those that reported look like the whole."""
    pushes = []
    for layout in ("iid", "sorted"):
        X, y = logistic(3200, 20, layout)
        pushes.append(simulate(Logistic(), X, y, penalty=L2(1.0), network=network).pushes_per_chunk)
    assert pushes[1] <= pushes[0] + 0.5
