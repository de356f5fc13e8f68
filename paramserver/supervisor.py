"""The scheduler plug-in that looks after every run of its scheduler.

It owns the names, holds the data's keys, creates the server, starts a runner for every worker
thread as workers join, and keeps the results of the last finished runs. Clients talk to it through
one scheduler handler, "paramserver"; values that it only passes on stay pickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from distributed import Client, Future, SchedulerPlugin

from paramserver.errors import (
    ChunkLost,
    InvalidInput,
    NameTaken,
    ParamServerError,
    RunFailed,
    ServerLost,
    StepFailed,
    UnknownRun,
)
from paramserver.server.actor import Server
from paramserver.server.handle import Handle
from paramserver.workers import runner

logger = logging.getLogger("paramserver")

KEPT = 20  #: finished runs whose results are kept
RECONCILE = 1.0  #: seconds between looks at what should be
SILENCE = 60.0  #: seconds without an answer before the server is given up
DISMISS = 2.0  #: seconds that runners get to hear of the end before their tasks are released
SHARED_UP_TO = 4  #: workers up to which the server's worker gets runners too
KEYS_LIMIT = 30.0  #: seconds for the chunks' keys to appear on the scheduler
RESTART = 2.0  #: seconds before a runner that ended by itself is started again


@dataclass
class RunRecord:
    """What the supervisor knows of one run."""

    name: str
    run_id: str
    keys: list[tuple[Any, ...]]
    blob: bytes
    runners_per_worker: int | None
    state: str = "waiting"  #: "waiting" for a worker, "live", "converged" (kept), "finished", "failed"
    reason: str = ""
    outcome: bytes | None = None  #: pickled (Result or error, last Status), once over
    epoch: int = 1
    created: float = field(default_factory=time.time)
    actor: Future | None = None
    handle: Handle | None = None
    runners: dict[str, list[Future]] = field(default_factory=dict)
    restarts: dict[str, float] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def holder(self) -> str:
        """The name under which the scheduler keeps the run's data."""
        return f"paramserver-{self.run_id}"

    @property
    def live(self) -> bool:
        """Has, or is about to have, a server."""
        return self.state in ("waiting", "live", "converged")

    def summary(self) -> dict[str, Any]:
        """What a client is told; the outcome stays pickled."""
        return {
            "name": self.name,
            "run_id": self.run_id,
            "state": self.state,
            "reason": self.reason,
            "handle": None if self.handle is None else tuple(self.handle),
            "outcome": self.outcome,
            "n_chunks": len(self.keys),
            "created": self.created,
        }


class Supervisor(SchedulerPlugin):
    """See the module."""

    name = "paramserver"
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Called once, when the plug-in is registered."""
        self.scheduler = scheduler
        self.runs: dict[str, RunRecord] = {}
        self._client: Client | None = None
        self._client_lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()
        scheduler.handlers["paramserver"] = self.handle
        self._loop = asyncio.create_task(self._reconcile())

    async def close(self) -> None:
        """The scheduler closes."""
        self._loop.cancel()
        if self._client is not None:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._client.close(), 5.0)

    async def client(self) -> Client:
        """A client of our own scheduler; its certificate is the scheduler's where it has no other."""
        async with self._client_lock:
            if self._client is None:
                address, security = self.scheduler.address, _client_security(self.scheduler.security)
                self._client = await Client(address, asynchronous=True, set_as_default=False, security=security)
        return self._client

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run in the background; the loop itself keeps only weak references to tasks."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- calls -----------------------------------------------------------------------------------

    async def handle(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The scheduler handler. Errors of ours are answers, not tracebacks in the scheduler's log."""
        calls: dict[str, Callable[..., Any]] = {
            "claim": self.claim, "find": self.find, "list": self.list, "wait": self.wait,
            "stop": self.stop, "forget": self.forget, "ended": self.ended,
        }  # fmt: skip
        try:
            return {"status": "OK", "result": await calls[do](**arguments)}
        except ParamServerError as error:
            return {"status": "error", "exception": pickle.dumps(error)}

    async def claim(
        self, name: str, run_id: str, keys: bytes, blob: bytes, runners_per_worker: int | None
    ) -> dict[str, Any]:
        """Take the name at once, then the data; answers when every key is there and held."""
        old = self.runs.get(name)
        if old is not None and old.live:
            raise NameTaken(f"a run named {name!r} is already running: stop it, or choose another name")
        record = RunRecord(name, run_id, pickle.loads(keys), blob, runners_per_worker)
        self.runs[name] = record
        try:
            await self._hold(record)
        except BaseException:
            self._undo(record, old)
            raise
        self._spawn(self._serve(record))
        return record.summary()

    async def _hold(self, record: RunRecord) -> None:
        """The graph may still be under way to the scheduler on the client's stream."""
        keys = {key for parts in record.keys for key in parts}
        limit = time.monotonic() + KEYS_LIMIT
        while not all(key in self.scheduler.tasks for key in keys):
            if time.monotonic() > limit:
                missing = [key for key in keys if key not in self.scheduler.tasks]
                raise ChunkLost(
                    f"{len(missing)} of {len(keys)} chunk keys did not reach the scheduler within "
                    f"{KEYS_LIMIT:g} s, for instance {missing[0]!r}"
                )
            await asyncio.sleep(0.005)
        self.scheduler.client_desires_keys(list(keys), record.holder)

    def _undo(self, record: RunRecord, old: RunRecord | None) -> None:
        self._release(record)
        if self.runs.get(record.name) is record:
            del self.runs[record.name]
            if old is not None:
                self.runs[record.name] = old

    async def find(self, name: str | None = None) -> dict[str, Any]:
        """A run by name; without one, the only live run, else the only run."""
        return self._find(name).summary()

    def _find(self, name: str | None) -> RunRecord:
        if name is not None:
            if name in self.runs:
                return self.runs[name]
            raise UnknownRun(f"no run named {name!r} on this scheduler; there {self._there()}")
        live = [record for record in self.runs.values() if record.live] or list(self.runs.values())
        if len(live) == 1:
            return live[0]
        raise UnknownRun(f"say which run: there {self._there()}")

    def _there(self) -> str:
        names = ", ".join(f"{record.name!r} ({record.state})" for record in self.runs.values())
        return f"are {names}" if names else "are none"

    async def list(self) -> list[dict[str, Any]]:
        """Every run, newest last."""
        return [{**record.summary(), "outcome": None} for record in self.runs.values()]

    async def wait(self, names: list[str], seconds: float) -> list[dict[str, Any]]:
        """Those of the named runs that are over, as soon as one is or after ``seconds`` (≤ 30)."""
        records = [self._find(name) for name in names]
        if not any(record.over.is_set() for record in records):
            waits = [asyncio.create_task(record.over.wait()) for record in records]
            await asyncio.wait(waits, timeout=min(seconds, 30.0), return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        return [record.summary() for record in records if record.over.is_set()]

    async def stop(self, name: str, verify: bool) -> None:
        """Stop a run; one whose server is not there yet ends at once."""
        record = self._find(name)
        if not record.live:
            return
        if record.handle is None:
            self._end(record, "failed", "stopped", RunFailed(f"run {name!r} was stopped before it had a server"))
            return
        client = await self.client()
        await record.handle.direct(client.rpc, "stop", verify, timeout=60.0)

    async def forget(self, name: str) -> None:
        """Drop a finished run's result."""
        record = self._find(name)
        if record.live and record.state != "converged":
            raise InvalidInput(f"run {name!r} is running: stop it before it is forgotten")
        if record.live:
            self._end(record, "finished", record.reason, None)
        del self.runs[name]

    async def ended(self, run_id: str, epoch: int, state: str, reason: str, outcome: bytes) -> None:
        """The server says that its run is over."""
        for record in self.runs.values():
            if record.run_id == run_id and record.epoch == epoch and record.live:
                record.outcome, record.reason = outcome, reason
                if state == "converged":  # kept live
                    record.state = state
                    record.over.set()
                else:
                    self._end(record, state, reason, None)
                return

    # -- a run's life ----------------------------------------------------------------------------

    async def _serve(self, record: RunRecord) -> None:
        """Create the server as soon as a worker can hold it, then its runners."""
        try:
            client = await self.client()
            key = f"paramserver-server-{record.run_id}-{record.epoch}"
            apart = {"resources": {"paramserver": 1}} if self._reserved() else {}
            record.actor = client.submit(
                Server, record.blob, record.run_id, record.epoch, actor=True, key=key, priority=1000, **apart
            )
            await record.actor
            (worker,) = self.scheduler.tasks[key].who_has
            record.handle = Handle(key, worker.address, record.run_id, record.epoch)
            record.heard = time.monotonic()
            record.state = "live"
            await self._start_runners(record)
        except Exception as error:
            if record.live:
                logger.exception("paramserver: run %s has no server", record.name)
                self._end(record, "failed", str(error), _as_failure(record, error))

    def _reserved(self) -> list[str]:
        return [address for address, ws in self.scheduler.workers.items() if "paramserver" in ws.resources]

    async def _start_runners(self, record: RunRecord) -> None:
        client = await self.client()
        for address in self._hosts(record):
            futures = record.runners.get(address, [])
            if futures and not all(future.done() for future in futures):
                continue
            if time.monotonic() - record.restarts.get(address, -RESTART) < RESTART:
                continue
            record.restarts[address] = time.monotonic()
            worker = self.scheduler.workers[address]
            count = record.runners_per_worker or worker.nthreads
            stamp = f"{record.run_id}-{address}-{time.monotonic_ns()}"
            record.runners[address] = [
                client.submit(
                    runner.run, record.handle, k, key=f"paramserver-runner-{stamp}-{k}", workers=[address],
                    priority=500, pure=False, retries=0,
                )
                for k in range(count)
            ]  # fmt: skip

    def _hosts(self, record: RunRecord) -> list[str]:
        """Workers that should run the run's steps."""
        assert record.handle is not None
        everyone = [address for address, ws in self.scheduler.workers.items() if ws.status.name in ("running", "paused")]
        reserved = set(self._reserved())
        if len(everyone) > SHARED_UP_TO:
            reserved.add(record.handle.address)
        return [address for address in everyone if address not in reserved] or everyone

    def _end(self, record: RunRecord, state: str, reason: str, error: Exception | None) -> None:
        """Record first, then let go."""
        if error is not None:
            record.outcome = cloudpickle.dumps((error, None))
        record.state, record.reason = state, reason
        record.over.set()
        self._spawn(self._dismiss(record))
        over = [r for r in self.runs.values() if not r.live]
        for old in sorted(over, key=lambda r: r.created)[:-KEPT]:
            del self.runs[old.name]

    async def _dismiss(self, record: RunRecord) -> None:
        """Runners hear of the end from the server; then everything is released."""
        await asyncio.sleep(DISMISS if record.handle is not None else 0.0)
        self._release(record)

    def _release(self, record: RunRecord) -> None:
        record.runners.clear()  # a future that goes out of scope is released
        record.actor = None
        record.blob = b""
        if record.holder in self.scheduler.clients:
            keys = [key for parts in record.keys for key in parts]
            self.scheduler.client_releases_keys(keys, record.holder)
            self.scheduler.clients.pop(record.holder, None)

    # -- what should be --------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Keep servers, runners and data as they should be; single events may be missed."""
        while True:
            await asyncio.sleep(RECONCILE)
            for record in [r for r in self.runs.values() if r.live]:
                try:
                    await self._look_after(record)
                except Exception:
                    logger.exception("paramserver: looking after run %s", record.name)

    async def _look_after(self, record: RunRecord) -> None:
        self._check_chunks(record)
        if record.handle is None or not record.live:
            return
        if record.handle.address not in self.scheduler.workers:
            self._lost_server(record)
            return
        client = await self.client()
        try:
            await record.handle.direct(client.rpc, "ping", timeout=2.0)
            record.heard = time.monotonic()
        except ParamServerError as error:
            if time.monotonic() - record.heard > SILENCE:
                self._lost_server(record, str(error))
            return
        if record.live:
            await self._start_runners(record)

    def _check_chunks(self, record: RunRecord) -> None:
        for i, parts in enumerate(record.keys):
            for key in parts:
                task = self.scheduler.tasks.get(key)
                if task is None or task.state == "forgotten":
                    error = ChunkLost(
                        f"chunk {i} is gone: the worker that held it left and it cannot be computed again "
                        "(scattered data?); pass lazy or persisted collections instead"
                    )
                elif task.state == "erred":
                    error = ChunkLost(f"chunk {i} cannot be computed: {task.exception_text or 'its task failed'}")
                else:
                    continue
                self._fail(record, error)
                return

    def _fail(self, record: RunRecord, error: RunFailed) -> None:
        """End a run from here; its server, if it lives, is told so that its runners hear of it."""
        self._end(record, "failed", str(error), error)
        if record.handle is not None:
            self._spawn(self._tell(record, "fail", error))

    def _lost_server(self, record: RunRecord, why: str = "its worker left the cluster") -> None:
        assert record.handle is not None
        text = (
            f"the server of run {record.name!r} at {record.handle.address} is lost: {why}; launch again "
            "with z0= the last parameters read, on a worker that lives longer"
        )
        self._end(record, "failed", "server lost", ServerLost(text))

    async def _tell(self, record: RunRecord, method: str, *args: Any) -> None:
        if record.handle is not None:
            client = await self.client()
            with contextlib.suppress(ParamServerError):
                await record.handle.direct(client.rpc, method, *args, timeout=5.0)

    # -- events ----------------------------------------------------------------------------------

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker joined: its runners need not wait for the next look."""
        for record in self.runs.values():
            if record.live and record.handle is not None:
                self._spawn(self._start_runners(record))

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """A worker left: its leases end, and the run with it if it held the server."""
        for record in self.runs.values():
            record.runners.pop(worker, None)
            record.restarts.pop(worker, None)
            if not record.live or record.handle is None:
                continue
            if record.handle.address == worker:
                self._lost_server(record)
            else:
                self._spawn(self._tell(record, "gone", worker))

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Adaptive clusters must not take a server's worker: to them it looks idle and empty."""
        servers = {record.handle.address for record in self.runs.values() if record.live and record.handle}
        return [worker for worker in workers if worker.address not in servers]


def _as_failure(record: RunRecord, error: Exception) -> ParamServerError:
    if isinstance(error, ParamServerError):
        return error
    return StepFailed(f"the server of run {record.name!r} could not be created: {type(error).__name__}: {error}")


def _client_security(security: Any) -> Any:
    """The scheduler's security, its own certificate standing in where it has none for clients."""
    if security is None or not getattr(security, "require_encryption", False):
        return security
    from distributed.security import Security

    fields = {name: getattr(security, name) for name in ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key")}
    return Security(
        require_encryption=True,
        tls_ca_file=fields["tls_ca_file"],
        tls_client_cert=security.tls_client_cert or fields["tls_scheduler_cert"],
        tls_client_key=security.tls_client_key or fields["tls_scheduler_key"],
    )
