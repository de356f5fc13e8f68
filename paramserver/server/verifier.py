"""From a frozen z to a certificate: gather, judge, search along a line where F rose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from paramserver.certificate import Model, damped, model_at, model_on, outside
from paramserver.consensus.base import Line
from paramserver.identify import running_away
from paramserver.messages import Array, Fields, Outcome, Push, Task
from paramserver.server.findings import free_of
from paramserver.server.gather import STEPS, Gather
from paramserver.server.hessians import Hessians
from paramserver.server.parameters import Parameters
from paramserver.server.stopping import Stopping
from paramserver.views import Verified

PERHAPS = 4.0  #: a gap that is only likely may turn out smaller by this when it is proven
LOOKS = 4  #: verifications in a row with a far Newton step: there is no finite optimum


@dataclass
class Verifier:
    """One verification at a time, for one run's parameters."""

    params: Parameters
    stopping: Stopping
    hessians: Hessians = field(init=False, repr=False)
    gather: Gather | None = None
    verified: Verified | None = None
    estimate: float = np.inf  #: the rule's, when the gather began
    _model: Model | None = field(default=None, repr=False)
    _reach: float = 0.0
    _drift: float = 0.0  #: of the rows' curvatures since the Hessians were made, relatively
    hessian: Array | None = field(default=None, repr=False)  #: exact, at the last z that was verified
    support: np.ndarray | None = field(default=None, repr=False)  #: the coordinates that it is of; None: all
    runaway: tuple[int, ...] = ()  #: coordinates that its Newton step moves far all the same
    _rest: Model | None = field(default=None, repr=False)  #: of the rows that are not separated
    _passed: bool = False  #: its gap was small enough
    _looks: int = 0  #: verifications in a row that saw some, moving on and on
    _moved: float = 0.0
    _stuck: bool = False  #: no point of the line search was lower: z is its anchor
    _damped: bool = False  #: nor, if that fails too, one along a shorter step
    _slope: tuple[Array, Array] | None = field(default=None, repr=False)  #: exact gradient and reach, at that z
    _asked: int = 0  #: gathers begun
    risen: bool = False  #: F was too high at the last z for it to be an answer
    _best: tuple[float, Array] | None = field(default=None, repr=False)  #: the least exact F, and its z
    last: bool = False  #: the run ends with the next one: its gap is proven however large
    _line: Line | None = field(default=None, repr=False)
    _searching: Line | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.hessians = Hessians(self.params)

    # -- asking ----------------------------------------------------------------------------------

    def begin(self, limit: float) -> None:
        """Freeze z and ask every chunk for exact value, gradient and Hessian."""
        support = self.params.support()
        self.ask(Task.VERIFY, self.params.z, {} if support is None else {"support": support}, limit)

    def ask(
        self, task: Task, z: Array | None, fields: Fields, limit: float, chunks: Iterable[int] | None = None
    ) -> Gather:
        """Put a question to these chunks; by default to every one that has rows."""
        self._asked += 1
        if task is Task.VERIFY:
            self.hessians.begin()
        pending = set(self.params.live if chunks is None else chunks)
        free = (
            int((~np.asarray(self.params.problem.penalised(len(z)), bool)).sum())
            if z is not None and task is Task.NULL
            else 0
        )
        self.gather = Gather(task, z, pending, limit, fields, number=self._asked, free=free)
        return self.gather

    def void(self) -> None:
        """The objective is another one: nothing that was found of the old one holds, and no question about it."""
        self.gather = self.verified = self.hessian = None
        self._model = self._rest = self._line = self._searching = None
        self.runaway, self._looks, self._moved, self.estimate = (), 0, 0.0, np.inf
        self._passed = self._stuck = self._damped = self.risen = False
        self._best = None
        self.hessians.void()

    def fields(self, chunk: int) -> Fields:
        """What a runner needs for this gather, beside z."""
        gather = self.gather
        assert gather is not None
        if gather.task is Task.VERIFY:
            return {**gather.fields, **self.hessians.question(gather, chunk)}
        return {**gather.fields, **self.hessians.dual(chunk)} if gather.task is Task.CONJUGATE else gather.fields

    # -- answers ---------------------------------------------------------------------------------

    def refusal(self, push: Push) -> Outcome | None:
        """Why an answer cannot be summed; None where it can."""
        gather = self.gather
        if gather is None or gather.task is not push.task or push.chunk not in gather.pending:
            return Outcome.LATE
        if push.seq != gather.number or push.version != self.params.version:
            return Outcome.LATE
        found = self._completed(gather, push)
        if found is None:
            return Outcome.NO_BASE
        p = 0 if self.params.setup is None else self.params.setup.p
        wrong = gather.wrong(found[0], p)
        return None if wrong is None else Outcome.SHAPE if wrong == "shape" else Outcome.NOT_FINITE

    def _completed(self, gather: Gather, push: Push) -> tuple[Fields, Array | None] | None:
        if push.task is not Task.VERIFY:
            return push.payload, None
        return self.hessians.completed(gather, push.chunk, push.payload)

    def take(self, push: Push) -> Outcome:
        """One chunk's answer to the gather, without a `refusal`."""
        gather = self.gather
        assert gather is not None
        found = self._completed(gather, push)
        assert found is not None
        answer, made_at = found
        gather.add(push.chunk, answer)
        if made_at is not None:
            self.hessians.settle(gather, push.chunk, made_at)
            if "without" not in gather.fields and np.isfinite(answer["f"]):
                self.params.adopt(push, answer["H"], made_at)
        return Outcome.ACCEPTED

    @property
    def complete(self) -> bool:
        """Whether every chunk has answered."""
        return self.gather is not None and not self.gather.pending

    # -- judging ---------------------------------------------------------------------------------

    def conclude(self, now: float, limit: float) -> str:
        """Act on a complete gather: "asking" on, "passed", "separated", "failed" or "stalled"."""
        gather = self.gather
        assert gather is not None
        assert gather.z is not None
        self.gather = None
        if gather.task is Task.LINE:
            return self._search(gather, now, limit)
        if gather.task is Task.CONJUGATE:
            return self._conjugate(gather, now, limit)
        if "without" in gather.fields:
            return self._judge_without(gather, limit)
        if not np.isfinite(gather.total["f"]):
            return self._judge_too_far(gather.z, now)
        model, stiff = self._model_of(gather), float(gather.total["drift"][0])
        bound = self.params.problem.fenchel_bound(stiff * model.bend, stiff * self._reach)  # type: ignore[attr-defined]
        likely = model.gap(model.bend if bound is None else float(bound))
        if self.support is None:
            if bound is not None:
                return self._judge(likely, now, limit)
            about = model.gap(model.bend / 2)
            if self._stuck or not self.hessians.borrowed or self.stopping.passes(about):
                return self._ask_proof({}, limit)
            return self._judge(about, now, limit, proven=False)
        if self.stopping.passes(likely) or self._stuck or not self.params.rule.adopts:
            return self._ask_proof({}, limit)
        return self._judge(likely, now, limit, proven=False)

    def _model_of(self, gather: Gather) -> Model:
        """The exact model at the frozen z, and what it says of coefficients that run away."""
        total, assumed = gather.total, self.params.bound
        self.support = support = gather.fields.get("support")
        at = (gather.z, float(total["f"]), total["g"], total["H"], assumed)
        self._model = model = model_at(*at) if support is None else model_on(support, *at)  # type: ignore[arg-type]
        self._reach = float(total["reach"] @ np.abs(model.step))
        self._drift = float(total["drift"][1])
        self._slope = total["g"], total["reach"]
        self.hessian = total["H"]
        self.params.adopted(total["H"])
        away = running_away(model.step, total["reach"], free_of(assumed))
        # Other rules take no Newton steps, and other losses have their minimum whatever the data: no evidence.
        self.runaway = away if self.params.rule.adopts and self._may_run_away else ()
        moved = float(np.abs(model.step[list(self.runaway)]).max(initial=0.0))
        steady = moved >= 0.7 * self._moved  # ordinary steps shrink near an optimum, and fast
        self._looks, self._moved = (self._looks + 1 if steady else 1) if self.runaway else 0, moved
        return model

    def _conjugate(self, gather: Gather, now: float, limit: float) -> str:
        """The Fenchel term is known, and where there is a support, v on all coordinates."""
        model, term, loss = self._model, float(gather.total["fenchel"]), float(gather.total["f"])
        assert model is not None
        if "without" in gather.fields:
            return self._judge_rest(term)
        off = 0.0
        if self.support is not None:
            off = outside(self.support, model.z, -gather.total["dual"], self.params.bound)  # off it, z⁺ is z
        if "move" in gather.fields:
            return self._judge_ahead(term + off, loss, now)
        gap = model.gap(term) + off
        if "then" not in gather.fields:
            return self._judge(gap, now, limit)
        self._prove(gap)
        return "passed" if self._passed else str(gather.fields["then"])

    def _ask_proof(self, fields: Fields, limit: float) -> str:
        """The Fenchel term at z, or at z + ``move``."""
        model, dual = self._model, {} if self.support is None else {"dual": True}
        assert model is not None
        self.ask(Task.CONJUGATE, model.z, {"step": model.step, **dual, **fields}, limit)
        return "asking"

    def _ask_ahead(self, model: Model, now: float, limit: float) -> str:
        """About z⁺: all anew, if that costs a gradient; else whether the dual found at z proves it."""
        if self.support is not None or not self.params.problem.bending:
            return self._ask_proof({"move": model.z_plus - model.z}, limit)
        self.params.jump(model.z_plus, now)
        self.begin(limit)
        return "asking"

    def _prove(self, gap: float) -> None:
        model = self._model
        assert model is not None
        self._certify(model.objective, gap, self.params.rule.certificate)
        self._passed = self.stopping.passes(gap)

    def _certify(self, objective: float, gap: float, kind: str) -> None:
        """Exact F of today's z, and a bound of what it is above F*."""
        assert self.params.z is not None
        if self._best is None or objective < self._best[0]:
            self._best = objective, self.params.z
        self.verified = Verified(self.params.version, objective, gap / self.stopping.scale, gap, kind)

    def _judge(self, gap: float, now: float, limit: float, proven: bool = True) -> str:
        """What to do about this gap; not ``proven``: about what it is, or coordinates off the support are left out."""
        model, stopping, borrowed = self._model, self.stopping, self.hessians.borrowed
        assert model is not None
        self.risen = self._is_risen(model.objective)
        if proven:
            self._prove(gap)
            if self._passed and not (self.runaway and self._can_do_without):
                return "passed"
        if self._looks >= LOOKS and not self._stuck and self._can_do_without:
            small = 0.1 * stopping.allowed() / max(self.params.survey[0], 1.0)
            self.ask(Task.VERIFY, model.z, {"without": (model.step, small)}, limit)
            return "asking"
        if self._stuck:
            return self._damp(limit)
        self.params.state, self._line = self.params.rule.judge(self.params.state, model)
        stalled = self._stalled(gap, model.objective)
        if stopping.worth(self._promise(gap)) and not stalled:
            return self._ask_ahead(model, now, limit)
        self.hessians.anew = borrowed and (stalled or not np.isfinite(gap))
        end = "stalled" if stalled and not borrowed else "failed"
        if proven or (end == "failed" and not self.last and not stopping.passes(gap / PERHAPS)):
            return end
        return self._ask_proof({"then": end}, limit)

    def _damp(self, limit: float) -> str:
        """Newton's step from this anchor led nowhere: search along a damped one before giving up."""
        model = self._model
        if self.support is not None or model is None or self.hessian is None or self._slope is None:
            return "stalled"
        step, decrease = damped(model, self._slope[0], self.hessian, self._slope[1], self.params.bound)
        self._line, self._damped = Line(model.z, step, model.objective, decrease), True
        return "asking" if self.search(limit) else "stalled"

    def _judge_too_far(self, z: Array, now: float) -> str:
        """F is infinite (it overflows): nothing is certified; back to the rule's anchor, or to the null model."""
        self.hessian, self.runaway, self._looks, self.risen = None, (), 0, True
        nowhere = Model(z, np.inf, np.inf, z, np.zeros_like(z), 0.0, np.inf, 0.0, 0.0)
        self.params.state, self._line = self.params.rule.judge(self.params.state, nowhere)
        if self._line is None:
            assert self.params.setup is not None
            self.params.jump(self.params.bound.project(self.params.setup.start.z), now)
        return "stalled" if self._stalled(np.inf, np.inf) else "failed"

    def _stalled(self, gap: float, objective: float) -> bool:
        """No progress any more, and no better z to go back to first."""
        stalled = self.stopping.failed(self.estimate, gap, objective, self.params.reports)
        return stalled and (self._line is None or objective <= self._line.objective)

    @property
    def _may_run_away(self) -> bool:
        problem = self.params.problem
        return problem.curved and not problem.quadratic

    @property
    def _can_do_without(self) -> bool:
        return self.support is None and callable(getattr(self.params.problem, "without", None))

    def _judge_without(self, gather: Gather, limit: float) -> str:
        """Rows that run away may have no finite dual: bound F* by the others', and charge theirs whole.

        If that passes, the step moves no row far that has a loss worth naming: they are separated.
        """
        total, model = gather.total, self._model
        assert model is not None
        rest = model_at(model.z, float(total["f"]), total["g"], total["H"], self.params.bound)
        self._rest = rest._replace(objective=model.objective, charge=model.loss - float(total["f"]))
        self.ask(Task.CONJUGATE, model.z, {**gather.fields, "step": rest.step}, limit)
        return "asking"

    def _judge_rest(self, fenchel: float) -> str:
        model, rest = self._model, self._rest
        assert model is not None
        assert rest is not None
        gap = rest.gap(fenchel) + max(rest.charge, 0.0)
        if not self._passed:
            self._certify(model.objective, gap, self.params.rule.certificate)
        if self.stopping.passes(gap):
            return "separated"
        if self._passed:
            return "passed"
        self.params.state, self._line = self.params.rule.judge(self.params.state, model)  # F may have risen here too
        return "stalled" if self._stalled(gap, model.objective) else "failed"

    def _judge_ahead(self, fenchel: float, loss: float, now: float) -> str:
        """z⁺ with the dual found at z: one light pass certifies a Newton step without another Hessian."""
        model = self._model
        assert model is not None
        self.params.jump(model.z_plus, now)
        gap = fenchel + model.charge
        self._certify(loss + self.params.bound.value(model.z_plus), gap, self.params.rule.certificate)
        return "passed" if self.stopping.passes(gap) and not self.runaway else "failed"

    def move(self, z: Array, objective: float, rounding: float, now: float) -> bool:
        """Publish this z, of exact F, where it is hardly higher than today's; what F rose is charged."""
        was = self.verified
        assert was is not None
        charge = max(objective - was.objective, 0.0)
        gap = was.gap_absolute + charge
        if not (charge <= max(1e-2 * was.gap_absolute, rounding * abs(objective)) or self.stopping.passes(gap)):
            return False
        self.params.jump(z, now)
        self._certify(objective, gap, was.certificate)
        return True

    @property
    def _start(self) -> float:
        """F of the null model; infinite where that is out of R's domain."""
        setup = self.params.setup
        assert setup is not None
        return setup.start.objective + self.params.bound.value(setup.start.z)

    def _is_risen(self, objective: float) -> bool:
        """Above the null model, or above the best by as much as that one's losses: where it is no start, say."""
        best = np.inf if self._best is None else self._best[0] + self.stopping.scale
        return objective > min(self._start * (1.0 + 1e-9), best)

    def retreat(self, now: float) -> str:
        """Publish the best z of which F is known, or the null model; what to say of that."""
        assert self.params.setup is not None
        start, version = self.params.setup.start, self.params.version.n
        was, z = "the null model", self.params.bound.project(start.z)
        if self._best is not None and self._best[0] < min(self._start, start.objective + self.stopping.scale):
            was, z = f"the best z that was verified, of F = {self._best[0]:.6g}", self._best[1]
        self.params.jump(z, now)
        return (
            f"diverged: by version {version} z was not finite, or F above the null model's; given is {was}: "
            'take shorter steps (rate=, rho=), or pass consensus="auto"'
        )

    def _promise(self, gap: float) -> float:
        """A Newton step's next gap: the curvatures are off by what they drifted, or by the reach on the way to z⁺."""
        if self._line is not None or not self.params.rule.adopts:
            return np.inf
        if self.params.problem.quadratic:
            return 0.0
        return gap * (2 * self._drift if self.hessians.borrowed else min(self._reach / 2, 1e9)) ** 2

    def search(self, limit: float) -> bool:
        """Go back to the anchor and search from there, if the rule asked for it."""
        line, self._line = self._line, None
        if line is None:
            return False
        self._searching = line
        self.ask(Task.LINE, line.z, {"step": line.step, "ts": STEPS}, limit)
        return True

    def _search(self, gather: Gather, now: float, limit: float) -> str:
        """The best step from the anchor becomes z; it is verified in turn."""
        line = self._searching
        assert line is not None
        points = [self.params.bound.project(line.z + t * line.step) for t in STEPS]  # a bound missed by rounding is met
        penalty = np.array([self.params.bound.value(point) for point in points])
        values = gather.total["values"] + penalty
        enough = values <= line.objective - 1e-4 * STEPS * line.decrease
        was_damped, self._damped = self._damped, False
        if was_damped and not enough.any():
            return "stalled"  # at the anchor, which is certified
        z = points[int(np.argmin(values))] if enough.any() else line.z
        self.params.jump(z, now)
        self._stuck = not enough.any()  # back at the anchor: certify it, and that is all there is
        self.begin(limit)
        return "asking"
