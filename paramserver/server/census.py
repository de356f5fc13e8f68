"""Which chunks count: they are surveyed before they do, and come and go while the run lives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from paramserver.errors import BadData, ChunkChanged, InvalidInput, RunFailed
from paramserver.messages import Array, Task
from paramserver.server.dispatch import Dispatch
from paramserver.server.findings import Notes
from paramserver.server.null import NullModel
from paramserver.server.parameters import Parameters
from paramserver.server.slots import Slot
from paramserver.server.verifier import Verifier
from paramserver.workers.problems.base import Start


@dataclass
class Census:
    """Surveys of the chunks that lack one, then the null model of all there are; z stands still meanwhile.

    A chunk added to a live run is a newcomer until it counts. A newcomer that cannot be used is
    refused with a note: it must not end a fit that others wait for.
    """

    params: Parameters
    verifier: Verifier
    dispatch: Dispatch
    notes: Notes
    newcomers: set[int] = field(default_factory=set)
    left: int = 0  #: chunks that were dropped or refused
    renewed: int = 0  #: times that some chunk had other data
    left_out: dict[int, int | None] = field(default_factory=dict)  #: chunks whose data were lost → rows, if known
    limit: float = np.inf  #: when to give up waiting; only a run that ends is in a hurry
    null: NullModel = field(init=False, repr=False)

    def open(self) -> None:
        """Ask for the surveys that lack; what was under way about other chunks is void."""
        slots, gather = self.params.slots, self.verifier.gather
        if gather is not None and gather.task is Task.SURVEY:
            gather.pending = self._unread | {i for i in gather.pending if not slots[i].gone}
            gather.limit = min(gather.limit, self.limit)
        else:
            gather = self.verifier.ask(Task.SURVEY, None, {}, self.limit, self._unread)
        self.dispatch.recall(gather.pending)

    @property
    def _unread(self) -> set[int]:
        return {i for i, slot in enumerate(self.params.slots) if slot.unread}

    def call_roll(self, limit: float) -> None:
        """Ask those for a survey too that were read: a change seldom comes alone, and is seen where data are used.

        Else each of many would be found in a verification of its own. Who does not answer in time will be heard of.
        """
        gather = self.verifier.gather
        if gather is None or gather.task is not Task.SURVEY:
            self.verifier.ask(Task.SURVEY, None, {}, min(limit, self.limit), self._unread | set(self.params.live))

    def end_roll(self) -> None:
        """Go on with those that answered."""
        gather = self.verifier.gather
        assert gather is not None
        gather.pending, gather.limit = self._unread, self.limit

    # -- coming and going ------------------------------------------------------------------------

    def add(self, n: int, now: float) -> list[int]:
        """Room for so many more chunks: their numbers."""
        slots = self.params.slots
        ids = list(range(len(slots), len(slots) + n))
        slots.extend(Slot(served=now) for _ in ids)
        self.newcomers.update(ids)
        return ids

    def drop(self, chunks: Iterable[int]) -> None:
        """These chunks leave; one at least that counts must stay."""
        slots, leaving = self.params.slots, set(chunks)
        there = [i for i, slot in enumerate(slots) if not slot.gone]
        unknown = sorted(leaving.difference(there))
        if unknown:
            raise InvalidInput(f"there is no chunk {unknown[0]}: the run has chunks {ranges(there)}")
        if not self._stay(leaving):
            raise InvalidInput(
                "at least one chunk that has rows must stay; those being read do not count yet: "
                "wait until the run's status says that it is running, or stop it"
            )
        self._check_rest(leaving)
        for chunk in leaving:
            self._forget(chunk)

    def leave_out(self, lost: Mapping[int, str]) -> None:
        """These chunks, each with why, are lost, and the run goes on without them.

        Raises
        ------
        InvalidInput
            It cannot: none that has rows would be left, or too little for a fit.
        """
        if not self._stay(set(lost)):
            raise InvalidInput("no other chunk has rows, as far as is known")
        self._check_rest(set(lost))
        slots = self.params.slots
        rows = {i: None if slots[i].survey is None else slots[i].rows for i in sorted(lost)}
        for chunk in rows:
            self._forget(chunk)
        self.left_out.update(rows)
        self.notes.append(f"left out: {described(rows)}: {lost[min(lost)]}")

    def _stay(self, leaving: set[int]) -> list[int]:
        """The chunks that count without these."""
        return [i for i in self.params.live if i not in leaving and i not in self.newcomers]

    def _check_rest(self, leaving: set[int]) -> None:
        """Without these there must be a fit still: every class, some weight; not seen before all are read."""
        rest, slots = self._stay(leaving), self.params.slots
        try:
            if self.params.setup is not None and not any(slots[i].unread for i in rest):
                self.params.problem.start(self.params.merged(rest))
        except BadData as error:
            raise InvalidInput(f"without chunks {sorted(leaving)} nothing could be fitted: {error}") from None

    def renew(self, chunk: int, fingerprint: tuple[float, ...] | None, now: float) -> None:
        """This chunk has other data: what was known of those it had goes with them."""
        self.params.renew(chunk, fingerprint, now)
        self.renewed += 1
        self.dispatch.renewed(chunk)
        self.notes.say(f"chunk {chunk} was computed again and has other values now: the fit is of these")

    def refuse(self, chunk: int, why: str) -> None:
        """A newcomer cannot be used."""
        self._forget(chunk)
        self.notes.append(f"chunk {chunk} was refused: {why.removeprefix(f'chunk {chunk}: ')}; it was dropped again")

    def close(self, why: str, limit: float) -> None:
        """Whoever was not surveyed by now is not waited for."""
        self.limit = limit
        for chunk in sorted(self.newcomers):
            if self.params.slots[chunk].unread:
                self.refuse(chunk, why)

    def _forget(self, chunk: int) -> None:
        self.newcomers.discard(chunk)
        self.params.forget(chunk)
        self.left += 1

    # -- counting --------------------------------------------------------------------------------

    def settle(self) -> Start | None:
        """Every answer is there: the null model of all chunks; None where there is more to ask."""
        try:
            start = self._settle()
        except RunFailed as error:
            if not self.newcomers:
                raise
            for chunk in sorted(self.newcomers):
                self.refuse(chunk, f"with the chunks added, {error}")
            self.open()
            return None
        if start is not None:
            self.newcomers.clear()
        return start

    def _settle(self) -> Start | None:
        gather, self.verifier.gather = self.verifier.gather, None
        assert gather is not None
        if gather.task is Task.SURVEY:
            self._judge()
            self.null = self.params.surveyed()
        else:
            self.null.take(gather.total)
        if self.null.done:
            value = self.null.start.objective
            if value == np.inf:  # nan: of a problem that has no values
                raise BadData(f"the losses of the null model are {value}: is the target, or an offset, out of range?")
            return self.null.start
        self.verifier.ask(Task.NULL, self.null.z, {}, self.limit)
        return None

    def _judge(self) -> None:
        """Newcomers, and chunks that have other data, must fit the chunks there were: columns, and size of z."""
        slots, begun = self.params.slots, self.params.setup is not None
        changed = {i for i, slot in enumerate(slots) if slot.edition and begun and not slot.gone} - self.newcomers
        judged = self.newcomers | changed
        known = [i for i, slot in enumerate(slots) if not (slot.gone or slot.empty) and i not in judged]
        if not judged or not (known or begun):
            return
        base = self.params.merged(known) if known else self.params.survey
        for chunk in sorted(judged):
            survey = slots[chunk].survey
            why = "" if survey is None or slots[chunk].empty else self._unfit(base, survey)
            if why and chunk in changed:
                raise ChunkChanged(f"chunk {chunk} was computed again, and its new values cannot be used: {why}")
            if why:
                self.refuse(chunk, why)

    def _unfit(self, base: Array, survey: Array) -> str:
        if survey[1] != base[1]:
            return f"it has {int(survey[1])} columns where the run has {int(base[1])}"
        try:
            p = self._size(base) if self.params.z is None else len(self.params.z)
            more = self._size(self.params.spec.problem.merge(base, survey))
        except Exception as error:  # the problem's own words; a chunk that it cannot merge is one it cannot use
            return str(error)
        return "" if more == p else f"z would have {more} entries with it where the run's has {p} (a new class?)"

    def _size(self, survey: Array) -> int:
        return len(self.params.spec.problem.at(survey).start(survey).z)


def described(rows: Mapping[int, int | None]) -> str:
    """chunks 0 to 4, 7 (2000 rows, and those of 1 that was not read)."""
    known = [n for n in rows.values() if n is not None]
    unread = len(rows) - len(known)
    parts = [f"{sum(known)} rows"] if known else []
    if unread:
        parts.append(f"those of {unread} that were never read" if known else "rows unknown: never read")
    return f"chunk{'s' if len(rows) > 1 else ''} {ranges(sorted(rows))} ({', and '.join(parts)})"


def ranges(numbers: list[int]) -> str:
    """0 to 4, 7 to 9."""
    starts = [n for n in numbers if n - 1 not in set(numbers)]
    ends = [n for n in numbers if n + 1 not in set(numbers)]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
