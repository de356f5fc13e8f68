"""z and the slots: what the rule makes of the pushes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from paramserver.consensus import Auto
from paramserver.consensus.base import Absorbed, Consensus, Exact, Setup, check
from paramserver.errors import BadData, InvalidInput
from paramserver.messages import Array, Fields, Outcome, Push, Version
from paramserver.penalties import Bound, Penalty
from paramserver.server.null import NullModel
from paramserver.server.slots import Slot
from paramserver.server.spec import RunSpec, check_z0
from paramserver.views import Residuals
from paramserver.workers.problems.base import Start

ALIKE = 0.02  #: relative difference of null objectives per row
REBUILD = 200  #: pushes between rebuilds of the running sums, against drift


class Published(NamedTuple):
    """One version of z, whole: a reader in another thread sees all of it or the one before."""

    version: Version
    z: Array | None  #: (p,), read-only; None before every chunk was surveyed
    made_at: float


class Parameters:
    """The consensus z, its version, and one slot a chunk.

    z is replaced, never changed in place, and read-only: whoever holds one holds one version's.
    """

    def __init__(self, spec: RunSpec, epoch: int, now: float) -> None:
        self.spec, self.rule = spec, spec.rule
        self.problem = spec.problem  #: in the data's units, once they were surveyed
        self.survey: Array  #: of all chunks together
        self.bound_by: Array  #: the survey that the problem was bound by, at the start
        self.slots = [Slot(served=now) for _ in range(spec.n_chunks)]
        self.published = Published(Version(epoch, 0), None, now)
        self.fresh: set[int] = set()  #: chunks that reported since z was made
        self.reports = 0.0
        self.far = 0  #: answers in a row that z is too far, of chunks that have no model to hold it back
        self.setup: Setup | None = None
        self.chosen = ""  #: which rule, and why, where that was left open and is not the usual one
        self.bound: Bound
        self.state: Any = None
        self._since_rebuild = 0
        self._tuned_at = 0.0  #: reports, when the rule was last asked for better settings
        self._live: list[int] = []
        self._whole = False  #: every chunk has reported
        self._seen: tuple[set[int], Array | None] = set(), None  #: those that had, last time, and their survey

    # -- begin -----------------------------------------------------------------------------------

    def surveyed(self) -> NullModel:
        """Every chunk was surveyed: bind the problem to the data, and begin with the null model."""
        sizes = {int(s.survey[1]): i for i, s in enumerate(self.slots) if s.survey is not None and not s.empty}
        if not sizes:
            raise BadData("every chunk is empty: there are no rows to fit")
        if len(sizes) > 1:
            (p, a), (q, b) = list(sizes.items())[:2]
            raise BadData(f"chunks {a} and {b} differ in their number of columns: {p} and {q}")
        self._live = self._with_rows()
        self.survey = self.merged(self._live)
        if self.setup is None:
            self.bind_problem(self.survey)
        return NullModel.of(self.problem, self.problem.start(self.survey))

    def bind_problem(self, survey: Array) -> None:
        """The problem in the data's units; z keeps them while the run lives."""
        self.bound_by, self.problem = survey, self.spec.problem.at(survey)

    def begin(self, start: Start, now: float) -> None:
        """The null model is known: publish z0."""
        spec, p = self.spec, len(start.z)
        self._live = self._with_rows()
        z = start.z
        if spec.z0 is not None:
            check_z0(spec.z0, p)
            z = self.problem.inward(np.asarray(spec.z0, float))
        bound = self._bound(spec.penalty, p)
        setup = Setup(p, len(self.live), int(self.survey[0]), start, self.problem.quadratic, bound, bound.project(z))
        if isinstance(self.rule, Auto):
            self.rule, why = self.rule.choose(setup, self.problem)
            self.chosen = f"consensus: {type(self.rule).__name__}, because {why}" if why else ""
        self.rule.suits(bound)
        self.setup, self.bound = setup, bound
        self.state = self.rule.init(setup)
        if not np.isfinite(bound.value(start.z)):  # bounds without 0: the null model is no anchor
            self.state = self.rule.update(self.state, self.rule, {}, start.z)
        self._publish(setup.z, now, self.version)

    def merged(self, chunks: Iterable[int]) -> Array:
        """The surveys of these chunks as one."""
        surveys = (survey for i in chunks if (survey := self.slots[i].survey) is not None)
        return reduce(self.problem.merge, surveys)

    # -- chunks that come and go -----------------------------------------------------------------

    def forget(self, chunk: int) -> None:
        """This chunk is no more; its number stays taken."""
        old = self.slots[chunk]
        self.slots[chunk] = Slot(seq=old.seq, pushes=old.pushes, gone=True)
        self.fresh.discard(chunk)
        self._live = [i for i in self._live if i != chunk]

    def renew(self, chunk: int, fingerprint: tuple[float, ...] | None, now: float) -> None:
        """This chunk has other data: its slot begins anew."""
        old = self.slots[chunk]
        # A push under way for the old data carries the next sequence number: that one is used up.
        self.slots[chunk] = Slot(
            old.seq + 1, fingerprint=fingerprint, edition=old.edition + 1, pushes=old.pushes, served=now
        )
        self.fresh.discard(chunk)

    def recount(self, start: Start) -> None:
        """Other chunks than before were `surveyed`; z stays where it is."""
        assert self.setup is not None
        assert self.z is not None
        quadratic = self.setup.quadratic
        self.setup = Setup(len(self.z), len(self.live), int(self.survey[0]), start, quadratic, self.bound, self.z)
        slots = self.fields()
        self.state = self.rule.recount(self.state, self.setup, slots, self.z)
        for i, fields in slots.items():
            self.slots[i].fields = fields
        self.fresh, self._whole, self._since_rebuild, self._seen = set(slots), False, 0, (set(), None)

    def bind(self, penalty: Penalty) -> None:
        """Use this penalty from now on."""
        assert self.setup is not None
        self.bound = self._bound(penalty, self.setup.p)

    def _bound(self, penalty: Penalty, p: int) -> Bound:
        bound = Bound(penalty, np.asarray(self.problem.penalised(p), bool))
        bound.penalty.check_columns(int(self.survey[1]), int(bound.mask.sum()))  # now, not at the first step
        bound.terms()
        return bound

    @property
    def z(self) -> Array | None:
        """Today's z."""
        return self.published.z

    @property
    def version(self) -> Version:
        """Today's version."""
        return self.published.version

    @property
    def live(self) -> list[int]:
        """Chunks that have rows, as far as is known."""
        if self.setup is None:
            return self._with_rows()
        return self._live

    def _with_rows(self) -> list[int]:
        return [i for i, slot in enumerate(self.slots) if not (slot.empty or slot.gone)]

    # -- pushes ----------------------------------------------------------------------------------

    def refusal(self, push: Push) -> Outcome | None:
        """Why a local answer in turn cannot be absorbed; None where it can."""
        if self.setup is None:
            return Outcome.LATE
        if push.trouble == "too_far":
            return None
        slot = self.slots[push.chunk]
        wrong = check(push.payload, self.rule.shapes, self.rule.optional, self.setup.p)
        if wrong is not None:
            return Outcome.SHAPE if wrong == "shape" else Outcome.NOT_FINITE
        if self.rule.is_delta(push.payload) and (slot.fields is None or push.base != slot.seq):
            return Outcome.NO_BASE
        return None if self.rule.fits(self.state, slot.fields, push.payload) else Outcome.SHAPE

    def absorb(self, push: Push) -> Outcome:
        """One local answer, in turn and without a `refusal`."""
        slot = self.slots[push.chunk]
        if push.trouble == "too_far":
            self.far += slot.fields is None
            self._take(push, self.rule.too_far(self.state, push.chunk, slot.fields))
            return Outcome.TOO_FAR
        self.far = 0 if slot.fields is None else self.far
        new = {**push.payload, "rows": float(slot.rows)}
        absorbed = self.rule.absorb(self.state, push.chunk, slot.fields, new)
        self._take(push, absorbed)
        return Outcome.ACCEPTED if absorbed.accepted else Outcome.TOO_FAR

    def adopt(self, push: Push, hessian: Array, made_at: Array) -> None:
        """A verification's exact answer, at today's z."""
        slot = self.slots[push.chunk]
        assert self.z is not None
        if push.version != self.version:
            return
        exact = Exact(self.z, float(push.payload["f"]), push.payload["g"], hessian, float(slot.rows), made_at)
        old = slot.fields
        absorbed = self.rule.adopt(self.state, push.chunk, old, exact)
        if absorbed is not None:
            self._take(push, absorbed)

    def _take(self, push: Push, absorbed: Absorbed) -> None:
        slot = self.slots[push.chunk]
        self.state = absorbed.state
        if absorbed.slot:
            slot.fields = {"rows": float(slot.rows), **absorbed.slot}
        if absorbed.accepted:
            slot.version = push.version
        slot.seq += 1
        self.fresh.add(push.chunk)
        self.reports += 1.0 / max(len(self.live), 1)
        self._since_rebuild += 1

    def adopted(self, hessian: Array) -> None:
        """Every chunk's exact answer at today's z was put to `adopt`."""
        assert self.z is not None
        slots = self.fields()
        if len(slots) == len(self.live):
            self.state = self.rule.adopted(self.state, slots, self.z, hessian)
            for i, fields in slots.items():
                self.slots[i].fields = fields

    def renewed(self) -> None:
        """A verification's exact answers replaced the slots: sums anew, and a z from all of them."""
        self._since_rebuild = REBUILD + 2 * len(self.slots)
        self.fresh.update(self.fields())

    # -- z ---------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether enough distinct chunks reported for a new z: min_fresh, or all that had news."""
        if not self.fresh or self.setup is None:
            return False
        if len(self.fresh) < self.rule.enough(self.state, self.setup) and not self.idle:
            return False
        return self._representative() and not self.overdue()

    def _representative(self) -> bool:
        """In the first sweep: whether the chunks that reported look like the whole, by their null models.

        The first chunks of sorted data do not: a z made from them alone leads the others astray.
        """
        if self._whole:
            return True
        seen = list(self.fields())
        # Chunks under lease may never answer: z does not wait for those.
        self._whole = len(seen) >= len(self.live) or not any(self.slots[i].lease is None for i in self._wanted())
        if self._whole or not seen:
            return True
        assert self.setup is not None
        null = self.setup.start.objective / self.setup.rows
        try:
            survey = self._survey_of(seen)
            part = self.problem.start(survey)
        except BadData:  # of one class, say
            return False
        return bool(abs(part.objective / int(survey[0]) - null) <= ALIKE * abs(null))

    def _survey_of(self, seen: list[int]) -> Array:
        """Merged, from where it was left the last time: a push adds one chunk, of thousands maybe."""
        done, survey = self._seen
        if survey is None or not done <= set(seen):
            self._seen = set(seen), self.merged(seen)
        elif new := [i for i in seen if i not in done]:
            self._seen = set(seen), self.problem.merge(survey, self.merged(new))
        assert self._seen[1] is not None
        return self._seen[1]

    def wanted(self) -> list[int]:
        """Chunks whose next local step would be news: not those that answered at this version."""
        return list(self._wanted())

    @property
    def idle(self) -> bool:
        """Nothing is wanted: every chunk has answered at this version, or is settled."""
        return next(self._wanted(), None) is None

    def _wanted(self) -> Iterator[int]:
        return (i for i in self.live if i not in self.fresh and self._has_news(self.slots[i]))

    def _has_news(self, slot: Slot) -> bool:
        if slot.version == self.version:
            return False
        return slot.fields is None or not self.rule.settled(self.state, slot.fields)

    def overdue(self) -> tuple[int, ...]:
        """Chunks that hold z still: their last pull is max_staleness versions back."""
        limit = self.rule.max_staleness
        if limit is None:
            return ()
        pulled = {i: 0 if (v := self.slots[i].version) is None else v.n for i in self.live}
        late = (i for i, n in pulled.items() if self.version.n - n >= limit and i not in self.fresh)
        return tuple(i for i in late if self._has_news(self.slots[i]))

    def recompute(self, now: float) -> bool:
        """The rule's new z, from all that was absorbed; False where that is not finite, and the last one stays."""
        assert self.z is not None
        if self._since_rebuild >= max(REBUILD, 2 * len(self.slots)):
            self.state = self.rule.rebuild(self.state, self.fields(), self.z)
            self._since_rebuild = 0
        self._tune(now)
        with np.errstate(over="ignore", invalid="ignore"):
            z, self.state = self.rule.consensus(self.state, self.bound, self.z)
        if not np.isfinite(z).all():
            return False
        self.jump(z, now)
        return True

    def _tune(self, now: float) -> None:
        """The rule's own change of its settings, at most once a sweep of all chunks."""
        if self.reports - self._tuned_at < 1.0:
            return
        slots, self._tuned_at = self.fields(), self.reports
        if self.z is None or len(slots) < len(self.live):
            return
        rule, self.state = self.rule.tuned(self.state, slots, self.bound, self.z)
        if rule is not self.rule:
            self.update(None, rule, now)

    def jump(self, z: Array, now: float) -> None:
        """Publish this z as the next version."""
        self.fresh.clear()
        self._publish(z, now, self.version._replace(n=self.version.n + 1))

    def _publish(self, z: Array, now: float, version: Version) -> None:
        z = np.array(z, dtype=np.float64)
        z.setflags(write=False)
        self.published = Published(version, z, now)

    def update(self, penalty: Penalty | None, rule: Consensus, now: float) -> None:
        """New settings on a live run."""
        assert self.z is not None
        bound = self.bound if penalty is None else self._bound(penalty, len(self.z))
        if penalty is not None:  # these first: they may refuse
            rule.suits(bound)
        slots = self.fields()
        self.state = rule.update(self.state, self.rule, slots, self.z)
        self.rule, self.bound = rule, bound
        if penalty is not None and not np.isfinite(bound.value(self.z)):
            self.jump(bound.project(self.z), now)
        for i, fields in slots.items():
            self.slots[i].fields = fields
        self.fresh.update(self.live)

    def support(self) -> np.ndarray | None:
        """The coordinates on which a verification asks for Hessians; None: all."""
        return None if self.state is None else self.rule.support(self.state, self.bound)

    @property
    def certifiable(self) -> bool:
        """Whether a gap can be proved: the problem offers what that takes, and the rule can."""
        return self.spec.certifiable and (self.setup is None or self.rule.certifies(self.bound))

    # -- reads -----------------------------------------------------------------------------------

    def fields(self) -> dict[int, Fields]:
        """The slots' fields, of chunks that have reported."""
        return {i: slot.fields for i, slot in enumerate(self.slots) if slot.fields is not None}

    def residuals(self) -> Residuals:
        """The rule's residuals at today's z."""
        if self.z is None or self.state is None:
            return Residuals(float("nan"))
        with np.errstate(over="ignore", invalid="ignore"):  # of a run that diverges
            out = self.rule.residuals(self.state, self.fields(), self.bound, self.z)
        return Residuals(*(float(v) for v in out))

    def objective(self) -> float:
        """The rule's estimate of F at today's z; nan until every chunk has reported."""
        fields = self.fields()
        if self.z is None or len(fields) < len(self.live):
            return float("nan")
        if self.setup is not None and np.isnan(self.setup.start.objective):  # of a problem without values
            return float("nan")
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.rule.objective(fields, self.bound, self.z))


def with_settings(rule: Consensus, changes: dict[str, Any]) -> Consensus:
    """The rule with some settings changed; `InvalidInput` names those that it has."""
    unknown = [name for name in changes if name not in rule.__dataclass_fields__]
    if unknown:
        has = ", ".join(sorted(rule.__dataclass_fields__))
        raise InvalidInput(f"{type(rule).__name__} has no setting {unknown[0]!r}; it has {has}")
    return replace(rule, **changes)
