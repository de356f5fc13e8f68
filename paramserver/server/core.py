"""The server as plain Python: pushes in, assignments out, z in between.

No Dask, no I/O, no clock of its own (``now`` comes with every call, in seconds) and no locks: one
caller at a time. `refresh` may take long; everything else is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

import paramserver.messages as messages
from paramserver.errors import ChunkChanged, InvalidInput, RunFailed, StepFailed
from paramserver.messages import ELSEWHERE, Assignment, Failure, Outcome, Push, Reply, Stop, Task, Version, Wait
from paramserver.server import findings, gate
from paramserver.server.census import Census
from paramserver.server.changes import Changes
from paramserver.server.dispatch import Dispatch
from paramserver.server.inferring import Inferring
from paramserver.server.intake import Intake
from paramserver.server.least_norm import LeastNorm
from paramserver.server.parameters import Parameters
from paramserver.server.record import Record
from paramserver.server.resuming import Resumed
from paramserver.server.spec import RunSpec, check_memory
from paramserver.server.stopping import Stopping
from paramserver.server.timesheet import Timesheet
from paramserver.server.tracing import Tracer
from paramserver.server.verifier import Verifier
from paramserver.views import Residuals

LOG_EVERY = 0.02  #: seconds between uncertified entries of the history: each costs a pass over the slots
ENDS = {"passed": "converged", "separated": "separation", "stalled": "stalled"}  #: a verification's, and why it ends


class Core(Changes):
    """One run's server.

    Attributes
    ----------
    state : str
        "surveying", "running", "verifying", "converged" (and kept), "finished" or "failed".
    reason : str
        Why it ended, as in `Result.reason`.
    """

    def __init__(self, spec: RunSpec, epoch: int, now: float) -> None:
        self.spec, self.epoch, self.started = spec, epoch, now
        self.params = Parameters(spec, epoch, now)
        self.stopping = Stopping(spec.tol, superlinear=spec.rule.adopts)
        self.verifier = Verifier(self.params, self.stopping)
        self.inferring = Inferring(self.params, self.verifier)
        self.least_norm = LeastNorm(self.params, self.verifier)
        self.dispatch = Dispatch(self.params.slots, spec.patience)
        self.record = Record()
        self.intake = Intake(epoch, self.params, self.verifier, self.record)
        self.timesheet = Timesheet(tracer=Tracer() if spec.trace else None)
        self.state, self.reason = "surveying", ""
        self.error: Exception | None = None
        self.ending = ""  #: the reason for which the last verification is under way
        self.notes = findings.Notes()
        self.changes = 0  #: by users, to what is fitted and how
        self.resumed: Resumed | None = None  #: an earlier run's state, until the data are read
        self.census = Census(self.params, self.verifier, self.dispatch, self.notes)
        self.census.open()
        self.ended_at: float | None = None
        self.residuals = Residuals(float("nan"))
        self.objective = float("nan")
        self.memory_limit: int | None = None  #: of the server's worker, bytes
        self._looked_at = 0.0
        self._rest_until = np.inf  #: a verification gave up: the next one is not before
        self._logged_at = now

    # -- in --------------------------------------------------------------------------------------

    def came(self, runner: str, push: Push | Failure | None, now: float, looking: float = 0.0) -> None:
        """A runner's call is here: its clock, whatever becomes of its push. It looked for chunks for so long."""
        if not gate.sound(push):
            push = None  # `deliver` says what becomes of it
        self.timesheet.came(runner, push, now, looking)
        if isinstance(push, Push) and push.trouble != "busy" and not self.intake.is_gone(push.chunk):
            self.dispatch.pace.took(messages.worker_of(runner), push, self.params.slots[push.chunk].rows)

    def deliver(self, push: Push | Failure, now: float) -> Outcome:
        """Take a push; whatever becomes of it is counted."""
        if not gate.head(push):
            self.record.push(Outcome.MALFORMED)
            return Outcome.MALFORMED
        try:
            if isinstance(push, Failure):
                return self._failed(push, now)
            outcome = self.intake.take(push, now, self.over)
            self.timesheet.pushed(push.task, outcome, now)
            return outcome
        except ChunkChanged as error:
            if self.reset(push.chunk, push.fingerprint, now):
                self.record.push(Outcome.OTHER_DATA)
                return Outcome.OTHER_DATA
            self._chunk_failed(push.chunk, error, now)
        except RunFailed as error:
            self._chunk_failed(push.chunk, error, now)
        except Exception as error:  # a rule's absorb or adopt: the caller has other pushes to deliver
            self.fail(StepFailed.of(f"{type(self.params.rule).__name__}, absorbing chunk {push.chunk}", error), now)
        return Outcome.LATE

    def _failed(self, push: Failure, now: float) -> Outcome:
        """A step raised; where the data are others than they were, that is the news."""
        if not (self.over or self.intake.is_gone(push.chunk)) and self.intake.is_of_what_was(push):
            return Outcome.OTHER_DATA
        self._chunk_failed(push.chunk, push.error, now)
        return Outcome.ACCEPTED

    def replay(self, push: Push, now: float) -> Outcome:
        """Take what an earlier epoch's server may have had, or not."""
        if not (gate.head(push) and isinstance(push, Push)):
            return Outcome.MALFORMED
        if self.over or self.state == "surveying":
            return Outcome.LATE
        try:
            return self.intake.replay(push, now)
        except Exception as error:
            self.fail(StepFailed.of(f"{type(self.params.rule).__name__}, absorbing chunk {push.chunk}", error), now)
        return Outcome.LATE

    def _chunk_failed(self, chunk: int, error: Exception, now: float) -> None:
        """A run under way ends with a chunk that counts; a newcomer is refused, and one that left cannot harm.

        What was certified stands: where only inference fails, the run ends as it would have without it.
        """
        if self.inferring.under_way and not self.intake.is_gone(chunk):
            return self.give_up_inferring(str(error), now)
        if not self.over and not self.refuse(chunk, str(error)) and not self.intake.is_gone(chunk):
            self.fail(error, now)

    def give_up_inferring(self, why: str, now: float) -> None:
        """End with what was certified, and a note on what is missing."""
        self.notes.say(self.inferring.give_up(why))
        self._finish(self.inferring.reason, now)

    # -- between ---------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Nothing more will happen, unless a kept run is updated."""
        return self.state in ("converged", "finished", "failed")

    @property
    def due(self) -> bool:
        """Whether `refresh` has something to do."""
        if self.over:
            return False
        gather = self.verifier.gather
        return self.verifier.complete if gather is not None else self.params.due

    def refresh(self, now: float) -> None:
        """A new z, or the next stage of a verification. O(p³): the heavy part."""
        if not self.due:
            return
        try:
            if self.state == "surveying":
                self._begin(now)
            elif self.verifier.gather is not None:
                asker = next((one for one in (self.inferring, self.least_norm) if one.under_way), self.verifier)
                self._concluded(asker.conclude(now, self._limit(now)), now)
            else:
                self._new_z(now)
        except RunFailed as error:
            self.fail(error, now)
        except InvalidInput as error:  # settings that do not fit the data, which are known only now
            self.fail(RunFailed(str(error)), now)
        except Exception as error:
            self.fail(StepFailed.of(f"{type(self.params.rule).__name__} on the server", error), now)

    def _begin(self, now: float) -> None:
        """Surveyed, and the null model is settled: go, or go on with the chunks there are now."""
        start = self.census.settle()
        if start is None:
            return
        again = self.params.setup is not None and self.params.rule.adopts and self.params.certifiable
        if self.params.setup is None:
            self.params.begin(start, now)
            self._fits(len(start.z), len(self.params.live))
            if self.resumed is not None:
                self.notes.say(self.resumed.enter(self.params, now))
                self.resumed = None
            self.notes.say(self.params.chosen)
            self._say_floor()
            self.stopping.superlinear = self.params.rule.adopts
        else:
            self.params.recount(start)
        self.stopping.scale = self.spec.scale(start.objective)
        self.state, self._looked_at = "running", -np.inf
        self.timesheet.stages["null model"] = now
        self._log(now)
        if self.ending or again:  # models of what there was may lead anywhere: an anchor first
            self._verify(now)

    def _fits(self, p: int, n_chunks: int) -> None:
        check_memory(self.params.rule, p, n_chunks, self.memory_limit)

    def _new_z(self, now: float) -> None:
        if not self.params.recompute(now):
            return self._diverged(now)
        estimate = self._look(now)
        if self.state != "running" or estimate is None:
            return
        if not self.params.certifiable:
            if self.stopping.settled(self.residuals, self.spec.measured):
                self._finish("converged", now)
        elif self._rest_until == np.inf and (self._lost or self.stopping.due(estimate, self.params.reports)):
            self._verify(now)

    @property
    def _lost(self) -> bool:
        """Chunks without a model only say that z is too far, and nothing but a verification leads back."""
        return self.params.far > len(self.params.live)

    def _look(self, now: float) -> float | None:
        """The estimate, every few pushes: it costs a pass over the slots. Always where no other push is to come."""
        every = 1.0 / 8
        if self.params.reports - self._looked_at < every and not self.params.idle:
            return None
        self._looked_at = self.params.reports
        self.residuals = self.params.residuals()
        self.verifier.estimate = self.residuals.estimate
        if now - self._logged_at >= LOG_EVERY:
            self._log(now)
        return self.residuals.estimate

    def _verify(self, now: float) -> None:
        self.state, self.params.far = "verifying", 0
        self.verifier.begin(self._limit(now))
        self.dispatch.asked_at = now

    def _concluded(self, how: str, now: float) -> None:
        self.dispatch.asked_at = now
        if how == "asking":
            return
        if how == "settled":
            return self._settled(now)
        if how == "inferred":
            return self._finish(self.inferring.reason, now)
        self._log(now, certified=True)
        if self.ending:
            self._conclude(self.ending, now)
        elif how == "stalled" and self.verifier.risen:
            self._diverged(now)
        elif how in ENDS:
            self._conclude(ENDS[how], now)
        elif not self.verifier.search(self._limit(now)):
            self._thaw()

    def _diverged(self, now: float) -> None:
        """z is not finite, or stays where F is above the null model's: end at the best there was."""
        self._log(now)
        self.notes.say(self.verifier.retreat(now))
        self._thaw()
        self.end("diverged", now)

    def _conclude(self, reason: str, now: float) -> None:
        """End with exact values at hand: of all optima give the one of least norm."""
        if not self.least_norm.begin(reason, self._limit(now)):
            self._settled(now)

    def _settled(self, now: float) -> None:
        """This z it is: say what it leaves open, and ask what a summary needs."""
        reason, found, names = self.least_norm.reason, self.least_norm.found, self.spec.feature_names
        if reason == "separation":
            self.notes.find(findings.separation(self.params, self.verifier.runaway, names))
        for text in () if found is None else findings.notes(self.params, found, names, self.least_norm.fits):
            self.notes.find(text)
        if not self.inferring.begin(reason, self._limit(now)):
            self._finish(reason, now)

    def _thaw(self) -> None:
        self.state = "running"
        self.verifier.gather = None
        self._looked_at = -np.inf  # look at the very next z: settled chunks may bring no other
        if self.params.rule.adopts:
            self.params.renewed()

    def _limit(self, now: float) -> float:
        slowest = max((t for slot in self.params.slots for t in slot.times.values()), default=0.0)
        return now + max(self.spec.silence, 5.0 * slowest)

    # -- out -------------------------------------------------------------------------------------

    def assign(self, runner: str, have: Version | None, now: float) -> Reply:
        """What this runner does next. ``runner`` is "worker#k"."""
        if type(runner) is not str:
            raise InvalidInput(f'a runner must be called "worker#k", got {runner!r:.80}')
        have = have if type(have) is Version else None
        if self.state in ("finished", "failed"):
            return Stop(self.reason)
        if self.state == "converged":
            return Wait()
        gather = self.verifier.gather
        task = Task.SOLVE if gather is None else gather.task
        chunk, fetch = self.dispatch.choose(messages.worker_of(runner), task, self._wanted(), now)
        if chunk is None:
            return Wait(fetch)
        try:
            return self._assignment(chunk, task, fetch, runner, have, now)
        except Exception as error:
            self.fail(StepFailed.of(f"{type(self.params.rule).__name__}, planning chunk {chunk}", error), now)
            return Stop(self.reason)

    def _assignment(
        self, chunk: int, task: Task, fetch: int | None, runner: str, have: Version | None, now: float
    ) -> Assignment:
        gather = self.verifier.gather
        self.dispatch.lease(chunk, runner, task, self.params.version, now)
        slot = self.params.slots[chunk]
        if gather is not None:
            fields, z = self.verifier.fields(chunk), gather.z
        else:
            assert self.params.z is not None
            fields, z = self.params.rule.plan(self.params.state, slot.fields, self.params.z), self.params.z
        if have == self.params.version and task not in ELSEWHERE:
            z = None
        setup = (self.params.problem, self.params.rule) if have is None and task is not Task.SURVEY else None
        whole = slot.fields is None or chunk in self.intake.need_whole
        seq = slot.seq + 1 if gather is None else gather.number
        return Assignment(chunk, seq, task, self.params.version, z, fields, whole, fetch, setup, edition=slot.edition)

    def _wanted(self) -> Iterable[int]:
        """Chunks from which an answer would be new."""
        gather = self.verifier.gather
        return self.params.wanted() if gather is None else gather.pending

    # -- time, limits, ends ----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the limits; call a few times a second."""
        gather = self.verifier.gather
        if self.over:
            return
        if gather is not None and now > gather.limit:
            if self.state == "surveying" and not self.ending:
                return self.census.end_roll()
            if self.inferring.under_way:
                return self.give_up_inferring("", now)
            if self.least_norm.under_way:
                return self._settled(now)
            self.notes.append(f"verification gave up after waiting for chunks {sorted(gather.pending)[:10]}")
            self._thaw()
            self._rest_until = now + self.spec.silence
            if self.ending:
                self._finish(self.ending, now)
            return
        if gather is None and now > self._rest_until < np.inf:
            self._rest_until = np.inf
            self._verify(now)
            return
        spec = self.spec
        if spec.max_seconds is not None and now - self.started >= spec.max_seconds:
            self.end("max_seconds", now)
        elif spec.max_pushes is not None and self.record.pushes >= spec.max_pushes:
            self.end("max_pushes", now)

    def end(self, reason: str, now: float, verify: bool = True) -> None:
        """End the run, with a certificate for the last z if there is one to be had."""
        if self.over and self.state != "converged":
            return
        kept, unread = self.state == "converged", self.params.setup is None
        if kept or unread or not (verify and self.params.certifiable):
            self._finish(self.reason if kept else reason, now, last=True)
        elif not self.ending:
            self.ending, self.verifier.last = reason, True
            if self.state == "surveying":
                self.census.close(f"not read when the run ended ({reason})", self._limit(now))
                self.census.open()
            elif self.state != "verifying":
                self._verify(now)

    def _finish(self, reason: str, now: float, last: bool = False) -> None:
        self.verifier.gather = None
        self.reason, self.ended_at, self.ending, self.verifier.last = reason, now, "", False
        kept = self.spec.keep and reason in ("converged", "separation") and not last
        self.state = "converged" if kept else "finished"

    def fail(self, error: Exception, now: float) -> None:
        """End the run with an error."""
        if self.state not in ("finished", "failed"):
            self.verifier.gather = None
            self.state, self.reason, self.error, self.ended_at = "failed", str(error), error, now

    def _log(self, now: float, certified: bool = False) -> None:
        self._logged_at = now
        verified = self.verifier.verified if certified else None
        if verified is not None and verified.version != self.params.version:
            verified = None  # F is infinite at today's z
        elif verified is not None:
            self.timesheet.stages["certificate"] = now
        self.objective = self.params.objective() if verified is None else verified.objective
        gap = np.nan if verified is None else verified.gap_absolute
        counts = (now - self.started, float(self.params.version.n), float(self.record.pushes))
        self.record.version((*counts, self.objective, self.residuals.estimate, gap), certified)
