"""Progressive and projective hedging: the papers' steps, and the optimum of the extensive form whatever happens."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import paramserver as ps
from paramserver import messages
from paramserver.consensus.base import Pull, Setup
from paramserver.errors import InvalidInput, MissingMethod
from paramserver.examples import extensive_form, farmer, inventory
from paramserver.penalties import Bound
from paramserver.server import checkpoint
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.workers.problems import Start
from paramserver.workers.tasks import answer

BAD = ps.Network(speeds=(1.0, 1.0, 1.0, 6.0), deaths=((1, 20.0, 60.0), (2, 40.0, np.inf)))
RULES = [ps.ProgressiveHedging, ps.APH]


def near(result, exact, rtol=1e-4):
    assert result.converged
    assert result.certificate == "residual"
    assert result.objective == pytest.approx(exact.cost, rel=rtol)


# -- the papers' steps -----------------------------------------------------------------------------

CURVES, CENTRES = np.array([1.0, 2.0, 5.0]), np.array([[0.0, 1.0], [4.0, -2.0], [1.0, 7.0]])


def quadratic(v, rho, chunk):
    """The prox of ½a‖x − b‖²."""
    a, b = chunk
    return (a * b + rho * v) / (a + rho)


class Rounds:
    """A rule on three quadratics; every chunk answers at every z, or only those that are asked."""

    def __init__(self, rule, z):
        self.rule, self.problem = rule, ps.Proximal(quadratic, 2)
        self.data = [self.problem.prepare(chunk) for chunk in zip(CURVES, CENTRES, strict=True)]
        self.bound, self.slots, self.z = Bound(ps.NoPenalty(), np.ones(2, bool)), {}, z
        self.state = rule.init(Setup(2, 3, 3, Start(z, 0.0), False, self.bound, z))

    def round(self, chunks=(0, 1, 2)):
        pulls = {i: self.rule.plan(self.state, self.slots.get(i), self.z) for i in chunks}
        for i, fields in pulls.items():
            pull = Pull(self.z, messages.Version(0, 0), fields, i not in self.slots)
            payload = {**self.rule.step(self.problem, self.data[i], pull), "rows": 1.0}
            self.state, self.slots[i], _ = self.rule.absorb(self.state, i, self.slots.get(i), payload)
        self.z, self.state = self.rule.consensus(self.state, self.bound, self.z)
        return self.z


def paper(z, rho, rounds, W=0.0):
    """Rockafellar & Wets: x = argmin f + Wᵀx + ½ρ‖x − z‖², z = mean(x), W += ρ(x − z)."""
    trail, a = [], CURVES[:, None]
    for _ in range(rounds):
        x = (a * CENTRES - W + rho * z) / (a + rho)
        z = x.mean(axis=0)
        W = W + rho * (x - z)
        trail.append(z)
    return np.array(trail)


@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_a_round_of_progressive_hedging_is_the_papers(rho):
    z = np.array([3.0, 3.0])
    hand = Rounds(ps.ProgressiveHedging(rho=rho), z)
    np.testing.assert_allclose([hand.round() for _ in range(6)], paper(z, rho, 6), rtol=1e-12)


@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_a_full_projection_is_that_step_too(rho):
    hand = Rounds(ps.APH(rho=rho), np.array([3.0, 3.0]))
    z, W = hand.round(), hand.state.w.reshape(3, 2)
    np.testing.assert_allclose([hand.round() for _ in range(6)], paper(z, rho, 6, W), rtol=1e-9)


def test_a_projection_never_leads_away_from_the_optimum():
    """Fejér: with old answers too, ‖z − z*‖² + Σ‖W_i − W_i*‖²/γ does not grow."""
    best = (CURVES[:, None] * CENTRES).sum(axis=0) / CURVES.sum()
    W = CURVES[:, None] * (CENTRES - best)
    hand, rng, gamma, trail = Rounds(ps.APH(rho=2.0, nu=1.3, gamma=0.7), np.zeros(2)), np.random.default_rng(0), 2.8, []
    hand.round()
    for _ in range(40):
        hand.round([rng.integers(3)])
        off = hand.state.w.reshape(3, 2) - W
        trail.append(3 * ((hand.z - best) ** 2).sum() + (off**2).sum() / gamma)
    assert (np.diff(trail) <= 1e-12).all()
    assert trail[-1] < 1e-2 * trail[0]


@pytest.mark.parametrize("rule", [ps.ProgressiveHedging(rho=2.0), ps.APH(rho=2.0)], ids=repr)
def test_a_chunk_that_leaves_is_forgotten(rule):
    hand = Rounds(rule, np.zeros(2))
    hand.round()
    left = {i: hand.slots[i] for i in (0, 2)}
    setup = Setup(2, 2, 2, Start(hand.z, 0.0), False, hand.bound, hand.z)
    hand.state, hand.slots = rule.recount(hand.state, setup, left, hand.z), left
    for _ in range(60):
        hand.round([0, 2])
    a, b = CURVES[[0, 2]], CENTRES[[0, 2]]
    np.testing.assert_allclose(hand.z, a @ b / a.sum(), rtol=1e-6)


def test_a_new_rho_keeps_the_duals():
    hand = Rounds(ps.ProgressiveHedging(rho=2.0), np.zeros(2))
    for _ in range(4):
        hand.round()
    before = [2.0 * (slot["w"] - hand.z) for slot in hand.slots.values()]
    rule = ps.ProgressiveHedging(rho=0.5)
    hand.state, hand.rule = rule.update(hand.state, hand.rule, hand.slots, hand.z), rule
    np.testing.assert_allclose([0.5 * (slot["w"] - hand.z) for slot in hand.slots.values()], before, rtol=1e-12)
    for _ in range(120):
        hand.round()
    np.testing.assert_allclose(hand.z, CURVES @ CENTRES / CURVES.sum(), rtol=1e-6)


@pytest.mark.parametrize("make", [ps.ProgressiveHedging, partial(ps.ADMM, metric="identity")])
def test_a_large_rho_does_not_make_a_residual_small(make):
    """It holds every x_i at z, wherever that is."""
    hand = Rounds(make(rho=2.0), np.array([30.0, 30.0]))
    hand.round()
    rule = make(rho=1e6)
    hand.state, hand.rule = rule.update(hand.state, hand.rule, hand.slots, hand.z), rule
    for _ in range(3):
        hand.round()
    left = rule.residuals(hand.state, hand.slots, hand.bound, hand.z)
    assert np.abs(hand.z - CURVES @ CENTRES / CURVES.sum()).max() > 1.0
    assert left.primal < 0.1
    assert left.relative > 1e-2


@pytest.mark.parametrize("off", [1e-3, 1e3])
def test_a_rho_that_is_a_thousand_times_off_costs_little(off):
    tree, pushes = inventory.scenarios(), {}
    for name, rho, balance in (("right", 1.0, False), ("off", off, False), ("balanced", off, True)):
        rule = ps.ProgressiveHedging(rho=rho, balance=balance, min_fresh=8)
        run = ps.simulate(ps.StochasticProgram(), tree, consensus=rule, tol=1e-4, limit=250.0)
        pushes[name] = run.pushes_per_chunk
        assert run.result.converged == (name != "off")
    assert pushes["balanced"] < 4 * pushes["right"]


# -- farmers, and an inventory -----------------------------------------------------------------------


@pytest.mark.parametrize("min_fresh", [3, 1])
@pytest.mark.parametrize("rule", RULES)
def test_the_books_farmer(rule, min_fresh):
    years = farmer.scenarios()
    result = ps.simulate(
        ps.StochasticProgram(), years, consensus=rule(min_fresh=min_fresh), network=BAD, tol=1e-5
    ).result
    near(result, extensive_form.solve(years))
    assert result.objective == pytest.approx(-108_390, rel=1e-4)
    np.testing.assert_allclose(result.coef_["acres"], [170.0, 80.0, 250.0], atol=0.1)
    assert result.n_features == 3
    assert list(result.named()) == ["acres[0]", "acres[1]", "acres[2]"]


@pytest.mark.parametrize(
    ("rule", "chunks", "min_fresh"),
    [(ps.ProgressiveHedging, 50, 50), (ps.ProgressiveHedging, 25, 1), (ps.APH, 25, 1), (ps.APH, 25, 25)],
)
def test_fifty_scenarios(rule, chunks, min_fresh):
    """One a chunk, all of them at every z; or in pairs, one pair at a time."""
    years = farmer.scenarios(50)
    rule = rule(rho=3.0, min_fresh=min_fresh)
    run = ps.simulate(ps.StochasticProgram(), years, chunks=chunks, consensus=rule, network=BAD, tol=1e-3)
    near(run.result, extensive_form.solve(years))


@pytest.mark.parametrize("min_fresh", [8, 1])
@pytest.mark.parametrize("rule", RULES)
def test_three_stages(rule, min_fresh):
    tree = inventory.scenarios()
    exact = extensive_form.solve(tree)
    result = ps.simulate(
        ps.StochasticProgram(), tree, consensus=rule(rho=1.0, min_fresh=min_fresh), network=BAD, tol=1e-5
    ).result
    near(result, exact)
    assert result.coef_.keys() == exact.decisions.keys()
    assert len(result.coef_) == 7
    for node, made in exact.decisions.items():
        np.testing.assert_allclose(result.coef_[node], made, atol=0.5)


def test_a_bundle_takes_fewer_rounds():
    years = farmer.scenarios(20)
    exact, pushes = extensive_form.solve(years), []
    for chunks in (20, 4):
        run = ps.simulate(
            ps.StochasticProgram(), years, chunks=chunks, consensus=ps.ProgressiveHedging(rho=3.0, min_fresh=chunks),
            tol=1e-3,
        )  # fmt: skip
        near(run.result, exact)
        pushes.append(run.pushes_per_chunk)
    assert pushes[1] < pushes[0]


@pytest.mark.parametrize("rule", RULES)
def test_a_checkpoint_goes_on_where_it_was(rule):
    """By hand: some rounds, a state that travelled, the rest."""
    years = farmer.scenarios()
    spec = RunSpec(ps.StochasticProgram(), ps.NoPenalty(), rule(), 3, tol=1e-5)
    data, core = [spec.problem.prepare(year) for year in years], Core(spec, 0, 0.0)

    def serve(core, most, now):
        for _ in range(most):
            while core.due:
                core.refresh(now)
            if core.over:
                return
            work = core.assign("w#0", None, now)
            if isinstance(work, messages.Assignment):
                payload = answer(core.params.rule, core.params.problem, data[work.chunk], work, work.z)
                base = None if work.whole else work.seq - 1
                push = messages.Push(work.chunk, work.seq, work.task, work.version, payload, base, 0.01)
                core.deliver(push, now)
            now += 0.01

    core.dispatch.holds("w", {0, 1, 2})
    serve(core, 40, 0.0)
    assert core.state == "running"
    again = checkpoint.load(checkpoint.dump(core, 1.0), spec, 1, 1.0)
    np.testing.assert_array_equal(again.params.z, core.params.z)
    assert again.params.residuals() == core.params.residuals()
    again.dispatch.holds("w", {0, 1, 2})
    serve(again, 5000, 1.0)
    assert again.reason == "converged"
    assert again.params.objective() == pytest.approx(-108_390, rel=1e-4)


# -- what does not fit -----------------------------------------------------------------------------


def test_settings():
    for rule in RULES:
        with pytest.raises(InvalidInput, match="rho must be"):
            rule(rho=0.0)
    with pytest.raises(InvalidInput, match="relaxation must lie"):
        ps.ProgressiveHedging(relaxation=2.0)
    with pytest.raises(InvalidInput, match="nu must lie"):
        ps.APH(nu=0.0)
    with pytest.raises(InvalidInput, match="gamma must be"):
        ps.APH(gamma=np.inf)


@pytest.mark.parametrize("rule", RULES)
def test_a_glm_says_what_it_lacks(rule):
    X = np.arange(20.0)[:, None]
    with pytest.raises(MissingMethod, match=r"needs of a problem what LeastSquares lacks[\s\S]*def prox\(data"):
        ps.simulate(ps.LeastSquares(), X, X[:, 0], consensus=rule())


def test_newton_says_what_a_program_lacks():
    with pytest.raises(MissingMethod, match=r"StochasticProgram lacks[\s\S]*def hessian[\s\S]*ProgressiveHedging\(\)"):
        ps.simulate(ps.StochasticProgram(), farmer.scenarios(), consensus="newton")


def test_projections_know_no_penalty():
    with pytest.raises(ps.errors.RunFailed, match="APH fits no penalty, got L2"):
        ps.simulate(ps.StochasticProgram(), farmer.scenarios(), consensus="aph", penalty=ps.L2(1.0))


def test_progressive_hedging_does():
    """Acres that cost something squared: the same as in every scenario's Q."""
    years, ridge = farmer.scenarios(), np.repeat([0.4, 0.0], [3, 6])
    inside = [
        ps.Scenario(
            c=y.c, A=y.A, row_lower=y.row_lower, row_upper=y.row_upper, upper=y.upper, Q=ridge,
            probability=y.probability, nodes=y.nodes,
        )
        for y in years
    ]  # fmt: skip
    rule = ps.ProgressiveHedging()
    one = ps.simulate(ps.StochasticProgram(), inside, consensus=rule, tol=1e-6).result
    two = ps.simulate(ps.StochasticProgram(), years, consensus=rule, penalty=ps.L2(0.4), tol=1e-6).result
    assert one.converged
    assert two.converged
    assert one.objective == pytest.approx(two.objective, rel=1e-6)
    np.testing.assert_allclose(one.z, two.z, atol=0.02)
