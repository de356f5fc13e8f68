"""Many columns: the working set, L-BFGS, certificates on a support, and which rule is chosen."""

from __future__ import annotations

import dataclasses
from functools import reduce

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

import paramserver as ps
from paramserver.certificate import outside
from paramserver.consensus import Setup, active, auto
from paramserver.consensus.base import Pull
from paramserver.errors import InvalidInput, MissingMethod, RunFailed
from paramserver.messages import Version
from paramserver.penalties import Bound
from paramserver.simulator import Network, simulate
from paramserver.testing import check_consensus
from paramserver.workers.problems import Start

RNG = np.random.default_rng(3)
N, D = 3000, 2000
BAD = Network(
    speeds=(1.0, 1.0, 8.0, 1.0), deaths=((0, 12.0, 30.0), (1, 20.0, np.inf)), lost=0.03, late=0.03, doubled=0.1
)


def sparse(n=N, d=D, nnz=15):
    """Word-like counts: few common columns, many rare ones; a tenth of them matter."""
    share = 1.0 / np.arange(1, d + 1) ** 0.8
    columns = np.minimum(np.searchsorted(np.cumsum(share / share.sum()), RNG.random((n, nnz))), d - 1)
    values = np.abs(RNG.standard_normal((n, nnz))) * 0.5
    X = csr_matrix((values.ravel(), (np.repeat(np.arange(n), nnz), columns.ravel())), shape=(n, d))
    X.sum_duplicates()
    w = np.where(RNG.random(d) < 0.1, 2.5 * RNG.standard_normal(d), 0.0)
    return X, (RNG.random(n) < 1 / (1 + np.exp(-(X @ w)))).astype(float)


X, Y = sparse()
LMAX = float(np.abs(X.T @ (Y.mean() - Y)).max())


def objective(result, penalty, X=X, y=Y):
    m = X @ result.coef_ + result.intercept_
    return float((np.logaddexp(0.0, m) - y * m).sum()) + penalty.value(result.coef_)


def best(penalty):
    """F* by another method, from a solution that scikit-learn finds to its last digits."""
    alpha, share = penalty.alpha, penalty.l1_ratio
    kind = {"l1_ratio": share, "C": 1 / alpha, "solver": "saga" if share else "newton-cg"}
    model = LogisticRegression(**kind, tol=1e-9 if share else 1e-12, max_iter=3000).fit(X, Y)
    out = type("Solution", (), {"coef_": model.coef_[0], "intercept_": model.intercept_[0]})
    return objective(out, penalty)


# -- against scikit-learn --------------------------------------------------------------------------

PENALTIES = [ps.L1(0.05 * LMAX), ps.ElasticNet(0.1 * LMAX, 0.6), ps.L2(1.0)]


@pytest.fixture(scope="module", params=PENALTIES, ids=repr)
def optimum(request):
    return request.param, best(request.param)


@pytest.mark.parametrize(
    "network", [Network(speeds=(1.0,) * 4), Network(speeds=(1.0, 10.0, 1.0)), BAD], ids=["even", "slow", "bad"]
)
def test_a_sparse_fit_finds_scikit_learns_optimum(optimum, network):
    penalty, minimum = optimum
    rule = ps.LBFGS() if penalty.l1_ratio == 0 else ps.ActiveNewton()
    run = simulate(ps.Logistic(), X, Y, chunks=8, penalty=penalty, consensus=rule, network=network, tol=1e-8)
    result = run.result
    assert result.converged, result
    assert result.certificate == rule.certificate
    F = objective(result, penalty)
    assert result.objective == pytest.approx(F, rel=1e-12)
    assert F - minimum <= result.gap_absolute + 1e-9 * minimum  # scikit-learn's own error
    assert abs(F - minimum) <= 1e-6 * minimum


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_the_working_sets_certificate_is_a_bound_and_near(tol):
    penalty = PENALTIES[0]
    exact = simulate(ps.Logistic(), X, Y, chunks=8, penalty=penalty, consensus="active", tol=1e-13).result
    early = simulate(ps.Logistic(), X, Y, chunks=8, penalty=penalty, consensus="active", tol=tol).result
    true = early.objective - exact.objective
    assert true <= early.gap_absolute * (1 + 1e-9) + 1e-11 * exact.objective
    assert early.gap_absolute <= 10 * true + 1e-9 * exact.objective


def test_a_first_order_certificate_is_a_bound_within_three_decades():
    exact = simulate(ps.Logistic(), X, Y, chunks=8, penalty=ps.L2(1.0), consensus="lbfgs", tol=1e-12).result
    early = simulate(ps.Logistic(), X, Y, chunks=8, penalty=ps.L2(1.0), consensus="lbfgs", tol=1e-5).result
    true = early.objective - exact.objective
    assert 0 < true <= early.gap_absolute <= 1e3 * true


def test_sweeps_of_a_synchronous_working_set():
    """A survey, then at most 8 visits of each chunk to a certified 1e-8."""
    rule = ps.ActiveNewton(min_fresh=8)
    run = simulate(
        ps.Logistic(), X, Y, chunks=8, penalty=PENALTIES[0], consensus=rule, network=Network(speeds=(1.0,) * 8)
    )
    assert run.result.gap <= 1e-8
    assert run.pushes_per_chunk <= 9.0


@pytest.mark.parametrize(
    "problem",
    [ps.LeastSquares(), ps.Huber(), ps.Logistic(fit_intercept=False), ps.LeastSquares(standardize=True)],
    ids=repr,
)
def test_the_working_set_finds_what_all_columns_find(problem):
    target = X @ np.where(RNG.random(D) < 0.05, 1.0, 0.0) + RNG.standard_normal(N)
    y = Y if isinstance(problem, ps.Logistic) else target
    kw = {"chunks": 6, "penalty": ps.L1(20.0), "tol": 1e-9}
    some, every = (
        simulate(problem, X.toarray()[:, :300], y, consensus=rule, **kw).result for rule in ("active", "newton")
    )
    assert some.converged
    assert some.objective == pytest.approx(every.objective, rel=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_penalty_that_leaves_nothing(fit_intercept):
    problem = ps.Logistic(fit_intercept=fit_intercept)
    strong = float(np.abs(X.T @ (Y - (Y.mean() if fit_intercept else 0.5))).max()) * 1.01
    result = simulate(problem, X, Y, chunks=4, penalty=ps.L1(strong), consensus="active", tol=1e-10).result
    assert result.converged
    assert not result.coef_.any()


@pytest.mark.parametrize("penalty", [ps.NonNegative(), ps.Box(-0.2, 0.3)], ids=repr)
def test_bounds_hold_coordinates_at_zero_too(penalty):
    kw = {"chunks": 4, "penalty": penalty, "tol": 1e-9}
    some, every = (simulate(ps.Logistic(), X[:, :150], Y, consensus=c, **kw).result for c in ("active", "newton"))
    assert some.converged
    assert some.objective == pytest.approx(every.objective, rel=1e-8)


# -- Hessians that stay on the workers -------------------------------------------------------------


@pytest.mark.parametrize("problem", [ps.Logistic(), ps.LeastSquares()], ids=repr)
@pytest.mark.parametrize("limit", [0, 8 * 8 * 30**2])
@pytest.mark.parametrize("network", [Network(speeds=(1.0,) * 4), BAD], ids=["even", "bad"])
def test_hessians_that_are_not_kept_lead_to_the_same_optimum(monkeypatch, problem, limit, network):
    y, penalty = (Y, PENALTIES[0]) if isinstance(problem, ps.Logistic) else (X @ np.ones(D) + Y, ps.L1(10.0))
    kw = {"chunks": 8, "penalty": penalty, "consensus": ps.ActiveNewton(min_fresh=2), "network": network, "tol": 1e-9}
    kept = simulate(problem, X, y, **kw).result
    monkeypatch.setattr(active, "KEPT", limit)
    seen = []
    absorb = ps.ActiveNewton._absorb_remote
    monkeypatch.setattr(ps.ActiveNewton, "_absorb_remote", staticmethod(lambda *a: seen.append(1) or absorb(*a)))
    run = simulate(problem, X, y, **kw)
    assert run.result.converged
    assert seen
    assert run.result.objective == pytest.approx(kept.objective, rel=1e-8)


def test_the_sum_of_hessians_that_are_not_kept_stays_right(monkeypatch):
    """After pushes by any worker, B is what the chunks' Hessians at the points that the slots name add up to."""
    monkeypatch.setattr(active, "KEPT", 0)
    problem, rule = ps.Logistic(), ps.ActiveNewton()
    cuts = np.array_split(np.arange(N), 3)
    data = [problem.prepare(X[rows], Y[rows]) for rows in cuts]
    survey = reduce(problem.merge, map(problem.survey, data))
    problem = problem.at(survey)
    start = problem.start(survey)
    bound = Bound(PENALTIES[0], problem.penalised(D + 1))
    state = rule.init(Setup(D + 1, 3, N, start, False, bound, start.z))
    slots, z = {}, start.z
    for sweep in range(5):
        for i in range(3):
            if sweep == 2:  # another worker: nothing remembered
                data[i].memo.clear()
            plan = rule.plan(state, slots.get(i), z)
            payload = rule.step(problem, data[i], Pull(z, Version(0, 0), plan, i not in slots or sweep == 3))
            state, slots[i], _ = rule.absorb(state, i, slots.get(i), {**payload, "rows": float(len(cuts[i]))})
        right, h = np.zeros_like(state.B), np.zeros_like(state.h)
        for i, slot in slots.items():
            assert "H" not in slot
            k, at = len(slot["at"]), np.zeros(D + 1)
            at[slot["A"][:k]] = slot["at"]
            H = problem.hessian_of(data[i], problem.curvature(data[i], at), slot["A"][:k])
            right[:k, :k] += H
            h[:k] += H @ slot["x"]
        np.testing.assert_allclose(state.B, right, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(state.h, h, rtol=1e-9, atol=1e-8)
        z, state = rule.consensus(state, bound, z)


# -- the certificate off a support -----------------------------------------------------------------


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 2.0), (1.5, 0.5), (1.5, 0.0)])
def test_outside_is_the_conjugates_sum(l1, l2):
    """R_j(z) + R_j*(v) − v·z, with R_j* by brute force on a fine grid."""
    bound = Bound(ps.ElasticNet(l1 + l2, l1 / (l1 + l2)), np.ones(6, bool))
    v = np.array([0.0, 0.7, -1.4, 1.49, -0.3, 1.2])
    z = np.array([0.0, 0.5, 0.0, -0.2, 3.0, 0.0])
    grid = np.linspace(-20, 20, 400_001)
    values = l1 * np.abs(grid) + 0.5 * l2 * grid**2
    each = [l1 * abs(zj) + 0.5 * l2 * zj**2 - vj * zj + np.max(vj * grid - values) for vj, zj in zip(v, z, strict=True)]
    assert outside(np.array([], int), z, v, bound) == pytest.approx(sum(each), abs=1e-6)
    assert outside(np.array([1, 4]), z, v, bound) == pytest.approx(sum(each) - each[1] - each[4], abs=1e-6)


def test_outside_the_domain_nothing_is_proved():
    bound = Bound(ps.L1(1.0), np.ones(2, bool))
    none = np.array([], int)
    assert outside(none, np.zeros(2), np.array([1.0 + 1e-13, 0.2]), bound) == pytest.approx(0.0, abs=1e-12)
    assert outside(none, np.zeros(2), np.array([1.0 + 1e-9, 0.2]), bound) == np.inf


@pytest.mark.parametrize(
    "problem",
    [ps.Logistic(), ps.Poisson(), ps.Multinomial(n_classes=3), ps.LeastSquares(fit_intercept=False)],
    ids=repr,
)
@pytest.mark.parametrize("standardize", [False, True])
def test_parts_of_the_hessian_and_the_dual(problem, standardize):
    A = np.column_stack([RNG.random((80, 5)), 1e6 + RNG.random(80)])
    problem = (
        dataclasses.replace(problem, standardize=standardize, n_classes=3)
        if isinstance(problem, ps.Multinomial)
        else dataclasses.replace(problem, standardize=standardize)
    )
    data = problem.prepare(
        A, RNG.integers(0, 2 + isinstance(problem, ps.Multinomial), 80).astype(float), RNG.random(80)
    )
    problem = problem.at(problem.survey(data))
    p = len(problem.start(problem.survey(data)).z)
    z, step = 0.1 * RNG.standard_normal(p), RNG.standard_normal(p)
    at = problem.evaluate(data, z)
    H = problem.hessian(data, at.curvature)
    for some in (np.array([p - 1, 2, 0]), np.arange(p)[::-1], np.array([1]), np.array([p - 1])):
        np.testing.assert_allclose(
            problem.hessian_of(data, at.curvature, some), H[np.ix_(some, some)], rtol=1e-9, atol=1e-9
        )
    right = at.gradient + H @ step
    np.testing.assert_allclose(problem.dual(data, z, step), right, rtol=1e-8, atol=1e-8 * np.abs(right).max())


# -- which rule ------------------------------------------------------------------------------------


def setup(p, n, penalty):
    z = np.zeros(p)
    return Setup(p, n, 10**6, Start(z, 1.0), False, Bound(penalty, np.ones(p, bool)), z)


@pytest.mark.parametrize(
    ("p", "n", "penalty", "rule"),
    [
        (196, 64, ps.L1(1.0), ps.AggregatedNewton),
        (3000, 8, ps.NoPenalty(), ps.AggregatedNewton),
        (3000, 64, ps.L1(1.0), ps.ActiveNewton),
        (5000, 1, ps.ElasticNet(1.0, 0.5), ps.ActiveNewton),
        (100_001, 16, ps.L1(1.0), ps.ActiveNewton),
        (100_001, 16, ps.L2(1.0), ps.LBFGS),
        (100_001, 16, ps.NoPenalty(), ps.LBFGS),
    ],
)
def test_the_shape_chooses(p, n, penalty, rule):
    chosen, why = auto.Auto().choose(setup(p, n, penalty), ps.Logistic())
    assert type(chosen) is rule
    assert (f"{n} chunks of p = {p} would need" in why) == (rule is not ps.AggregatedNewton)


class ProxOnly(ps.Penalty):
    def __repr__(self):  # part of tests' names, which must be the same in every process
        return "ProxOnly()"

    def value(self, w):
        return float(np.abs(w).sum())

    def prox(self, v, steps):
        return np.sign(v) * np.maximum(np.abs(v) - steps, 0.0)

    def subgradient(self, w, near):
        return np.where(w == 0, np.clip(near, -1, 1), np.sign(w))


def test_what_nothing_can_do_is_said():
    with pytest.raises(RunFailed, match=r"would need 1\.28 TB .* consensus=\"newton\""):
        auto.Auto().choose(setup(100_001, 16, ProxOnly()), ps.Logistic())

    class Bare(ps.Logistic):
        hessian_of = None

    with pytest.raises(MissingMethod, match=r"ActiveNewton .*\n    def hessian_of"):
        auto.Auto().choose(setup(100_001, 16, ps.L1(1.0)), Bare())


@pytest.mark.parametrize(
    ("rule", "penalty", "says"),
    [
        (ps.LBFGS(), ps.L1(1.0), 'consensus="active"'),
        (ps.LBFGS(), ProxOnly(), '"newton"'),
        (ps.ActiveNewton(), ProxOnly(), 'consensus="newton"'),
        (ps.ActiveNewton(), ps.L2(1.0), 'consensus="lbfgs"'),
    ],
    ids=lambda v: repr(v).split(" at 0x")[0],
)
def test_a_rule_refuses_a_penalty_it_is_not_for(rule, penalty, says):
    with pytest.raises(InvalidInput, match=says):
        rule.suits(Bound(penalty, np.ones(5000, bool)))


def test_what_was_chosen_is_said(monkeypatch):
    monkeypatch.setattr(auto, "BYTES", 10**5)
    for penalty, rule in ((ps.L1(5.0), "ActiveNewton"), (ps.L2(1.0), "LBFGS")):
        result = simulate(ps.Logistic(), X[:, :200], Y, chunks=8, penalty=penalty, tol=1e-6).result
        assert result.converged
        assert result.consensus.startswith(rule)
        assert result.notes[0].startswith(f"consensus: {rule}, because 8 chunks of p = 201 would need 2.59 MB")
    monkeypatch.undo()
    small = simulate(ps.Logistic(), X[:, :20], Y, chunks=4, tol=1e-6).result
    assert small.consensus.startswith("AggregatedNewton")
    assert small.notes == ()


def test_no_penalty_beyond_what_can_be_proved_ends_by_the_estimate(monkeypatch):
    monkeypatch.setattr("paramserver.consensus.lbfgs.FREE", 5)
    dense = RNG.standard_normal((600, 20))
    y = (RNG.random(600) < 1 / (1 + np.exp(-dense[:, 0]))).astype(float)
    result = simulate(ps.Logistic(), dense, y, chunks=4, consensus="lbfgs", tol=1e-9).result
    exact = simulate(ps.Logistic(), dense, y, chunks=4, consensus="newton", tol=1e-12).result
    assert result.certificate != "duality gap"
    assert result.reason == "converged"
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [ps.ActiveNewton(), ps.ActiveNewton(min_fresh=1, max_staleness=4), ps.LBFGS(), ps.LBFGS(memory=1)], ids=repr
)
@pytest.mark.parametrize("problem", [ps.Logistic(), ps.LeastSquares(fit_intercept=False)], ids=repr)
def test_rules_keep_the_contract(rule, problem):
    for penalty in (ps.L2(1.0), ps.L1(2.0)) if isinstance(rule, ps.ActiveNewton) else (ps.L2(1.0),):
        check_consensus(rule, problem, penalty=penalty)


def test_the_contract_holds_where_hessians_are_not_kept(monkeypatch):
    monkeypatch.setattr(active, "KEPT", 0)
    check_consensus(ps.ActiveNewton(), penalty=ps.L1(2.0))
