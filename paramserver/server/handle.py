"""Calls to a run's server that cannot hang: always a limit, always one of our errors.

Dask's own actor proxy waits for ever after an unserialisable argument, a freed actor or a stopped
worker, and an actor passed as a task argument becomes a dependency. A `Handle` is plain data.
"""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any, NamedTuple

from distributed.protocol import Serialize, to_serialize

from paramserver.errors import CallTimeout, InvalidInput, ServerGone

SMALL = 1 << 16  #: bytes of arrays up to which a message is packed here rather than by Dask
DOOR = "paramserver"  #: the worker's handler for runners' calls


def pack(value: Any, small: float = SMALL) -> Any:
    """Small messages as plain bytes, which Dask passes as they are: half the cost of its own way."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    if sum(buffer.raw().nbytes for buffer in buffers) > small:
        return to_serialize(value)
    return [data, *(buffer.raw().tobytes() for buffer in buffers)]


def unpack(packed: Any) -> Any:
    """What `pack` was given; arrays come out read-only.

    Raises
    ------
    InvalidInput
        It cannot be read.
    """
    if isinstance(packed, (list, tuple)) and packed and type(packed[0]) is bytes:
        try:
            return pickle.loads(packed[0], buffers=packed[1:])
        except Exception as error:  # truncated, of a class that is not known here, …
            text = f"a message of {len(packed[0])} bytes cannot be read: {type(error).__name__}: {error}"
            raise InvalidInput(f"{text}; is paramserver, or what it was given, another one there?") from error
    return packed


def open_door(worker: Any) -> None:
    """Let this worker's actors be called with packed messages, without what Dask wraps around a call to one."""

    async def answer(actor: str, method: str, packed: Any) -> dict[str, Any]:
        server = worker.state.actors[actor]
        try:
            return {"status": "OK", "result": await getattr(server, method)(packed)}
        except Exception as error:
            return {"status": "error", "exception": to_serialize(error)}

    worker.handlers.setdefault(DOOR, answer)


class Handle(NamedTuple):
    """Where a run's server is: the actor's key, its worker, and which run and epoch it must be."""

    key: str
    address: str
    run_id: str
    epoch: int

    async def packed(self, worker: Any, method: str, value: Any) -> Any:
        """As `direct`, for a runner's hot path: one packed argument, a packed answer, and no limit of its own."""
        if worker.address == self.address:
            return await self._answer(self._here(worker, method, value), method, None)
        call = getattr(worker.rpc(self.address), DOOR)(actor=self.key, method=method, packed=pack(value))
        return unpack(await self._answer(call, method, None))

    async def _here(self, worker: Any, method: str, value: Any) -> dict[str, Any]:
        """The server is in this process: no wire, but copies all the same, for neither side to write into."""
        reply: dict[str, Any] = await worker.handlers[DOOR](self.key, method, pack(value, math.inf))
        if reply["status"] != "OK":
            return {**reply, "exception": reply["exception"].data}
        result = reply["result"]
        return {**reply, "result": unpack(pack(result.data, math.inf) if isinstance(result, Serialize) else result)}

    def message(self, method: str, args: tuple[Any, ...]) -> dict[str, Any]:
        """The worker's ``actor_execute`` call."""
        return {"actor": self.key, "function": method, "args": [to_serialize(a) for a in args], "kwargs": {}}

    async def direct(self, rpc: Any, method: str, *args: Any, timeout: float = 30.0) -> Any:
        """Call over ``rpc``, a worker's or client's connection pool, straight to the server's worker."""
        return await self._answer(rpc(self.address).actor_execute(**self.message(method, args)), method, timeout)

    async def through(self, scheduler: Any, method: str, *args: Any, timeout: float = 30.0) -> Any:
        """Call through the scheduler: all that the caller needs to reach is the scheduler's port."""
        msg = {"op": "actor_execute", **self.message(method, args)}
        return await self._answer(scheduler.proxy(worker=self.address, msg=msg), method, timeout)

    async def _answer(self, call: Any, method: str, timeout: float | None) -> Any:
        try:
            reply = await (call if timeout is None else asyncio.wait_for(call, timeout))
        except asyncio.TimeoutError:
            text = f"the server of run {self.run_id} at {self.address} did not answer {method} within {timeout:g} s"
            raise CallTimeout(text) from None
        except Exception as error:
            # CommClosedError is an OSError; what a worker raises reaches the scheduler's proxy as a bare Exception
            if not isinstance(error, (OSError, KeyError, RuntimeError)) and type(error) is not Exception:
                raise
            text = f"the server of run {self.run_id} at {self.address} cannot be reached: {error!r}"
            raise ServerGone(text) from error
        if reply is None:  # what Dask answers to a call that it does not know
            raise ServerGone(f"the worker at {self.address} has no server: another one, at the address of the first")
        if reply["status"] != "OK":
            raise reply["exception"]
        return reply["result"]
