"""The laws of a consensus rule: each half by itself, then both in virtual time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from paramserver.consensus.base import Consensus
from paramserver.errors import CheckpointError, InvalidInput
from paramserver.messages import Array, Fields
from paramserver.penalties import L2, Penalty
from paramserver.server import checkpoint, stored
from paramserver.simulator import Network, simulate
from paramserver.testing.laws import apart, frozen, hands_off, law, same
from paramserver.testing.trial import Trial
from paramserver.views import Result
from paramserver.workers.problems import Logistic, Problem

CHUNKS = 4
ROUNDS = 3
TOL = 1e-6  #: of an exact rule
NEAR = 5.0  #: times its floor another must come to
LIMIT = 3e3  #: of virtual time
CACHED = 1e-3  #: what a step may owe to what the steps before left in a chunk's memo, relatively
REPLAYS = "a rule that says `replays` takes a push twice as once"
REPLACES = (
    "a whole push replaces the chunk's last: the same again changes nothing, or else `is_delta` or `accumulates` say so"
)
NETWORKS = {
    "a straggler": Network(speeds=(1.0, 1.0, 5.0)),
    "deaths": Network(speeds=(1.0, 1.0, 1.0), copies=1, deaths=((0, 4.0, 30.0), (1, 15.0, np.inf))),
    "a bad network": Network(speeds=(1.0, 3.0), lost=0.05, late=0.05, doubled=0.1),
}


@hands_off
def check_consensus(
    rule: Consensus, problem: Problem | None = None, X: Any = None, y: Any = None, seed: int = 0,
    penalty: Penalty | None = None, *, chunks: Sequence[Any] | None = None,
) -> None:  # fmt: skip
    """Both halves of a rule keep the protocol, and small simulated runs end where they should.

    The worker's half is pure, and sends what it declares. The server's absorbs pushes in any order under a
    full barrier, the same push again without effect where it ``replays``, and comes back from a checkpoint. With
    a straggler, with deaths and with a network that loses, delays and doubles messages, an exact rule
    converges, another comes near its `Consensus.floor`, where it says one.

    Parameters
    ----------
    rule : Consensus
    problem, X, y, penalty :
        What to fit; by default a small logistic regression with L2.
    seed : int
    chunks : sequence
        The data, in place of X and y, already cut: two chunks or more, each a tuple (X_i, y_i[, weight_i[, offset_i]])
        or an object that ``problem`` prepares. Where they know a part of z (`knows`) a run starts from what
        each would have alone, and ends above that.

    Raises
    ------
    AssertionError
        With the law that does not hold, and the numbers.
    """
    problem, penalty = problem or Logistic(), penalty or L2(1.0)
    rule.check(problem)
    parts = _parts(X, y, chunks, seed)
    trial = Trial(rule, problem, parts, penalty)
    state, z = trial.begun(), trial.setup.z
    slots: dict[int, Fields] = {}
    for _ in range(ROUNDS):
        state, slots = _check_round(trial, state, slots, z)
        z, state = trial.consensus(state, z)
    _check_steps(trial, state, slots, z)
    _check_readings(trial, state, slots, z)
    for name, network in NETWORKS.items():
        for settings in (rule, replace(rule, min_fresh=len(parts))):
            floor = settings.floor(trial.setup)
            kw: Any = {"penalty": penalty, "consensus": settings, "network": network, "seed": seed}
            kw.update(tol=max(NEAR * floor, TOL), limit=LIMIT if rule.exact or floor else LIMIT / 10)
            result = simulate(problem, parts, **kw).result
            _check_end(settings, trial, result, name)
    again = simulate(problem, parts, **kw).result
    law(np.array_equal(result.z, again.z), "a simulated run is the same for the same seed")


def _parts(X: Any, y: Any, chunks: Sequence[Any] | None, seed: int) -> list[tuple[Any, ...]]:
    """Each chunk's parts, as `Problem.prepare` takes them."""
    if chunks is None:
        X, y = _data(seed) if X is None else (X, y)
        cuts = np.array_split(np.arange(len(X)), CHUNKS)
        chunks = [(X[rows], None if y is None else y[rows]) for rows in cuts if len(rows)]
    elif X is not None or y is not None:
        raise InvalidInput("pass X and y, or two chunks or more that are cut already, not both")
    if len(chunks) < 2:
        raise InvalidInput(f"a rule is checked on two chunks or more, got {len(chunks)}")
    return [chunk if isinstance(chunk, tuple) else (chunk,) for chunk in chunks]


def _data(seed: int) -> tuple[Array, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((160, 4))
    return X, rng.random(160) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0]) - 0.5))


def _check_round(trial: Trial, state: Any, slots: dict[int, Fields], z: Array) -> tuple[Any, dict[int, Fields]]:
    """Every chunk answers at one z: in whatever order, restored or rebuilt, the next z is the same."""
    rule, ends = trial.rule, []
    chunks = range(trial.setup.n_chunks)
    pushes = [trial.push(i, trial.pull(state, slots.get(i), z)) for i in chunks]
    for order in (chunks, [*chunks[1::2], *chunks[::2]]):
        after, new = copy.deepcopy(state), dict(slots)
        for i in order:
            after, new[i], taken = trial.absorb(after, i, new.get(i), pushes[i])
            new[i] = {**new[i], "rows": pushes[i]["rows"]}
            law(taken or slots, "a first push is accepted")
        ends.append(trial.consensus(copy.deepcopy(after), z)[0])
    same(ends[0], ends[1], "any order of pushes under a full barrier gives the same z", 1e-7)
    restored = _restored(trial, after, new)
    same(trial.consensus(copy.deepcopy(restored), z)[0], ends[1], "a restored state gives the same z")
    rebuilt = rule.rebuild(copy.deepcopy(after), frozen(new), frozen(z))
    same(trial.consensus(rebuilt, z)[0], ends[1], "sums rebuilt from the slots give the same z", 1e-7)
    replaces = rule.exact and not rule.accumulates and not slots and not rule.is_delta(pushes[0])
    if rule.replays or replaces:
        twice = trial.absorb(copy.deepcopy(after), 0, new[0], pushes[0]).state
        same(trial.consensus(twice, z)[0], ends[1], REPLAYS if rule.replays else REPLACES, 1e-7)
    return restored, new


def _restored(trial: Trial, state: Any, slots: dict[int, Fields]) -> Any:
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
        object.__setattr__(begun, name, value)
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


def _check_steps(trial: Trial, state: Any, slots: dict[int, Fields], z: Array) -> None:
    """The worker's half knows its arguments alone; what it leaves in a chunk's memo saves work and no more."""
    for i, slot in slots.items():
        for whole in (False, True):
            pull = trial.pull(state, slot, z, whole)
            once, twice, anew = (trial.answer(data, pull) for data in trial.copies(i))
            law(once.keys() == twice.keys() == anew.keys(), "the same pull brings the same fields")
            for name in once:
                differ = f"{name} differs {apart(once[name], twice[name])} between two answers to the same pull"
                law(_alike(once[name], twice[name]), f"the worker's half is pure, but {differ} on the same chunk")
                memo = f"{name} is the same whatever was asked of the chunk before: its memo saves work and no more"
                same(once[name], anew[name], memo, CACHED)
            trial.push(i, pull)


def _check_readings(trial: Trial, state: Any, slots: dict[int, Fields], z: Array) -> None:
    """What users are shown of a rule."""
    rule = trial.rule
    estimate, *_ = rule.residuals(state, frozen(slots), trial.bound, frozen(z))
    law(not estimate < 0, f"the estimate is >= 0, inf or nan, got {estimate}")
    law(np.ndim(rule.objective(frozen(slots), trial.bound, frozen(z))) == 0, "the objective is one number")
    law(rule.local(slots[0]).shape == rule.dual(slots[0]).shape == z.shape, f"local and dual of a slot are {z.shape}")
    law(rule.floor(trial.setup) == 0 or not rule.exact, "an exact rule has no floor")
    trial.consensus(rule.recount(copy.deepcopy(state), trial.setup, frozen(slots), frozen(z)), z)


def _check_end(rule: Consensus, trial: Trial, result: Result, where: str) -> None:
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
