"""A runner beside its server: no wire between them, and nothing shared all the same."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paramserver.errors import InvalidInput, ServerGone
from paramserver.server.handle import SMALL, Handle, open_door, pack, unpack

HANDLE = Handle("key", "tcp://here", "run", 1)


class Keeps:
    """An actor that keeps what it is given, and gives what it keeps."""

    async def swap(self, packed: Any) -> Any:
        """The last value; this one is kept."""
        out, self.kept = getattr(self, "kept", None), unpack(packed)
        return pack(out)

    async def refuse(self, packed: Any) -> Any:
        """An error of ours."""
        raise InvalidInput(f"not {unpack(packed)}")


@pytest.fixture
def worker() -> Any:
    made = SimpleNamespace(address="tcp://here", handlers={}, state=SimpleNamespace(actors={"key": Keeps()}))
    open_door(made)
    return made


@pytest.mark.parametrize("size", [3, SMALL], ids=["small", "large"])
def test_neither_side_can_write_into_the_other_s_arrays(worker: Any, size: int) -> None:
    mine = np.zeros(size)

    async def there_and_back() -> Any:
        await HANDLE.packed(worker, "swap", {"x": mine})
        mine[:] = 1.0
        return await HANDLE.packed(worker, "swap", None)

    out = asyncio.run(there_and_back())
    assert not out["x"].any()
    assert not out["x"].flags.writeable


def test_what_a_server_raises_is_raised(worker: Any) -> None:
    with pytest.raises(InvalidInput, match="not this"):
        asyncio.run(HANDLE.packed(worker, "refuse", "this"))


def test_a_server_that_left_is_gone(worker: Any) -> None:
    worker.state.actors.clear()
    with pytest.raises(ServerGone, match="cannot be reached"):
        asyncio.run(HANDLE.packed(worker, "swap", None))


def test_a_process_that_never_had_a_server_is_no_server(worker: Any) -> None:
    worker.handlers.clear()
    with pytest.raises(ServerGone, match="cannot be reached"):
        asyncio.run(HANDLE.packed(worker, "swap", None))
