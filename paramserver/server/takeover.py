"""Where a new server's core comes from."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from paramserver.errors import CheckpointError
from paramserver.server import checkpoint
from paramserver.server.core import Core
from paramserver.server.handle import Handle
from paramserver.server.resuming import Resumed
from paramserver.server.spec import RunSpec
from paramserver.server.store import Store

logger = logging.getLogger("paramserver")

FETCH_LIMIT = 30.0  #: seconds for a drained state to cross the wire

Source = bytes | Handle | None  #: an anchor, or a server that was drained


def taken_over(spec: RunSpec, epoch: int, source: Source, saved: str | None, worker: Any) -> Core:
    """From a server that was drained, from the last checkpoint, from an anchor, or from nothing."""
    if isinstance(source, Handle):
        call = source.direct(worker.rpc, "fetch", timeout=FETCH_LIMIT)
        state = asyncio.run_coroutine_threadsafe(call, worker.loop.asyncio_loop).result(FETCH_LIMIT + 5.0)
        return checkpoint.load(state, spec, epoch, time.monotonic())
    if source is None:
        return _new(spec, epoch)
    return checkpoint.load(_newer(source, spec, saved), spec, epoch, time.monotonic())


def _new(spec: RunSpec, epoch: int) -> Core:
    core = Core(spec, epoch, time.monotonic())
    if spec.resume is not None:
        assert spec.checkpoint is not None
        core.resumed = Resumed(checkpoint.unpack(Store(spec.checkpoint).read(spec.resume)))
    return core


def _newer(anchor: bytes, spec: RunSpec, saved: str | None) -> bytes:
    """The checkpoint, which has the local models too, unless a user changed the run since."""
    if saved is None or spec.checkpoint is None:
        return anchor
    try:
        whole = Store(spec.checkpoint).read(saved)
        if checkpoint.unpack(whole)["changes"] == checkpoint.unpack(anchor)["changes"]:
            return whole
    except CheckpointError as error:
        logger.warning("paramserver: %s: going on from an anchor", error)
    return anchor
