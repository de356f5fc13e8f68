"""The plug-in: owns the names, answers clients, hears of workers that come and go.

Clients talk to it through one scheduler handler, "paramserver"; values that it only passes on
stay pickled.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable
from typing import Any

from distributed import SchedulerPlugin

from paramserver.errors import InvalidInput, NameTaken, ParamServerError, RunFailed, ServerGone, UnknownRun
from paramserver.supervisor.keeper import Keeper
from paramserver.supervisor.record import RunRecord

logger = logging.getLogger("paramserver")

KEPT = 20  #: finished runs whose results are kept, the newest
UNREAD = 600.0  #: seconds for which others are kept too, until somebody was told
RECONCILE = 1.0  #: seconds between looks at what should be
LONGEST_WAIT = 30.0  #: seconds of one long poll


class Supervisor(SchedulerPlugin):  # type: ignore[misc]
    """One a scheduler; a second registration changes nothing."""

    name = "paramserver"
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Called once, when the plug-in is registered."""
        self.runs: dict[str, RunRecord] = {}
        self.keeper = Keeper(scheduler, self._trim)
        scheduler.handlers["paramserver"] = self.handle
        self._loop = asyncio.create_task(self._reconcile())

    async def close(self) -> None:
        """The scheduler closes."""
        self._loop.cancel()
        await self.keeper.close()

    async def _reconcile(self) -> None:
        """Each run by itself: one server that does not answer must not keep the others waiting."""
        looks: dict[str, asyncio.Task[None]] = {}
        while True:
            await asyncio.sleep(RECONCILE)
            looks = {run_id: task for run_id, task in looks.items() if not task.done()}
            for record in self.runs.values():
                if record.live and record.run_id not in looks:
                    looks[record.run_id] = asyncio.create_task(self._look_after(record))

    async def _look_after(self, record: RunRecord) -> None:
        try:
            await self.keeper.look_after(record)
        except Exception:
            logger.exception("paramserver: looking after run %s", record.name)

    # -- calls -----------------------------------------------------------------------------------

    async def handle(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The scheduler handler. Errors of ours are answers, not tracebacks in the scheduler's log."""
        calls: dict[str, Callable[..., Any]] = {
            "claim": self.claim, "find": self.find, "list": self.listing, "wait": self.wait,
            "stop": self.stop, "forget": self.forget, "ended": self.ended, "resumed": self.resumed,
            "add": self.add, "where": self.where, "keep": self.keep, "saved": self.saved, "move": self.move,
            "needs": self.needs, "leave": self.leave, "suspend": self.suspend,
        }  # fmt: skip
        try:
            return {"status": "OK", "result": await calls[do](**arguments)}
        except ParamServerError as error:
            return {"status": "error", "exception": pickle.dumps(error)}

    async def claim(
        self,
        name: str,
        run_id: str,
        keys: bytes,
        blob: bytes,
        runners_per_worker: int | None,
        stages: dict[str, float],
        epoch: int = 1,
        checkpoint: str | None = None,
        on_chunk_loss: str = "fail",
    ) -> dict[str, Any]:
        """Take the name at once, then the data; answers when every key is there and held.

        ``stages``: what the launch has done so far, in seconds since it was called; the last is this claim.
        """
        old = self.runs.get(name)
        if old is not None and old.live:
            raise NameTaken(f"a run named {name!r} is already running: stop it, or choose another name")
        chunks = dict(enumerate(pickle.loads(keys)))
        launched = time.monotonic() - max(stages.values())
        record = RunRecord(
            name, run_id, chunks, blob, runners_per_worker, on_chunk_loss, launched=launched, stages=dict(stages)
        )
        record.epoch, record.checkpoint = epoch, checkpoint
        self.runs[name] = record
        try:
            await self.keeper.hold(record)
        except BaseException:
            self._undo(record, old)
            raise
        if record.live:  # not stopped meanwhile
            self.keeper.spawn(self.keeper.serve(record))
        return record.summary()

    def _undo(self, record: RunRecord, old: RunRecord | None) -> None:
        """A launch that failed leaves nothing, and what had the name before has it again."""
        self.keeper.release(record)
        if self.runs.get(record.name) is record:
            del self.runs[record.name]
            if old is not None:
                self.runs[record.name] = old

    async def find(self, name: str | None = None) -> dict[str, Any]:
        """A run by name; without one, the only live run, else the only run."""
        record = self._find(name)
        return {**self._tell(record), "waits": self.keeper.waits_for(record)}

    @staticmethod
    def _tell(record: RunRecord) -> dict[str, Any]:
        record.told = not record.live
        return record.summary()

    def _find(self, name: str | None) -> RunRecord:
        if name is not None:
            if name in self.runs:
                return self.runs[name]
            raise UnknownRun(f"no run named {name!r} on this scheduler; there {self._there()}")
        live = [record for record in self.runs.values() if record.live] or list(self.runs.values())
        if len(live) == 1:
            return live[0]
        raise UnknownRun(f"say which run: there {self._there()}")

    def _of(self, run_id: str) -> RunRecord | None:
        return next((record for record in self.runs.values() if record.run_id == run_id), None)

    def _there(self) -> str:
        names = ", ".join(f"{record.name!r} ({record.state})" for record in self.runs.values())
        return f"are {names}" if names else "are none"

    async def listing(self) -> list[dict[str, Any]]:
        """Every run, newest last."""
        self._trim()
        return [{**record.summary(), "outcome": None} for record in self.runs.values()]

    async def wait(self, names: list[str], seconds: float) -> list[dict[str, Any]]:
        """Those of the named runs that are over, as soon as one is or after ``seconds`` (≤ 30)."""
        records = [self._find(name) for name in names]
        if not any(record.over.is_set() for record in records):
            waits = [asyncio.create_task(record.over.wait()) for record in records]
            await asyncio.wait(waits, timeout=min(seconds, LONGEST_WAIT), return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        return [self._tell(record) for record in records if record.over.is_set()]

    async def stop(self, name: str, verify: bool) -> None:
        """Stop a run; one whose server is not there yet ends at once."""
        record = self._find(name)
        if not record.live:
            return
        record.stopping = verify
        if record.state == "waiting":
            error = RunFailed(f"run {name!r} was stopped before it had a server")
            self.keeper.end(record, "failed", "stopped", error)
        elif record.handle is not None:
            epoch = record.epoch
            try:
                await self.keeper.ask(record, "stop", verify, timeout=60.0)
            except ServerGone:
                if record.epoch == epoch and record.live and record.handle is not None:
                    self.keeper.lost_server(record, "it cannot be reached")  # the next is told

    async def where(self, run_id: str) -> Any:
        """A runner asks for the run's server: its handle, None while there is none, or why there will be none."""
        record = self._of(run_id)
        if record is None or not record.live:
            return "the run is forgotten" if record is None else record.reason or record.state
        return None if record.handle is None else tuple(record.handle)

    async def keep(self, run_id: str, epoch: int, number: int, taken: int, blob: bytes | None, state: bytes) -> bool:
        """A server's anchor: whether this server still has the run."""
        record = self._of(run_id)
        return record is not None and self.keeper.keep(record, epoch, number, taken, blob, state)

    async def saved(self, run_id: str, epoch: int, name: str) -> bool:
        """A server wrote a checkpoint: it counts only if this server still has the run."""
        record = self._of(run_id)
        if record is None or record.epoch != epoch:
            return False
        record.saved = name
        return True

    async def move(self, name: str, worker: str | None) -> str:
        """Move a run's server to another worker: its new address."""
        return await self.keeper.move(self._find(name), worker)

    async def suspend(self, name: str) -> None:
        """End a run so that it can be resumed from its checkpoint, without a push lost."""
        await self.keeper.suspend(self._find(name))

    async def leave(self, address: str, seconds: float) -> bool:
        """A worker is about to end: returns once nothing of any run is there, or after so many seconds."""
        return await self.keeper.leave(list(self.runs.values()), address, seconds)

    async def add(
        self, name: str, run_id: str, keys: bytes, columns: int | None, names: tuple[str, ...] | None
    ) -> list[int]:
        """More chunks for a live run: held, then told to its server; their numbers."""
        record = self._find(name)
        if record.run_id != run_id or not record.live:
            raise InvalidInput(f"run {name!r} is over: launch a new one with z0= its z")
        return await self.keeper.add(record, pickle.loads(keys), columns, names)

    async def forget(self, name: str) -> None:
        """Drop a finished run's result."""
        record = self._find(name)
        if record.live and record.state != "converged":
            raise InvalidInput(f"run {name!r} is running: stop it before it is forgotten")
        if record.live:
            await self.keeper.tell(record, "stop", False)
            self.keeper.end(record, "finished", record.reason)
        self.runs.pop(name, None)

    async def ended(self, run_id: str, epoch: int, turn: int, state: str, reason: str, outcome: bytes) -> None:
        """The server says that its run is over, or (a kept one) converged."""
        for record in list(self.runs.values()):
            if (record.run_id, record.epoch) != (run_id, epoch) or not record.live or turn < record.turn:
                continue  # what was announced before a change may arrive after it
            record.outcome, record.reason = outcome, reason
            if state == "converged":
                record.state = state
                record.reached("end known")
                record.over.set()
            else:
                self.keeper.end(record, state, reason)

    async def resumed(self, run_id: str, epoch: int, turn: int) -> None:
        """A kept run goes on, after an update or with other chunks."""
        for record in self.runs.values():
            if (record.run_id, record.epoch) != (run_id, epoch):
                continue
            record.turn = max(record.turn, turn)
            if record.state == "converged":
                record.state, record.outcome, record.reason = "live", None, ""
                record.stages.pop("end known", None)
                record.over.clear()

    def _trim(self, record: RunRecord | None = None) -> None:
        over = sorted((r for r in self.runs.values() if not r.live), key=lambda r: r.ended)
        for old in over[:-KEPT]:
            if old.told or time.monotonic() - old.ended > UNREAD:
                del self.runs[old.name]

    # -- events ----------------------------------------------------------------------------------

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker joined: its runners need not wait for the next look."""
        for record in self.runs.values():
            if record.live and record.handle is not None:
                self.keeper.spawn(self.keeper.start_runners(record))

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """A worker left: its leases end, and another server takes over if it held the run's."""
        self.keeper.places.leaving.discard(worker)
        for record in list(self.runs.values()):
            for known in (record.runners, record.started, record.failures):
                known.pop(worker, None)
            if not record.live or record.handle is None:
                continue
            if record.handle.address == worker:
                self.keeper.lost_server(record, "its worker left the cluster")
            else:
                self.keeper.spawn(self.keeper.tell(record, "gone", worker))

    def restart(self, scheduler: Any) -> None:
        """`Client.restart`: every task was forgotten, and no worker is gone yet."""
        for record in list(self.runs.values()):
            if record.live:
                self.keeper.restarted(record)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Adaptive clusters must not take a server's worker: to them it looks idle and empty."""
        homes = self._homes()
        return [worker for worker in workers if worker.address not in homes]

    def _homes(self) -> set[str]:
        """Addresses of workers that have a run's server."""
        return {address for record in self.runs.values() if record.live for address in self.keeper.homes(record)}

    async def needs(self) -> dict[str, Any]:
        """For who scales the cluster.

        live: how many runs are; runners: how many could be of use to them; servers: the names of the workers that
        have their servers; threads: of a worker, on average (0 without any).
        """
        workers, live = self.keeper.scheduler.workers, [record for record in self.runs.values() if record.live]
        names = [workers[address].name for address in sorted(self._homes()) if address in workers]
        threads = sum(ws.nthreads for ws in workers.values()) / max(len(workers), 1)
        runners = sum(len(record.keys) for record in live if record.state != "converged")
        return {"live": len(live), "runners": runners, "servers": names, "threads": threads}
