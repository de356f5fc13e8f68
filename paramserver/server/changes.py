"""What changes about a run that lives: its settings, and the chunks that count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput, RunFailed
from paramserver.messages import Version
from paramserver.penalties import Penalty
from paramserver.server import findings
from paramserver.server.census import Census
from paramserver.server.inferring import Inferring
from paramserver.server.intake import Intake
from paramserver.server.parameters import Parameters, with_settings
from paramserver.server.spec import RunSpec
from paramserver.server.stopping import Stopping
from paramserver.server.verifier import Verifier

MAX_EDITIONS = 50  #: changes of one chunk's data before the run gives up: two copies that differ may stay for good


class Changes(ABC):
    """The part of `Core` that users reach into a live run with."""

    spec: RunSpec
    params: Parameters
    intake: Intake
    stopping: Stopping
    verifier: Verifier
    inferring: Inferring
    census: Census
    notes: findings.Notes
    state: str
    reason: str
    ending: str
    ended_at: float | None
    _rest_until: float

    @property
    @abstractmethod
    def over(self) -> bool:
        """See `Core`, as the next two."""

    @abstractmethod
    def _thaw(self) -> None: ...

    @abstractmethod
    def _limit(self, now: float) -> float: ...

    @abstractmethod
    def give_up_inferring(self, why: str, now: float) -> None: ...

    @abstractmethod
    def _fits(self, p: int, n_chunks: int) -> None: ...

    def update(self, penalty: Penalty | None, tol: float | None, settings: dict[str, Any], now: float) -> Version:
        """Change a live run; the first version for which it holds."""
        self._check_live()
        if self.params.setup is None:
            raise InvalidInput("the run has not read its data yet; update it once it is running")
        rule = with_settings(self.params.rule, settings)
        if tol is not None and not tol > 0:
            raise InvalidInput(f"tol must be > 0, got {tol!r}")
        self.params.update(penalty, rule, now)
        self.stopping.tol = self.stopping.tol if tol is None else tol
        if penalty is not None:
            self._another()
        self.stopping.restart()
        self.notes.unfind()
        self._say_floor()
        if self.state != "surveying":
            self._thaw()
        self.reason, self.ended_at = "", None
        return self.params.version._replace(n=self.params.version.n + 1)

    def _say_floor(self) -> None:
        """A tolerance that the rule does not reach is worth a note."""
        setup = self.params.setup
        assert setup is not None
        self.notes.find(findings.floor(self.params.rule, setup, self.stopping.allowed() / self.stopping.scale))

    def _check_live(self) -> None:
        if self.state in ("finished", "failed"):
            raise InvalidInput(f"the run has ended ({self.reason}); launch a new one with z0= its z")
        if self.ending:
            raise InvalidInput(f"the run is ending ({self.ending}); launch a new one with z0= its z")

    # -- chunks that come and go -----------------------------------------------------------------

    def add(self, n: int, now: float) -> list[int]:
        """So many more chunks, at a run that lives: their numbers. They count once they were surveyed."""
        self._check_live()
        if self.params.setup is not None:
            try:
                self._fits(self.params.setup.p, len(self.params.live) + n)
            except RunFailed as error:
                raise InvalidInput(str(error)) from None
        ids = self.census.add(n, now)
        self._recount()
        return ids

    def drop(self, chunks: Iterable[int]) -> None:
        """These chunks leave the objective; what their runners still push is of an unknown chunk."""
        self._check_live()
        self.census.drop(chunks)
        self._recount()

    def refuse(self, chunk: int, why: str) -> bool:
        """A chunk cannot be used; False where that must end the run, because it counts already."""
        if self.over or chunk not in self.census.newcomers:
            return False
        self.census.refuse(chunk, why)
        self._recount()
        return True

    def lost(self, found: Mapping[int, str], now: float) -> str:
        """The data of these chunks cannot be had, each with why; why the run cannot go on, if it cannot."""
        found = {i: why for i, why in found.items() if not (self.intake.is_gone(i) or self.refuse(i, why))}
        if not found or self.state in ("finished", "failed"):
            return ""
        why = found[min(found)]
        if self.inferring.under_way:  # what was certified stands, and is of all chunks
            self.give_up_inferring(why, now)
            return ""
        if self.spec.on_chunk_loss == "fail":
            return why
        try:
            self.census.leave_out(found)
        except InvalidInput as error:
            return f"{why}; {error}"
        self._recount(now)
        return ""

    def reset(self, chunk: int, fingerprint: tuple[float, ...] | None, now: float) -> bool:
        """A chunk has other values than it had: begin anew with it; False where that must end the run."""
        if self.over or self.spec.on_chunk_change == "fail" or self.params.slots[chunk].edition >= MAX_EDITIONS:
            return False
        self.intake.need_whole.discard(chunk)
        self.census.renew(chunk, fingerprint, now)
        self._recount(now, roll=True)
        return True

    def _recount(self, now: float | None = None, roll: bool = False) -> None:
        """The objective is another: what was certified does not hold for it; z goes on from where it is.

        ``now`` where the run may be ending: it waits no longer for surveys than for its last verification.
        """
        if self.ending and now is not None:
            self.census.limit = self._limit(now)
        self._another()
        if roll and now is not None:
            self.census.call_roll(self._limit(now))
        self.census.open()
        self.state, self.reason, self.ended_at, self._rest_until = "surveying", "", None, np.inf

    def _another(self) -> None:
        """Another objective: nothing that was found of the old one holds; surveys under way do."""
        surveying = self.verifier.gather if self.state == "surveying" else None
        self.verifier.void()
        self.verifier.gather = surveying
        self.inferring.void()
        self.stopping.restart()
        self.notes.unfind()
