"""Every built-in plug-in keeps its contract, and every law of the contract catches a plug-in that breaks it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial

import cloudpickle
import msgpack
import numpy as np
import pytest
from scipy.sparse import csr_array

from paramserver.consensus import (
    ADMM,
    APH,
    EASGD,
    LBFGS,
    RULES,
    ActiveNewton,
    AggregatedNewton,
    AsyncSGD,
    FedAvg,
    ProgressiveHedging,
    ProxGradient,
)
from paramserver.consensus.newton import NewtonState
from paramserver.errors import InvalidInput, MissingMethod
from paramserver.examples import inventory
from paramserver.examples.berhu import BerHu
from paramserver.examples.expectile import Expectile
from paramserver.examples.hessian_average import HessianAverage
from paramserver.penalties import L1, L2, Box, ElasticNet, GroupL1, NonNegative, NoPenalty, Penalty
from paramserver.server.checkpoint import _named, _pack, _renamed, _unpack
from paramserver.testing import check_consensus, check_penalty, check_problem
from paramserver.workers.problems import (
    Gamma,
    Huber,
    LeastSquares,
    Logistic,
    Multinomial,
    Poisson,
    Quantile,
    Scenario,
    Smooth,
    SquaredHinge,
    Start,
    StochasticProgram,
    Tweedie,
)
from paramserver.workers.problems.base import Evaluation, Problem

RNG = np.random.default_rng(1)
X = RNG.standard_normal((120, 4))
LABELS = (RNG.random(120) < 1 / (1 + np.exp(-X[:, 0] + 0.5))).astype(float)
NUMBERS = X @ np.array([1.0, -2.0, 0.0, 3.0]) + 5.0 + RNG.standard_normal(120)
WEIGHT = RNG.random(120) * (RNG.random(120) < 0.8)


class Huberised(Penalty):
    """Smooth |w|, known by its prox alone."""

    def value(self, w):
        return float(np.where(np.abs(w) <= 1, 0.5 * w * w, np.abs(w) - 0.5).sum())

    def prox(self, v, steps):
        return np.where(np.abs(v) <= 1 + steps, v / (1 + steps), v - steps * np.sign(v))

    def subgradient(self, w, near):
        return np.clip(w, -1, 1)


class HalfSpace(Penalty):
    """The indicator of w ≥ 0, known by its prox alone: infinite elsewhere."""

    def project(self, w):
        return np.maximum(w, 0.0)

    def value(self, w):
        return 0.0 if (w >= 0).all() else np.inf

    def prox(self, v, steps):
        return np.maximum(v, 0.0)

    def subgradient(self, w, near):
        return np.where(w == 0, np.minimum(near, 0.0), 0.0)


class Ball(Penalty):
    """2‖w‖ of all coordinates, known by its prox alone, which needs one step for all."""

    def value(self, w):
        return 2.0 * float(np.linalg.norm(w))

    def prox(self, v, steps):
        assert (steps == steps[0]).all()
        length = np.linalg.norm(v)
        return v * max(1.0 - 2.0 * steps[0] / length, 0.0)

    def subgradient(self, w, near):
        length = np.linalg.norm(w)
        return 2.0 * w / length if length else near * min(1.0, 2.0 / np.linalg.norm(near))

    def blocks(self, d):
        return np.zeros(d, int)


# -- penalties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "penalty",
    [
        L1(2.0), L1(0.0), L2(0.5), L2(1e6), ElasticNet(3.0, 0.3), NoPenalty(), Huberised(), HalfSpace(), Ball(),
        L1(2.0, [3.0]), Box(-1.0, 2.0), Box(0.5, np.inf, 2.0, 0.5), Box(-3.0, -0.1, 1.0, 1.0), Box(0.3, 0.3),
        NonNegative(), NonNegative(2.0, 0.7), GroupL1(1, 2.0), GroupL1([[0]], 0.0), GroupL1([[0]], 3.0, [0.0]),
        BerHu(), BerHu(3.0, 0.2), BerHu(0.0),
    ],
    ids=lambda v: repr(v).split(" at 0x")[0],
)  # fmt: skip
@pytest.mark.parametrize("d", [1, 8])
def test_penalty(penalty, d):
    check_penalty(penalty, d)


FACTORS = (0.0, 1.0, 0.1, 10.0, 0.0, 2.0, 1.0, 1e3)
BOUNDS = ((-np.inf, -1, 0, 0.2, -5, 1, -np.inf, -2), (np.inf, 1, 0, 0.3, 0, np.inf, -1, 0))


@pytest.mark.parametrize(
    "penalty",
    [
        ElasticNet(2.0, 0.5, FACTORS), L1(2.0, FACTORS), L2(2.0, FACTORS), L1(2.0, FACTORS[:4]),
        Box(*BOUNDS), Box(*BOUNDS, 2.0, 0.5, FACTORS), Box(-1.0, BOUNDS[1][:2], 1.0, 1.0),
        NonNegative(1.0, 1.0, FACTORS),
        GroupL1(4), GroupL1(8, 0.3), GroupL1(2, 2.0, [0.0, 1.0, 10.0, 0.1]), GroupL1([[0, 1, 2], [7, 3]], 2.0),
        GroupL1([[6, 0], [1], [2, 3, 4]], 1.0, [1.0, 0.0, 3.0]), GroupL1(np.arange(6).reshape(2, 3)),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_penalty_of_eight_columns(penalty, seed):
    check_penalty(penalty, 8, seed)
    assert hash(penalty) == hash(cloudpickle.loads(cloudpickle.dumps(penalty)))
    state = _unpacked(_named(penalty))  # a checkpoint's way
    again = _renamed(penalty, state)
    assert again.value(np.full(8, 0.25)) == penalty.value(np.full(8, 0.25))


def _unpacked(state):
    return msgpack.unpackb(msgpack.packb(state, default=_pack), ext_hook=_unpack, strict_map_key=False)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: L1(-1.0), "alpha must be a finite number ≥ 0, got -1.0; for no penalty pass NoPenalty"),
        (lambda: L2(np.nan), "alpha must be a finite"),
        (lambda: ElasticNet("strong"), "alpha must be a finite"),
        (lambda: ElasticNet(1.0, 1.5), r"l1_ratio must lie in \[0, 1\]"),
        (lambda: ElasticNet(1.0, np.nan), "l1_ratio must lie"),
        (lambda: L1(1.0, [1.0, -2.0]), r"factors\[1\] is -2.0"),
        (lambda: L1(1.0, [1.0, np.inf]), r"factors\[1\] is inf"),
        (lambda: L1(1.0, 3.0), "use alpha"),
        (lambda: L1(1.0, [[1.0]]), "one-dimensional"),
        (lambda: L1(1.0, []), "one-dimensional"),
        (lambda: L1(1.0, [1.0, 2.0, 3.0]).value(np.ones(8)), "factors holds 3 numbers, but this problem has 8"),
        (lambda: Box([0.0, 1.0, 2.0], 5.0).value(np.ones(8)), "lower holds 3 numbers"),
        (lambda: Box(1.0, 0.0), "column 0 has 1.0 and 0.0"),
        (lambda: Box([0.0, 3.0], 2.0), "column 1 has 3.0 and 2.0"),
        (lambda: Box([0.0, 3.0], [4.0, 4.0, 4.0]), "lower holds 2 numbers and upper 3"),
        (lambda: Box(0.0, np.nan), "lower ≤ upper"),
        (lambda: Box(np.inf, np.inf), "lower ≤ upper"),
        (lambda: Box(None, 1.0), "lower must be a number"),
        (lambda: NonNegative(-1.0), "alpha"),
        (lambda: GroupL1([[0, 1], [1, 2]]), "column 1 is in groups 0 and 1"),
        (lambda: GroupL1([[0], []]), "group 1 is empty"),
        (lambda: GroupL1([]), "none was given"),
        (lambda: GroupL1([[0, -1]]), "group 0 names -1"),
        (lambda: GroupL1([[0, 1.5]]), "lists of column indices"),
        (lambda: GroupL1("ab"), "lists of column indices"),
        (lambda: GroupL1(0), "≥ 1, got 0"),
        (lambda: GroupL1(3).value(np.ones(8)), "groups of 3 columns each do not fit 8"),
        (lambda: GroupL1([[0], [8]]).value(np.ones(8)), "groups name column 8, but this problem has 8"),
        (lambda: GroupL1([[0], [1]], 1.0, [1.0]), "2 needed, 1 came"),
        (lambda: GroupL1(4, 1.0, [1.0]).value(np.ones(8)), "2 needed, 1 came"),
        (lambda: GroupL1(4, np.inf), "alpha"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_words(make, says):
    with pytest.raises(InvalidInput, match=says):
        make()


class WrongProx(L1):
    def prox(self, v, steps):
        return super().prox(v, 1.01 * steps)


class WrongValue(L1):
    def value(self, w):
        return 1.01 * super().value(w)


class WrongSubgradient(L2):
    def subgradient(self, w, near):
        return 1.01 * w


class FarSubgradient(L1):
    def subgradient(self, w, near):
        return self.alpha * np.sign(w)  # an element of ∂R, but not the nearest one


class Negative(Huberised):
    def value(self, w):
        return super().value(w) - 100.0


class NonConvex(Huberised):
    def value(self, w):
        return float(np.sqrt(np.abs(w)).sum())


class WrongDistance(L1):
    def distance(self, w, v):
        return 0.0


class Writes(L1):
    def prox(self, v, steps):
        v *= 1.0
        return super().prox(v, steps)


@pytest.mark.parametrize(
    ("penalty", "law"),
    [
        (WrongProx(2.0), "is a subgradient at prox"),
        (WrongValue(2.0), "terms say"),
        (WrongSubgradient(2.0), "is a subgradient at prox"),
        (FarSubgradient(2.0), "is a subgradient at prox"),
        (Negative(), ">= 0"),
        (NonConvex(), r"R\(w'\) >= R|convex"),
        (WrongDistance(2.0), "distance"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_broken_penalty_is_found(penalty, law):
    with pytest.raises(AssertionError, match=law):
        check_penalty(penalty)


def test_penalty_that_writes_into_its_arguments_is_found():
    with pytest.raises(AssertionError, match=r"read-only.*test_contracts.py: v \*= 1.0"):
        check_penalty(Writes(2.0))


# -- problems ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("scale", [1.0, 10.0 ** np.array([-6, 0, 6, 3])], ids=["plain", "scaled"])
@pytest.mark.parametrize(
    ("problem", "y"), [(Logistic, LABELS), (Logistic, 2 * LABELS - 1), (LeastSquares, NUMBERS)], ids=["01", "-11", "ls"]
)
def test_problem(problem, y, scale, weight, dtype, fit_intercept):
    check_problem(problem(fit_intercept=fit_intercept), (X * scale).astype(dtype), y, weight)


MEAN = np.exp(0.5 * X[:, 0] + 1.0)
CLASSES = np.argmax(X[:, :3] + RNG.gumbel(size=(120, 3)), axis=1)
FAMILIES = {
    "logistic": (Logistic, LABELS),
    "least squares": (LeastSquares, NUMBERS),
    "poisson": (Poisson, RNG.poisson(MEAN)),
    "gamma": (Gamma, RNG.gamma(2.0, MEAN / 2)),
    "tweedie 1.5": (Tweedie, RNG.gamma(2.0, MEAN / 2) * (RNG.random(120) < 0.7)),
    "tweedie 1.01": (partial(Tweedie, 1.01), RNG.gamma(2.0, MEAN / 2) * (RNG.random(120) < 0.7)),
    "tweedie 2": (partial(Tweedie, 2.0), RNG.gamma(2.0, MEAN / 2)),
    "huber": (Huber, NUMBERS),
    "quantile": (partial(Quantile, 0.3, smoothing=0.5), NUMBERS),
    "squared hinge": (SquaredHinge, LABELS),
    "expectile": (partial(Expectile, level=0.9), NUMBERS),
    "multinomial": (Multinomial, CLASSES),
    "multinomial of 2": (partial(Multinomial, 2), LABELS),
}


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "none"])
@pytest.mark.parametrize("extra", ["plain", "weighted", "offset", "both", "standardize"])
@pytest.mark.parametrize("storage", ["float64", "float32", "csr"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, storage, extra, fit_intercept):
    make, y = FAMILIES[family]
    problem = make(fit_intercept=fit_intercept, standardize=extra == "standardize")
    width = {"multinomial": (3,), "multinomial of 2": (2,)}.get(family, ())
    weight = WEIGHT if extra in ("weighted", "both", "standardize") else None
    offset = np.random.default_rng(5).standard_normal((120, *width)) if extra in ("offset", "both") else None
    held = X * (np.abs(X) > 0.7) if storage == "csr" else X.astype(storage)
    held[:, 2] += 0.0 if storage == "csr" else 1e4  # far from zero: shifted
    check_problem(problem, csr_array(held) if storage == "csr" else held, y, weight, offset)


def test_problem_without_capabilities():
    class Bare(Problem):
        def prepare(self, *parts):
            return LeastSquares().prepare(*parts)

        def survey(self, data):
            return np.array([data.rows, 3.0])

        def start(self, survey):
            return Start(np.zeros(3), 1.0)

    check_problem(Bare(), X, NUMBERS)


def broken(base, **methods):
    return type("Broken", (base,), methods)()


def _evaluate(change):
    def evaluate(self, data, z):
        return change(super(type(self), self).evaluate(data, z))

    return evaluate


def _fenchel(change):
    def fenchel(self, data, z, step, move=None):
        return change(*super(type(self), self).fenchel(data, z, step, move))

    return fenchel


def _scaled(name, by):
    def method(self, *args):
        value = getattr(super(type(self), self), name)(*args)
        return tuple(by * part for part in value) if isinstance(value, tuple) else by * value

    return method


def _start(dz, share):
    def start(self, survey):
        z, objective, _ = super(type(self), self).start(survey)
        return Start(z + dz * np.eye(len(z))[-1], objective * share)

    return start


def _survey(self, data):
    out = super(type(self), self).survey(data)
    out[-4] **= 0.9  # Σ weight·[y = 1]
    return out


@pytest.mark.parametrize(
    ("methods", "law"),
    [
        ({"evaluate": _evaluate(lambda e: Evaluation(e.value, 1.001 * e.gradient, e.curvature))}, "gradient"),
        ({"evaluate": _evaluate(lambda e: Evaluation(e.value, e.gradient, 1.001 * e.curvature))}, "Hessian"),
        ({"evaluate": _evaluate(lambda e: Evaluation(1.001 * e.value, e.gradient, e.curvature))}, "null model"),
        ({"start": _start(1e-3, 1.0)}, "null model"),
        ({"start": _start(0.0, 1.001)}, "null model"),
        ({"survey": _survey}, "add up"),
        ({"hessian": _scaled("hessian", 1.001)}, "Hessian"),
        ({"hessian_diagonal": _scaled("hessian_diagonal", 1.001)}, "hessian_diagonal"),
        ({"curvature": _scaled("curvature", 1.001)}, "curvature"),
        ({"line": _scaled("line", 1.001)}, "line"),
        ({"fenchel": _fenchel(lambda term, loss: (0.9 * term, loss))}, r"fenchel bounds|z \+ move"),
        ({"fenchel": _fenchel(lambda term, loss: (-term, loss))}, "fenchel is >= 0"),
        ({"fenchel": _fenchel(lambda term, loss: (term, 1.001 * loss))}, "losses at it"),
        ({"fenchel": lambda self, data, z, step, move=None: Logistic.fenchel(self, data, z, step)}, "losses at it"),
        ({"fenchel_bound": lambda self, bend, reach: 0.49 * bend}, "fenchel_bound"),
        ({"reach": _scaled("reach", 0.1)}, "reach"),
        ({"penalised": lambda self, p: np.ones(p - 1, bool)}, "mask"),
        ({"quadratic": True}, "constant where the problem is quadratic"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_broken_problem_is_found(methods, law):
    with pytest.raises(AssertionError, match=law):
        check_problem(broken(Logistic, **methods), X, LABELS)


# -- rules ---------------------------------------------------------------------------------------

SHIPPED = [
    AggregatedNewton(),
    AggregatedNewton(min_fresh=3, max_staleness=4),
    LBFGS(),
    ADMM(),
    ADMM(metric="diagonal"),
    ADMM(metric="identity", rho=20.0),
    ADMM(rho=1.0, relaxation=1.0),
    ADMM(metric="diagonal", rho=100.0, balance=True),
    ProxGradient(),
    AsyncSGD(batch=16),
    FedAvg(),
    FedAvg(local_steps=3, mu=0.5),
    EASGD(local_steps=3),
    ActiveNewton(),
]
EXAMPLES = [HessianAverage(batch=20), HessianAverage(min_fresh=3, max_staleness=4)]


HEDGING = [
    ProgressiveHedging(rho=3.0),
    ProgressiveHedging(balance=True),
    ProgressiveHedging(rho=3.0, relaxation=1.5),
    APH(rho=3.0),
    APH(rho=3.0, nu=1.5, gamma=2.0),
]


def test_every_rule_that_ships_is_here():
    assert {type(rule) for rule in SHIPPED + HEDGING} == {rule for name, rule in RULES.items() if name != "auto"}


@pytest.mark.parametrize("rule", SHIPPED + EXAMPLES, ids=repr)
@pytest.mark.parametrize("problem", [Logistic(), LeastSquares(fit_intercept=False)], ids=repr)
def test_rule(rule, problem):
    check_consensus(rule, problem, penalty=L1(2.0) if isinstance(rule, ActiveNewton) else None)


@pytest.mark.parametrize("rule", HEDGING, ids=repr)
def test_rule_whose_chunks_know_a_part_of_z(rule):
    """Three stages; costs that are curved, for a linear rate."""
    what = [f.name for f in fields(Scenario) if f.init]
    tree = [Scenario(**{**{n: getattr(s, n) for n in what}, "Q": np.ones(12)}) for s in inventory.scenarios()]
    pairs = [tree[k : k + 2] for k in range(0, len(tree), 2)]
    check_consensus(rule, StochasticProgram(), chunks=pairs, penalty=NoPenalty())


def test_rule_on_data_of_ones_own():
    check_consensus(AggregatedNewton(), LeastSquares(), X, NUMBERS)


def test_rule_on_chunks_of_ones_own():
    uneven = [(X[rows], NUMBERS[rows], WEIGHT[rows]) for rows in np.split(np.arange(120), [20, 50])]
    check_consensus(AggregatedNewton(), LeastSquares(), chunks=uneven)
    centres = [{"centre": 2.0 * np.eye(3)[k % 3]} for k in range(5)]

    def distance(z, place):
        return 0.5 * float((z - place["centre"]) @ (z - place["centre"])) + 1.0

    square = Smooth(distance, lambda z, place: z - place["centre"], lambda z, place: np.eye(3), size=3)
    check_consensus(AggregatedNewton(), square, chunks=centres)


def test_data_that_are_not_cut_into_two_are_refused():
    for given in ({"chunks": [(X, NUMBERS)]}, {"X": X, "chunks": [(X, NUMBERS)] * 2}, {"X": X[:1], "y": NUMBERS[:1]}):
        with pytest.raises(InvalidInput, match="two chunks"):
            check_consensus(AggregatedNewton(), LeastSquares(), **given)


@dataclass(frozen=True)
class Misshapen(AggregatedNewton):
    def step(self, problem, data, pull):
        return {**super().step(problem, data, pull), "g": np.zeros(2)}


def answers(**methods):
    """A rule that returns what it should not."""
    return type("Wrong", (AggregatedNewton,), methods)


def _step(change):
    return lambda self, problem, data, pull: change(AggregatedNewton.step(self, problem, data, pull))


Single = answers(step=_step(lambda out: {**out, "g": out["g"].astype(np.float32)}))
Undeclared = answers(step=_step(lambda out: {**out, "extra": 1.0}))
Unsent = answers(step=_step(lambda out: {name: value for name, value in out.items() if name != "g"}))
Infinite = answers(step=_step(lambda out: {**out, "g": out["g"] * np.inf}))
NoFields = answers(step=_step(lambda out: tuple(out.values())))
NoState = answers(init=lambda self, setup: {})
NoAbsorbed = answers(absorb=lambda self, *args: AggregatedNewton.absorb(self, *args).state)
NoPair = answers(consensus=lambda self, *args: AggregatedNewton.consensus(self, *args)[0])


@dataclass(frozen=True)
class HalfSent(AggregatedNewton):
    def step(self, problem, data, pull):
        return {k: v for k, v in super().step(problem, data, pull).items() if k != "H"}


@dataclass(frozen=True)
class WritesPull(AggregatedNewton):
    def step(self, problem, data, pull):
        pull.z[0] += 1e-12
        return super().step(problem, data, pull)


@dataclass(frozen=True)
class WritesSlot(ADMM):
    def absorb(self, state, chunk, old, new):
        if old is not None:
            old["w"] += 0.0
        return super().absorb(state, chunk, old, new)


@dataclass(frozen=True)
class Ordered(AggregatedNewton):
    def absorb(self, state, chunk, old, new):
        out = super().absorb(state, chunk, old, new)
        state.c *= 1.0 + 0.001 * chunk
        return out


@dataclass(frozen=True)
class Forgets(AggregatedNewton):
    def rebuild(self, state, slots, z):
        return super().rebuild(state, {i: s for i, s in slots.items() if i}, z)


@dataclass(frozen=True)
class Stuck(ADMM):
    def consensus(self, state, penalty, z):
        return super().consensus(state, penalty, z)[0] * 0.9, state


@dataclass(frozen=True)
class Random(ADMM):
    def step(self, problem, data, pull):
        out = super().step(problem, data, pull)
        return {**out, "w": out["w"] + 1e-9 * np.random.default_rng().standard_normal(len(out["w"]))}


@dataclass(frozen=True)
class Remembers(ProxGradient):
    """Momentum that a worker keeps to itself."""

    def step(self, problem, data, pull):
        out = super().step(problem, data, pull)
        data.memo["momentum"] = out["g"] + 0.5 * data.memo.get("momentum", 0.0)
        return {**out, "g": data.memo["momentum"].copy()}


@dataclass
class Seen(NewtonState):
    seen: set = field(default_factory=set)


@dataclass(frozen=True)
class Unstorable(AggregatedNewton):
    def init(self, setup):
        return Seen(**vars(super().init(setup)))


@dataclass(frozen=True)
class UnstorableSlot(FedAvg):
    def absorb(self, state, chunk, old, new):
        out = super().absorb(state, chunk, old, new)
        return out._replace(slot={**out.slot, "who": object()})


@dataclass(frozen=True)
class Grown(FedAvg):
    """A checkpoint would not be taken back: its sums are of another shape than they begin with."""

    def absorb(self, state, chunk, old, new):
        out = super().absorb(state, chunk, old, new)
        return out._replace(state=replace(out.state, stiff=np.array([out.state.stiff])))


@dataclass(frozen=True)
class Adds(AsyncSGD):
    """Every push moves z, whether it is new or not."""

    replays = True


@dataclass(frozen=True)
class Piles(HessianAverage):
    """What a chunk said before is never taken out again."""

    def absorb(self, state, chunk, old, new):
        return super().absorb(state, chunk, None, new)


@dataclass(frozen=True)
class Vain(FedAvg):
    def floor(self, setup):
        return 1e-6


@dataclass(frozen=True)
class Floored(ADMM):
    def floor(self, setup):
        return 1e-3


@dataclass(frozen=True)
class Partial(EASGD):
    """Only in the second round does the order matter: later differences count for less."""

    def absorb(self, state, chunk, old, new):
        new = {**new, "e": new["e"] / (1 + np.abs(state.e).sum())} if "e" in new else new
        return super().absorb(state, chunk, old, new)


@pytest.mark.parametrize(
    ("rule", "error", "law"),
    [
        (Misshapen(), AssertionError, r"'g' is of wrong shape.*\('p',\) with p = 5.*got float64 \(2,\)"),
        (Single(), AssertionError, "'g' is of wrong shape or dtype.*got float32"),
        (Undeclared(), AssertionError, "'extra' is not declared there, only x, f, g, H, every"),
        (Unsent(), AssertionError, "'g' is missing, and not among `optional`"),
        (Infinite(), AssertionError, "not finite where it should be: g"),
        (NoFields(), AssertionError, "step returns a dict.*got <class 'tuple'>"),
        (NoState(), AssertionError, "state is a dataclass object, got {}"),
        (NoAbsorbed(), AssertionError, "absorb returns Absorbed.*got NewtonState"),
        (NoPair(), AssertionError, r"consensus returns \(z, state\), got ndarray"),
        (HalfSent(), AssertionError, "whole"),
        (WritesPull(), AssertionError, r"read-only.*test_contracts.py: pull.z\[0\] \+= 1e-12"),
        (WritesSlot(), AssertionError, r'read-only.*test_contracts.py: old\["w"\] \+= 0.0'),
        (Ordered(), AssertionError, "any order"),
        (Forgets(), AssertionError, "rebuilt"),
        (Stuck(), AssertionError, "converges"),
        (Random(), AssertionError, r"half is pure, but w differs by up to \d\.\de-\d\d between two answers"),
        (Remembers(), AssertionError, "whatever was asked"),
        (Unstorable(), AssertionError, "the state's seen can be checkpointed, got set"),
        (UnstorableSlot(), AssertionError, "a slot's who can be checkpointed, got object"),
        (Grown(), AssertionError, "`init` makes"),
        (Adds(), AssertionError, "twice as once"),
        (Piles(), AssertionError, "whole push replaces the chunk's last"),
        (Vain(), AssertionError, "times its floor"),
        (Floored(), AssertionError, "no floor"),
        (Partial(), AssertionError, "any order"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_broken_rule_is_found(rule, error, law):
    with pytest.raises(error, match=law):
        check_consensus(rule)


def test_rule_names_what_the_problem_lacks():
    class Plain(Problem):
        def prepare(self, *parts):
            return LeastSquares().prepare(*parts)

        def survey(self, data):
            return np.array([data.rows, 4.0])

        def start(self, survey):
            return Start(np.zeros(4), 1.0)

    with pytest.raises(MissingMethod, match=r"def evaluate\(data, z\)"):
        check_consensus(AggregatedNewton(), Plain(), X, NUMBERS)
