"""`Run`: one fit on the cluster, from whichever process knows its name."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

import cloudpickle

from paramserver.asking import ask_supervisor
from paramserver.errors import (
    CallTimeout,
    InvalidInput,
    ParamServerError,
    RunFailed,
    ServerGone,
)
from paramserver.messages import Array, Version
from paramserver.penalties import Penalty
from paramserver.profile import Profile
from paramserver.reaching import Reached, is_live
from paramserver.views import ChunkValue, History, Params, Residuals, Result, Staleness, Status
from paramserver.workers import at_hand
from paramserver.workers import chunks as chunking

PATIENCE = 5.0  #: seconds for another server to take over before a status says that there is none
POLL = 10.0  #: seconds of one long poll for the end
ADD_LIMIT = 200.0  #: seconds for the supervisor to hold what is added, and to tell the server


class Run(Reached):
    """A running or finished fit; made by `launch` and `connect`.

    Every call has a limit and goes through the scheduler, so that a client that reaches only the
    scheduler's port can use all of them. In an asynchronous client, ``await run`` gives the Result.
    """

    def __init__(self, name: str, client: Any, summary: dict[str, Any], launched: float | None = None) -> None:
        super().__init__(name, client, summary)
        self._launched = launched  #: when, by this process's clock, if it was launched here
        self._mine: dict[str, float] = {}  #: stages reached here, seconds after that

    def __repr__(self) -> str:
        return f"<Run {self.name!r}: {self._summary['state']}>"

    # -- reading ---------------------------------------------------------------------------------

    def params(self) -> Params:
        """The current parameters, all of one version.

        Raises
        ------
        RunFailed
            The run failed, or has not read its data yet (try again then).
        """
        out: Params = self._sync(self._params)
        return out

    async def _params(self) -> Params:
        live = await self._call("params")
        if live is not None:
            return live  # type: ignore[no-any-return]
        outcome = await self._outcome()
        if outcome is None:
            raise RunFailed(
                f"run {self.name!r} has no parameters yet: its data are not read ({self._summary['state']})"
            )
        result = outcome.result()
        age = max(time.time() - self._summary["created"] - result.seconds, 0.0)
        exact = result.certificate in ("duality gap", "first-order")
        return Params(result.version, age, result.z, result.coef_, result.intercept_, result.feature_names, exact)

    def status(self) -> Status:
        """How the run is doing now."""
        out: Status = self._sync(self._status)
        return out

    async def _status(self) -> Status:
        with contextlib.suppress(ServerGone):  # one is lost, and no other is there yet: that is what there is to say
            live = await self._call("status", timeout=10.0, patience=PATIENCE)
            if live is not None:
                return live  # type: ignore[no-any-return]
        outcome = await self._outcome()
        if outcome is not None and outcome.status is not None:
            return outcome.status
        return self._waiting(outcome)

    def _waiting(self, outcome: Any) -> Status:
        summary = self._summary
        failed = outcome is not None
        doing = f"failed: {summary['reason']}" if failed else f"waiting {summary.get('waits', '')}"
        return Status(
            self.name, "failed" if failed else "waiting", doing, Version(summary["epoch"], 0), float("nan"), None,
            Residuals(float("nan")), summary["n_chunks"], 0, 0, 0, {}, Staleness(), {}, {}, "", summary["epoch"],
            time.time() - summary["created"], summary["reason"],
        )  # fmt: skip

    def watch(self, every: float = 1.0) -> Iterator[Status]:
        """Status every so many seconds, the last one when the run is over."""
        while True:
            status = self.status()
            yield status
            if status.state in ("converged", "finished", "failed"):
                return
            self._sync(self._over_within, every)

    def duals(self, chunk: int | None = None) -> Any:
        """The unscaled dual variables y_i, each a `ChunkValue` with the version it belongs to.

        One for ``chunk``, or a list of all that have reported; Σ y_i ∈ ∂R(z) at the optimum.
        """
        return self._values("dual", chunk)

    def local(self, chunk: int) -> ChunkValue:
        """The local variable x_i, a `ChunkValue` with the version it belongs to."""
        out: ChunkValue = self._values("local", chunk)
        return out

    def _values(self, what: str, chunk: int | None) -> Any:
        return self._sync(self._read_values, what, chunk)

    async def _read_values(self, what: str, chunk: int | None) -> Any:
        values = await self._call("values", what, chunk)
        if values is None:
            raise ServerGone(f"run {self.name!r} is over ({self._summary['reason']}): its slots went with its server")
        if chunk is None:
            return values
        if not values:
            raise InvalidInput(f"chunk {chunk} has not reported yet")
        return values[0]

    def slope(self) -> Array:
        """Σ y_i over the penalised coordinates, in the units that the penalty acts in: what it is weighed against."""
        slope: Array | None = self._sync(self._call, "slope")
        if slope is None:
            raise ServerGone(f"run {self.name!r} is over or has not begun: there are no duals")
        return slope

    def history(self) -> History:
        """The thinned record of the run so far: arrays of equal length."""
        out: History = self._sync(self._history)
        return out

    async def _history(self) -> History:
        live = await self._call("history")
        if live is not None:
            return live  # type: ignore[no-any-return]
        return (await self._result(POLL)).history

    def profile(self) -> Profile:
        """Where the run's time went so far, or in all: ``print(run.profile())`` shows a table."""
        out: Profile = self._sync(self._profile)
        return out

    async def _profile(self) -> Profile:
        live = await self._call("profile")
        outcome = None if live is not None else await self._outcome()
        found = live if outcome is None else outcome.profile
        if found is None:  # no server yet, or none any more
            found = Profile(self.name, self._summary["state"], 0.0, {})
        return self._whole(found)

    def _whole(self, profile: Profile) -> Profile:
        """From the call of `launch`, as the supervisor and this client saw it."""
        return profile.from_launch({**self._summary["stages"], **self._mine})

    # -- the end ---------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the run is over (converged and kept counts)."""
        out: bool = self._sync(self._over_within, 0.0)
        return out

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end.

        Raises
        ------
        CallTimeout
            Not over within ``timeout`` seconds (None: no limit; the run's own limits still hold).
        RunFailed
            The run failed; the message says why.
        """
        out: Result = self._sync(self._result, timeout)
        return out

    async def _result(self, timeout: float | None = None) -> Result:
        limit = None if timeout is None else time.monotonic() + timeout
        while not await self._over_within(POLL if limit is None else max(limit - time.monotonic(), 0.0)):
            if limit is not None and time.monotonic() >= limit:
                raise CallTimeout(f"run {self.name!r} is not over after {timeout:g} s; it goes on")
        outcome = await self._outcome()
        assert outcome is not None
        result = outcome.result()
        if self._launched is not None:
            self._mine.setdefault("result in hand", time.monotonic() - self._launched)
        return result if result.profile is None else replace(result, profile=self._whole(result.profile))

    async def _over_within(self, seconds: float) -> bool:
        """Whether the run is over, as soon as it is or after so many seconds."""
        limit = time.monotonic() + seconds
        while self._summary["state"] not in ("finished", "failed"):
            left = max(limit - time.monotonic(), 0.0)
            over = await ask_supervisor(self.client, "wait", names=[self.name], seconds=min(left, POLL))
            if over:
                self._changed(over[0])
                return True
            if left <= POLL:
                return False
        return True

    def __await__(self) -> Generator[Any, None, Result]:
        return self._result().__await__()

    def add_done_callback(self, function: Callable[[Run], Any]) -> None:
        """Call ``function(run)`` in a thread of this process once the run is over."""

        def wait() -> None:
            try:
                while not self._sync(self._over_within, POLL):
                    pass
            except ParamServerError:
                pass  # the scheduler is gone, and the run with it: over, whatever it was
            function(self)

        threading.Thread(target=wait, name=f"paramserver-{self.name}", daemon=True).start()

    def stop(self, verify: bool = False) -> Result:
        """End the run now: a Result with reason "stopped", certified only if ``verify``."""
        out: Result = self._sync(self._stop, verify)
        return out

    async def _stop(self, verify: bool) -> Result:
        await ask_supervisor(self.client, "stop", name=self.name, verify=verify, timeout=75.0)
        return await self._result(120.0)

    def suspend(self) -> None:
        """End the run here, to go on elsewhere: `resume` at its ``checkpoint=`` has every push that was taken.

        Raises
        ------
        InvalidInput
            It has no server, or was launched without a checkpoint.
        CheckpointError
            None could be written, because the run had not read its data yet, or its place cannot be written to. The
            run goes on.
        """
        out: None = self._sync(ask_supervisor, self.client, "suspend", name=self.name, timeout=75.0)
        return out  # with an asynchronous client: to be awaited

    def update(self, *, penalty: Penalty | None = None, tol: float | None = None, **settings: Any) -> Version:
        """Change a live run: penalty, tol, and settings of its rule (rho, min_fresh, max_staleness …).

        Returns
        -------
        Version
            The first version for which the change holds.
        """
        out: Version = self._sync(self._update, penalty, tol, settings)
        return out

    async def _update(self, penalty: Penalty | None, tol: float | None, settings: dict[str, Any]) -> Version:
        version: Version | None = await self._call("update", penalty, tol, settings)
        summary = await self._find()
        if version is None:
            raise InvalidInput(f"run {self.name!r} is not live ({summary['state']}): nothing to update")
        return version

    def move_server(self, worker: str | None = None) -> str:
        """Move the server to another worker, losing no push: before its machine goes, say.

        Parameters
        ----------
        worker : str
            Name or address of the worker it is to go to; None: whichever suits.

        Returns
        -------
        str
            The address of the worker that has it now.

        Raises
        ------
        InvalidInput
            There is no such worker, no other one, or no server.
        """
        out: str = self._sync(self._move_server, worker)
        return out

    async def _move_server(self, worker: str | None) -> str:
        return str(await ask_supervisor(self.client, "move", name=self.name, worker=worker, timeout=200.0))

    # -- chunks that come and go -----------------------------------------------------------------

    def add(
        self, X: Any, y: Any = None, *, sample_weight: Any = None, offset: Any = None, exposure: Any = None,
        chunks: int | None = None,
    ) -> list[int]:  # fmt: skip
        """More rows for a live run, kept or running; it goes on from its z towards the optimum of all rows.

        Parameters
        ----------
        X, y, sample_weight, offset, exposure :
            As for `launch`: arrays, dask collections, or lists of chunks.
        chunks : int
            For data in memory: how many chunks (default: as large as the run's are).

        Returns
        -------
        list of int
            The new chunks' numbers, for `drop`; never given again.

        Raises
        ------
        InvalidInput
            The run is over, or what is wrong with the data can be seen at once.

        Notes
        -----
        The chunks count once they have been read; z stands still meanwhile. A chunk that turns out
        to be unusable then (NaN, other columns, a bad target, a task that failed) is dropped again
        and `Status.notes` and `Result.notes` say why: it does not end the run. Units that the run
        found in its first data (``standardize``, classes) stay as they are.
        """
        at_hand.check_one(offset, exposure)
        given = chunking.Given(X, y, sample_weight, offset, exposure)
        if self.client.asynchronous:
            return self._add_async(given, chunks)  # type: ignore[return-value]
        about = self._sync(self._about)
        out: list[int] = self._sync(self._hand_over, X, self._cut(about, given, chunks))
        return out

    async def _add_async(self, given: chunking.Given, chunks: int | None) -> list[int]:
        return await self._hand_over(given.X, self._cut(await self._about(), given, chunks))

    async def _about(self) -> tuple[Any, float]:
        limit = time.monotonic() + ADD_LIMIT
        while (about := await self._call("about")) is None:
            if not is_live(await self._find()):
                raise InvalidInput(f"run {self.name!r} is over ({self._summary['state']}): launch a new one")
            if time.monotonic() > limit:
                raise CallTimeout(f"run {self.name!r} had no server for {ADD_LIMIT:g} s")
            await asyncio.sleep(0.05)
        return about  # type: ignore[no-any-return]

    def _cut(self, about: tuple[Any, float], given: chunking.Given, chunks: int | None) -> chunking.Chunks:
        """The data as chunks, about as large as the run's where we choose."""
        problem, rows = about
        if chunks is None and rows:
            chunks = max(round(chunking.rows_at_hand(given.X) / rows), 1)
        return chunking.make(self.client, problem, given, chunks)

    async def _hand_over(self, X: Any, data: chunking.Chunks) -> list[int]:
        shape: tuple[Any, ...] = getattr(X, "shape", ())
        adding = ask_supervisor(
            self.client, "add", timeout=ADD_LIMIT, name=self.name, run_id=self._summary["run_id"],
            keys=cloudpickle.dumps(data.keys), columns=int(shape[1]) if len(shape) == 2 else None, names=data.names,
        )  # fmt: skip
        try:
            return list(await adding)  # a tuple on its way
        except BaseException:
            data.let_go()
            raise

    def drop(self, chunks: Iterable[int]) -> None:
        """These chunks leave the objective of a live run, kept or running.

        Raises
        ------
        InvalidInput
            There is no such chunk, no other would be left, or the run is over.
        """
        out: None = self._sync(self._drop, [int(chunk) for chunk in chunks])
        return out  # with an asynchronous client: to be awaited

    async def _drop(self, chunks: list[int]) -> None:
        await self._about()  # a run that is over, or has no server yet
        await self._call("drop", chunks)


def as_completed(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs as they end, in the order in which they do."""
    ended: queue.Queue[Run] = queue.Queue()
    waiting = list(runs)
    for run in waiting:
        run.add_done_callback(ended.put)
    for _ in waiting:
        yield ended.get()
