"""What the supervisor knows of one run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from distributed import Future

from paramserver.server.handle import Handle
from paramserver.server.takeover import Source


@dataclass
class RunRecord:
    """One run, from its claim until it is forgotten."""

    name: str
    run_id: str
    keys: dict[int, tuple[Any, ...]]  #: of each chunk's parts
    blob: bytes
    runners_per_worker: int | None
    on_chunk_loss: str = "fail"  #: as in `launch`
    state: str = "waiting"  #: "waiting" for a worker, "live", "converged" (kept), "finished", "failed"
    reason: str = ""
    outcome: bytes | None = None  #: pickled `Ending`, once over
    epoch: int = 1  #: of its server
    source: Source = None  #: where the next server has its state from: an anchor, or a server that is drained
    anchor: bytes | None = None  #: the last one
    saved: str | None = None  #: the name of the last checkpoint that was accepted
    checkpoint: str | None = None  #: the URL where it is
    misses: int = 0  #: pings in a row that the server did not answer
    kept: tuple[int, int] = (0, 0)  #: (epoch, number) of that anchor
    deaths: int = 0  #: of its servers, since a push was last known to be kept
    why: str = ""  #: its last server was lost
    stopping: bool | None = None  #: a user stopped it, to be verified or not: also the next server must know
    avoid: set[str] = field(default_factory=set)  #: addresses that the next server is not to have, if it can be
    prefer: str = ""  #: the address that it is to have
    moving: bool = False  #: its server is being moved, or its state taken in here
    turn: int = 0  #: the server's last change that was heard of
    created: float = field(default_factory=time.time)
    ended: float = 0.0
    told: bool = False  #: some client was told how it ended
    held: bool = False  #: the chunks' keys arrived, and are kept
    perishable: int = 0  #: chunks that cannot be computed again should their workers die, where that ends the run
    actor: Future | None = None
    handle: Handle | None = None
    runners: dict[str, list[Future]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    launched: float = 0.0  #: when `launch` was called, by the clock here
    stages: dict[str, float] = field(default_factory=dict)  #: what was reached, seconds after that
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def holder(self) -> str:
        """The name under which the scheduler keeps the run's data."""
        return f"paramserver-{self.run_id}"

    @property
    def live(self) -> bool:
        """Has, or is about to have, a server."""
        return self.state in ("waiting", "live", "converged")

    @property
    def warning(self) -> str:
        """What threatens the data, in words."""
        if not self.perishable:
            return ""
        return (
            f"{self.perishable} of {len(self.keys)} chunks were put on workers as they are (scattered?): should a "
            "worker die, those it has cannot be computed again, and the run ends; pass lazy or persisted collections, "
            'or launch with on_chunk_loss="drop" to go on without what is lost'
        )

    @property
    def way_on(self) -> str:
        """What a user can do where the run was lost through no fault of its own, in words."""
        again = "launch again, with z0= the parameters that were read last"
        url = self.checkpoint
        return f"go on from its checkpoint, paramserver.resume({url!r}), or {again}" if url else again

    def reached(self, stage: str) -> None:
        """Note when, for the run's profile."""
        self.stages[stage] = time.monotonic() - self.launched

    def summary(self) -> dict[str, Any]:
        """What a client is told; the outcome stays pickled."""
        return {
            "name": self.name,
            "run_id": self.run_id,
            "state": self.state,
            "reason": self.reason,
            "epoch": self.epoch,
            "handle": None if self.handle is None else tuple(self.handle),
            "outcome": self.outcome,
            "n_chunks": len(self.keys),
            "created": self.created,
            "stages": dict(self.stages),
            "warning": self.warning,
        }
