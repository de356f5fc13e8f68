"""The laws of a consensus rule: each half by itself, then both in virtual time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from paramserver.consensus.base import Consensus, Pull, Setup, check
from paramserver.errors import CheckpointError
from paramserver.messages import Array, Fields, Version
from paramserver.penalties import L2, Bound, Penalty
from paramserver.server import checkpoint, stored
from paramserver.simulator import Network, simulate
from paramserver.testing.laws import frozen, law, same, travelled
from paramserver.testing.problems import null_model
from paramserver.views import Result
from paramserver.workers.problems import Logistic, Problem

CHUNKS = 4
ROUNDS = 3
TOL = 1e-6  #: of an exact rule
NEAR = 5.0  #: times its floor another must come to
LIMIT = 3e3  #: of virtual time
CACHED = 1e-3  #: what a step may owe to what the steps before left in a chunk's memo, relatively
NETWORKS = {
    "a straggler": Network(speeds=(1.0, 1.0, 5.0)),
    "deaths": Network(speeds=(1.0, 1.0, 1.0), copies=1, deaths=((0, 4.0, 30.0), (1, 15.0, np.inf))),
    "a bad network": Network(speeds=(1.0, 3.0), lost=0.05, late=0.05, doubled=0.1),
}


def check_consensus(
    rule: Consensus, problem: Problem | None = None, X: Any = None, y: Any = None, seed: int = 0,
    penalty: Penalty | None = None,
) -> None:  # fmt: skip
    """Both halves of a rule keep the protocol, and small simulated runs end where they should.

    The worker's half is pure, and sends what it declares. The server's absorbs pushes in any order under a
    full barrier, the same push again without effect where it ``replays``, and comes back from a checkpoint. With
    a straggler, with deaths and with a network that loses, delays and doubles messages, an exact rule
    converges, another comes near its `Consensus.floor`, where it says one.

    ``problem``, ``X``, ``y`` and ``penalty`` say what to fit; by default a small logistic regression with L2. X may
    be a list of four objects or more, for a problem that takes such; one whose chunks know a part of z
    (`knows`) starts from what each would have alone.
    """
    problem, penalty = problem or Logistic(), penalty or L2(1.0)
    if X is None:
        X, y = _data(seed)
    X = X if hasattr(X, "shape") else np.array(X, dtype=object)
    cuts = np.array_split(np.arange(len(X)), CHUNKS)
    rule.check(problem)
    trial = _Trial(rule, problem, [(X[rows], None if y is None else y[rows]) for rows in cuts], penalty)
    state, z = rule.init(trial.setup), trial.setup.z
    slots: dict[int, Fields] = {}
    for _ in range(ROUNDS):
        state, slots = _check_round(trial, state, slots, z)
        z, state = trial.consensus(state, z)
    _check_steps(trial, state, slots, z)
    _check_readings(trial, state, slots, z)
    for name, network in NETWORKS.items():
        for settings in (rule, replace(rule, min_fresh=CHUNKS)):
            floor = settings.floor(trial.setup)
            kw: Any = {"chunks": cuts, "penalty": penalty, "consensus": settings, "network": network, "seed": seed}
            kw.update(tol=max(NEAR * floor, TOL), limit=LIMIT if rule.exact or floor else LIMIT / 10)
            result = simulate(problem, X, y, **kw).result
            _check_end(settings, trial, result, name)
    again = simulate(problem, X, y, **kw).result
    law(np.array_equal(result.z, again.z), "a simulated run is the same for the same seed")


def _data(seed: int) -> tuple[Array, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((160, 4))
    return X, rng.random(160) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0]) - 0.5))


class _Trial:
    """One rule on a few chunks, driven by hand."""

    def __init__(self, rule: Consensus, problem: Problem, parts: Sequence[Any], penalty: Penalty) -> None:
        self.rule, self.prepare = rule, [partial(problem.prepare, *each) for each in parts]
        self.data = [prepare() for prepare in self.prepare]
        total = reduce(problem.merge, map(problem.survey, self.data))
        self.problem = problem.at(total)
        self.shared = callable(getattr(problem, "knows", None))
        start = null_model(self.problem, self.problem.start(total), self.data)
        self.bound = Bound(penalty, self.problem.penalised(len(start.z)))
        rule.suits(self.bound)
        self.setup = Setup(
            len(start.z), CHUNKS, int(total[0]), start, self.problem.quadratic, self.bound, self.bound.project(start.z)
        )

    def pull(self, state: Any, slot: Fields | None, z: Array, whole: bool = False) -> Pull:
        fields = frozen(dict(self.rule.plan(state, frozen(slot), frozen(z))))
        return Pull(frozen(z), Version(0, 0), fields, whole or slot is None)

    def copies(self, i: int) -> Iterator[Any]:
        """A chunk's data as the steps so far left them, twice, and as new."""
        yield from (copy.deepcopy(self.data[i]), copy.deepcopy(self.data[i]), self.prepare[i]())

    def answer(self, data: Any, pull: Pull) -> Fields:
        payload = travelled(self.rule).step(self.problem, data, pull)
        law(payload is not None, "a step near the null model is not too far")
        return payload  # type: ignore[no-any-return]

    def push(self, i: int, pull: Pull) -> Fields:
        """A worker's answer as the server gets it."""
        payload = self.answer(self.data[i], pull)
        wrong = check(payload, self.rule.shapes, self.rule.optional, self.setup.p)
        law(wrong is None, f"a payload is float64 of {dict(self.rule.shapes)}, finite: wrong {wrong} in {payload}")
        law(not (pull.whole and self.rule.is_delta(payload)), f"a push asked for whole is whole, got {[*payload]}")
        return frozen({**travelled(payload), "rows": float(self.data[i].rows)})  # type: ignore[no-any-return]

    def consensus(self, state: Any, z: Array) -> tuple[Array, Any]:
        z, state = self.rule.consensus(state, self.bound, frozen(z))
        law(z.shape == (self.setup.p,) and np.isfinite(z).all(), f"consensus makes {self.setup.p} numbers, got {z!r}")
        return z, state


def _check_round(trial: _Trial, state: Any, slots: dict[int, Fields], z: Array) -> tuple[Any, dict[int, Fields]]:
    """Every chunk answers at one z: in whatever order, restored or rebuilt, the next z is the same."""
    rule, ends = trial.rule, []
    pushes = [trial.push(i, trial.pull(state, slots.get(i), z)) for i in range(CHUNKS)]
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        after, new = copy.deepcopy(state), dict(slots)
        for i in order:
            after, new[i], taken = rule.absorb(after, i, frozen(new.get(i)), pushes[i])
            new[i] = {**new[i], "rows": pushes[i]["rows"]}
            law(taken or slots, "a first push is accepted")
        ends.append(trial.consensus(copy.deepcopy(after), z)[0])
    same(ends[0], ends[1], "any order of pushes under a full barrier gives the same z", 1e-7)
    restored = _restored(trial, after, new)
    same(trial.consensus(copy.deepcopy(restored), z)[0], ends[1], "a restored state gives the same z")
    rebuilt = rule.rebuild(copy.deepcopy(after), frozen(new), frozen(z))
    same(trial.consensus(rebuilt, z)[0], ends[1], "sums rebuilt from the slots give the same z", 1e-7)
    if rule.replays:
        twice = rule.absorb(copy.deepcopy(after), 0, frozen(new[0]), pushes[0]).state
        same(trial.consensus(twice, z)[0], ends[1], "a rule that says `replays` takes a push twice as once", 1e-7)
    return restored, new


def _restored(trial: _Trial, state: Any, slots: dict[int, Fields]) -> Any:
    """The state from a checkpoint."""
    law(is_dataclass(state), f"the state is a dataclass, got {type(state)}")
    kept = {field.name: _kept(f"the state's {field.name}", getattr(state, field.name)) for field in fields(state)}
    back = {i: {name: _kept(f"a slot's {name}", value) for name, value in slot.items()} for i, slot in slots.items()}
    begun = trial.rule.init(trial.setup)
    try:
        stored.check_slots(back)
        stored.check_sums(kept, {field.name: getattr(begun, field.name) for field in fields(begun)}, trial.setup.p)
    except CheckpointError as error:
        raise AssertionError(f"broken: what `init` makes says what a state may be: {error}") from None
    for name, value in kept.items():
        setattr(begun, name, value)
    return begun


def _kept(what: str, value: Any) -> Any:
    try:
        back = checkpoint.again(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise AssertionError(f"broken: {what} can be checkpointed, got {type(value).__name__}: {error}") from None
    law(_alike(back, value), f"{what} is the same from a checkpoint: {value!r} became {back!r}")
    return back


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))
    return bool(a == b or (a != a and b != b))


def _check_steps(trial: _Trial, state: Any, slots: dict[int, Fields], z: Array) -> None:
    """The worker's half knows its arguments alone; what it leaves in a chunk's memo saves work and no more."""
    for i, slot in slots.items():
        for whole in (False, True):
            pull = trial.pull(state, slot, z, whole)
            once, twice, anew = (trial.answer(data, pull) for data in trial.copies(i))
            law(once.keys() == twice.keys() == anew.keys(), "the same pull brings the same fields")
            for name in once:
                law(_alike(once[name], twice[name]), f"the worker's half is pure: the same pull gives the same {name}")
                same(once[name], anew[name], f"{name} is the same whatever was asked of the chunk before", CACHED)
            trial.push(i, pull)


def _check_readings(trial: _Trial, state: Any, slots: dict[int, Fields], z: Array) -> None:
    """What users are shown of a rule."""
    rule = trial.rule
    estimate, *_ = rule.residuals(state, frozen(slots), trial.bound, frozen(z))
    law(not estimate < 0, f"the estimate is >= 0, inf or nan, got {estimate}")
    law(np.ndim(rule.objective(frozen(slots), trial.bound, frozen(z))) == 0, "the objective is one number")
    law(rule.local(slots[0]).shape == rule.dual(slots[0]).shape == z.shape, f"local and dual of a slot are {z.shape}")
    law(rule.floor(trial.setup) == 0 or not rule.exact, "an exact rule has no floor")
    trial.consensus(rule.recount(copy.deepcopy(state), trial.setup, frozen(slots), frozen(z)), z)


def _check_end(rule: Consensus, trial: _Trial, result: Result, where: str) -> None:
    """Where a simulated run ended."""
    floor, null = rule.floor(trial.setup), trial.setup.start.objective + trial.bound.value(trial.setup.start.z)
    law(np.isfinite(result.z).all(), f"z is finite whatever happens, got {result.z} with {where}")
    law(result.converged or not rule.exact, f"an exact rule converges to a gap of {TOL} with {where}, not {result!r}")
    law(result.converged or not floor, f"a rule comes within {NEAR} times its floor, {floor}, with {where}: {result!r}")
    if trial.shared:
        below = null - 1e-6 * abs(null)
        law(result.objective >= below, f"with {where} chunks that agree cost no less than apart, {null}: {result!r}")
    else:
        law(not result.objective > null * (1 + 1e-9), f"with {where} it ends below the null model, {null}: {result!r}")
