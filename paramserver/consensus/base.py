"""What a consensus rule is: how local answers become one z.

A rule is a frozen dataclass of settings. The worker's half (`step`) is pure; the server's half
keeps a state S, a dataclass of arrays that it alone changes, and one *slot* of fields a chunk,
which the framework keeps and hands back. Both are checkpointed by the framework. Nothing here
imports Dask; try a rule with `paramserver.simulate` and `paramserver.testing.check_consensus` first.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from paramserver.certificate import Model
from paramserver.errors import InvalidInput, MissingMethod
from paramserver.messages import Array, Fields, Version
from paramserver.penalties import Bound
from paramserver.views import Residuals
from paramserver.workers.problems.base import Problem, Start, require


class Pull(NamedTuple):
    """What a worker has to go by."""

    z: Array  #: (p,), read-only, possibly stale by the time the push arrives
    version: Version
    fields: Fields  #: what `Consensus.plan` made of the chunk's slot
    whole: bool  #: send every field: a delta will not do


class Setup(NamedTuple):
    """What is known once every chunk has been surveyed."""

    p: int
    n_chunks: int
    rows: int  #: of all chunks
    start: Start  #: the null model
    quadratic: bool  #: the losses are: every Hessian is the same everywhere
    bound: Bound  #: the penalty, on all of z
    z: Array  #: where the run starts: the null model, or the user's z0


class Absorbed(NamedTuple):
    """What the server made of a push."""

    state: Any
    slot: Fields  #: replaces the chunk's slot
    accepted: bool = True


class Exact(NamedTuple):
    """One chunk's exact answer at a frozen z; its Hessian may have been kept from another, ``made_at``."""

    z: Array
    value: float
    gradient: Array
    hessian: Array
    rows: float
    made_at: Array


class Kept(NamedTuple):
    """A chunk's true Hessian, and the z (p,) it was made at."""

    hessian: Array
    at: Array


class Line(NamedTuple):
    """A search along ``z + t·step`` that must fall by ``slope``·t·1e-4 at least, from ``objective``."""

    z: Array
    step: Array
    objective: float
    decrease: float


@dataclass(frozen=True, kw_only=True)
class Consensus(ABC):
    """Settings common to all rules.

    Parameters
    ----------
    min_fresh : int
        z is recomputed once so many distinct chunks have reported anew; 1 is fully asynchronous,
        the number of chunks synchronous. None: what suits the rule.
    max_staleness : int or None
        z stands still while some chunk's last pull is so many versions back.
    """

    min_fresh: int | None = 1
    max_staleness: int | None = None

    #: What a push carries: field → shape, "p" standing for the size of z, "*" for any length.
    payload: ClassVar[Mapping[str, tuple[str | int, ...]]]
    #: Fields that may be left out: a push without them is a delta on the slot.
    optional: ClassVar[frozenset[str]] = frozenset()
    #: Problem methods that `step` calls.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Pushes made with a state that was lost since may be absorbed by an older one: each is whole, or whole but for
    #: what the slot keeps, and says by itself where it was made. Else what is not in a checkpoint is computed again.
    replays: ClassVar[bool] = False
    #: Whole pushes may carry differences too, which count once: what they were made from stays on the workers.
    accumulates: ClassVar[bool] = False
    #: Converges to the optimum (else it has a `floor`).
    exact: ClassVar[bool] = True
    #: A verification's exact answers replace the slots: the next z is a full Newton step.
    adopts: ClassVar[bool] = False
    #: What its verifications give: "duality gap", or "first-order", a proof too but a looser one.
    certificate: ClassVar[str] = "duality gap"

    def __new__(cls, *args: Any, **settings: Any) -> Consensus:
        lacking = sorted(getattr(cls, "__abstractmethods__", ()))
        lines = [f"    def {name}{inspect.signature(getattr(cls, name))}".replace("'", "") for name in lacking]
        if not hasattr(cls, "payload"):
            lines.append('    payload: ClassVar = {"x": ("p",), "f": ()}, or whatever `step` returns, by its shapes')
        if lines:
            raise MissingMethod("\n".join([f"{cls.__name__} lacks what every rule needs; define on it", *lines]))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.min_fresh is not None and self.min_fresh < 1:
            raise InvalidInput(f"min_fresh must be ≥ 1, got {self.min_fresh}")
        if self.max_staleness is not None and self.max_staleness < 1:
            raise InvalidInput(f"max_staleness must be None or ≥ 1 version, got {self.max_staleness}")

    # -- the four a rule must have ---------------------------------------------------------------

    @abstractmethod
    def init(self, setup: Setup) -> Any:
        """The state before any push."""

    @abstractmethod
    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        """The worker's half: payload from one chunk and one pull; None where z is too far to evaluate.

        Settings that a live run may change must come by `plan`: runners hold the rule as it was launched.
        """

    @abstractmethod
    def absorb(self, state: Any, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        """The server's half, O(payload). ``old`` is the slot (None: first push); ``new`` also has ``rows``."""

    @abstractmethod
    def consensus(self, state: Any, penalty: Bound, z: Array) -> tuple[Array, Any]:
        """(a new z, state), from the state and the last z."""

    # -- the rest has defaults -------------------------------------------------------------------

    def check(self, problem: Problem) -> None:
        """Raise `MissingMethod` where the problem lacks what this rule needs; called before anything is sent."""
        require(self.needs, problem, type(self).__name__)

    @property
    def shapes(self) -> Mapping[str, tuple[str | int, ...]]:
        """`payload`, where these settings change it."""
        return self.payload

    def suits(self, penalty: Bound) -> None:  # noqa: B027
        """Raise `InvalidInput` for a penalty that this rule cannot handle; called at launch and update."""

    def enough(self, state: Any, setup: Setup) -> int:
        """How many distinct chunks must have reported anew before z is recomputed."""
        return self.min_fresh or 1

    def support(self, state: Any, penalty: Bound) -> np.ndarray | None:
        """The coordinates on which verifications ask for Hessians; None: all."""
        return None

    def floor(self, setup: Setup) -> float:
        """The gap, over F(null model), below which z is not expected to come, known before any push; 0: none."""
        return 0.0

    def certifies(self, penalty: Bound) -> bool:
        """Whether verifications can prove a gap under this penalty; else the estimate must do."""
        return True

    def slot_bytes(self, p: int) -> int:
        """Bytes that the server keeps of one chunk."""
        sides = [[p if side == "p" else int(side) for side in shape] for shape in self.shapes.values()]
        return 8 * int(sum(np.prod(each) for each in sides))

    def plan(self, state: Any, slot: Fields | None, z: Array) -> Fields:
        """The slot fields that the next step on this chunk needs; called at every assignment."""
        return {}

    def fits(self, state: Any, old: Fields | None, payload: Fields) -> bool:
        """Whether a payload of the right fields is one that `absorb` can take: where "*" stands for a length, say."""
        return True

    def settled(self, state: Any, slot: Fields) -> bool:
        """Whether a further step on this chunk could not change its slot: it gets none then."""
        return False

    def too_far(self, state: Any, chunk: int, old: Fields | None) -> Absorbed:
        """A worker found no finite value at the z it pulled."""
        return Absorbed(state, old or {}, False)

    def adopt(self, state: Any, chunk: int, old: Fields | None, exact: Exact) -> Absorbed | None:
        """A verification's exact answer for one chunk; None where the rule has no use for it."""
        return None

    def adopted(self, state: Any, slots: dict[int, Fields], z: Array, hessian: Array) -> Any:
        """Every chunk's answer was given to `adopt`; ``hessian`` is their sum. May change ``slots``."""
        return state

    def judge(self, state: Any, model: Model) -> tuple[Any, Line | None]:
        """All chunks' exact answers at one z, which did not pass: search along a line instead?"""
        return state, None

    def rebuild(self, state: Any, slots: Mapping[int, Fields], z: Array) -> Any:
        """Running sums anew from the slots, against drift."""
        return state

    def recount(self, state: Any, setup: Setup, slots: dict[int, Fields], z: Array) -> Any:
        """Chunks came or went on a live run: ``setup`` is of those there are, ``slots`` of those that answered.

        May change ``slots``. The default begins anew and absorbs the slots as they are.
        """
        state = self.init(setup)
        for chunk, slot in slots.items():
            state = self.absorb(state, chunk, None, slot).state
        return state

    def update(self, state: Any, old: Consensus, slots: dict[int, Fields], z: Array) -> Any:
        """This rule takes over from ``old`` settings on a live run; may change ``slots``."""
        return state

    def tuned(self, state: Any, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> tuple[Consensus, Any]:
        """(settings that suit better than these, state), about once a sweep; new ones are then put to `update`."""
        return self, state

    def residuals(self, state: Any, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> Residuals:
        """How far z is, in units of the objective; nan: only stalls and limits end the run."""
        return Residuals(float("nan"))

    def objective(self, slots: Mapping[int, Fields], penalty: Bound, z: Array) -> float:
        """An estimate of F(z) from what the chunks last pushed."""
        return float(sum(slot.get("f", np.nan) for slot in slots.values())) + penalty.value(z)

    def kept(self, slot: Fields) -> Kept | None:
        """The slot's true Hessian, if it has one: spares a verification making another near by."""
        return None

    def local(self, slot: Fields) -> Array:
        """x_i of a slot."""
        return np.asarray(slot["x"])

    def dual(self, slot: Fields) -> Array:
        """The unscaled dual y_i of a slot; Σ y_i ∈ ∂R(z) at the optimum."""
        return np.asarray(slot["y"])

    def is_delta(self, payload: Fields) -> bool:
        """Whether a payload needs the slot it was computed from."""
        return not self.optional <= payload.keys()


def check(payload: Fields, shapes: Mapping[str, tuple[str | int, ...]], optional: frozenset[str], p: int) -> str | None:
    """What is wrong with a payload: None, "shape" or "finite"."""
    if not shapes.keys() - optional <= payload.keys() <= shapes.keys():
        return "shape"
    for name, value in payload.items():
        array, want = np.asarray(value), shapes[name]
        fits = array.ndim == len(want) and all(map(_fits, want, array.shape, [p] * len(want)))
        if not fits or array.dtype != np.float64:
            return "shape"
        if not np.isfinite(array).all():
            return "finite"
    return None


def _fits(side: str | int, size: int, p: int) -> bool:
    return side == "*" or size == (p if side == "p" else side)
