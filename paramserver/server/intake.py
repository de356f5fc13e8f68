"""What becomes of a push: accepted, or refused and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from paramserver.errors import ChunkChanged, StepFailed
from paramserver.messages import Failure, Outcome, Push, Task
from paramserver.server import gate
from paramserver.server.parameters import Parameters
from paramserver.server.record import Record
from paramserver.server.slots import Lease
from paramserver.server.verifier import Verifier

WHOLE = (Outcome.NO_BASE, Outcome.SHAPE, Outcome.NOT_FINITE)
MAX_REFUSED = 5  #: unusable answers in a row from one chunk before the run gives up


@dataclass
class Intake:
    """Every push comes through here; `need_whole` are the chunks of which a delta will not do."""

    epoch: int
    params: Parameters
    verifier: Verifier
    record: Record
    need_whole: set[int] = field(default_factory=set)
    _refused_in_a_row: dict[int, int] = field(default_factory=dict)

    def take(self, push: Push, now: float, over: bool) -> Outcome:
        """Raises `RunFailed` where the run cannot go on with this chunk."""
        outcome = self._outcome(push, now, over)
        if push.trouble != "busy":
            self.record.push(outcome)
        if outcome in WHOLE:
            self._refuse(push, outcome)
        return outcome

    def replay(self, push: Push, now: float) -> Outcome:
        """A push that went to a server before this one, whose state may be older: taken where its slot lacks it."""
        outcome = self._replayed(push)
        if outcome is Outcome.ACCEPTED:
            slot = self.params.slots[push.chunk]
            slot.seq, slot.served, slot.pushes = push.seq, now, slot.pushes + 1
            self.record.replayed += 1
            self.record.push(outcome)
        return outcome

    def _replayed(self, push: Push) -> Outcome:
        if self.is_gone(push.chunk):
            return Outcome.UNKNOWN_CHUNK
        slot, rule = self.params.slots[push.chunk], self.params.rule
        if push.task is not Task.SOLVE or push.trouble is not None or self.params.setup is None:
            return Outcome.LATE
        plain = gate.body(push)
        if plain is None:
            return Outcome.MALFORMED
        if not _same(slot.fingerprint, push.fingerprint):
            return Outcome.OTHER_DATA  # of data that were, or whose change the state does not know of yet
        if slot.fields is not None and push.seq <= slot.seq:
            return Outcome.LATE
        if not rule.replays and (slot.fields is None or push.seq != slot.seq + 1):
            return Outcome.LATE  # of a state that this rule no longer has
        if push.seq > gate.FAR or push.version.epoch > self.epoch or self._ahead(push):
            return Outcome.MALFORMED
        return self.params.refusal(plain) or self.params.absorb(plain)

    def _ahead(self, push: Push) -> bool:
        """Computed with a z that there is not yet."""
        return push.version.epoch == self.epoch and push.version.n > self.params.version.n

    def is_gone(self, chunk: int) -> bool:
        """Whether there is no such chunk (any more)."""
        return not 0 <= chunk < len(self.params.slots) or self.params.slots[chunk].gone

    def _outcome(self, push: Push, now: float, over: bool) -> Outcome:
        if self.is_gone(push.chunk):
            return Outcome.UNKNOWN_CHUNK
        if push.version.epoch != self.epoch:
            return Outcome.STALE_EPOCH
        if self._ahead(push):
            return Outcome.MALFORMED
        slot = self.params.slots[push.chunk]
        in_turn = push.seq == slot.seq + 1 or push.task is not Task.SOLVE
        if not in_turn or over:
            return Outcome.LATE
        if push.trouble == "busy":
            slot.lease = None
            return Outcome.LATE
        plain = gate.body(push)
        outcome = Outcome.SHAPE if plain is None else self._judge(plain)
        lease = slot.lease
        if outcome is not Outcome.LATE:
            slot.lease = None
        if plain is not None and outcome in (Outcome.ACCEPTED, Outcome.TOO_FAR):
            self._taken(plain, lease, now)
        return outcome

    def _judge(self, push: Push) -> Outcome:
        """What becomes of a push in turn; nothing changes unless it is taken."""
        if self.is_of_what_was(push):
            return Outcome.OTHER_DATA  # before its shapes are looked at: other data may have others
        asked = self.params if push.task is Task.SOLVE else self.verifier
        refusal = asked.refusal(push)
        if refusal is not None:
            return refusal
        slot = self.params.slots[push.chunk]
        slot.fingerprint = push.fingerprint if slot.fingerprint is None else slot.fingerprint
        outcome = self.params.absorb(push) if push.task is Task.SOLVE else self.verifier.take(push)
        if push.task is Task.SURVEY:
            slot.survey = np.asarray(push.payload["survey"])
        return outcome

    def _taken(self, push: Push, lease: Lease | None, now: float) -> None:
        slot = self.params.slots[push.chunk]
        slot.served, slot.pushes = now, slot.pushes + 1
        slot.took(push.task, push.seconds * float(push.payload.get("every", 1)))  # as on all rows: for leases
        self._refused_in_a_row.pop(push.chunk, None)
        self.need_whole.discard(push.chunk)
        since = now if lease is None or lease.version != push.version else lease.since
        if push.task is Task.SOLVE:
            self.record.stale(self.params.version.n - push.version.n, now - since)

    def is_of_what_was(self, push: Push | Failure) -> bool:
        """Whether this is of data that the chunk had; `ChunkChanged` where it is the news that it has others.

        After a change there may be both: pushes under way, and workers with copies made before, know of no edition
        that it began, and must not bring the old values back. Who knows of the edition has let go of such copies
        (`ChunkCache.load`), so that values it finds all the same are a change again.
        """
        slot = self.params.slots[push.chunk]
        if _same(slot.fingerprint, push.fingerprint):
            return False
        if push.edition < slot.edition:
            return True
        often = f", now {slot.edition + 1} times" if slot.edition else ""
        raise ChunkChanged(
            f"chunk {push.chunk} was computed again and has other values than before{often}: its source is not "
            "deterministic (unseeded random numbers?) or was rewritten; persist it, fix the source, or launch with "
            'on_chunk_change="reset" to go on with the values that it has then'
        )

    def _refuse(self, push: Push, outcome: Outcome) -> None:
        self.need_whole.add(push.chunk)
        count = self._refused_in_a_row[push.chunk] = self._refused_in_a_row.get(push.chunk, 0) + 1
        if count >= MAX_REFUSED:
            raise StepFailed(f"chunk {push.chunk}: {count} answers in a row could not be used ({outcome.value})")


def _same(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    """Whether these fingerprints are of the same data, as far as can be told; BLAS builds differ in last bits."""
    if a is None or b is None or a == b:
        return True
    return len(a) == len(b) and np.allclose(a, b, rtol=1e-9, atol=0.0, equal_nan=True)
