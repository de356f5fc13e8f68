"""A server that is sent what no runner sends refuses it, answers, and goes on."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
from cluster.helpers import Processes, Slow

import paramserver as ps
from paramserver import errors
from paramserver.asking import ask_supervisor
from paramserver.messages import Failure, Push, Request, Task, Version
from paramserver.server.handle import DOOR, Handle, pack

from .helpers import assert_nothing_left, check, launch, under_way

LIMIT = 10.0  #: seconds for an answer, whatever was asked


def requests(handle: Handle) -> list[Any]:
    """Calls of a runner, each with something in it that cannot be."""
    good = Request(handle.run_id, handle.epoch, "stranger#0", None, None, None)
    parts: dict[str, list[Any]] = {
        "run_id": [None, 3, b"x", np.ones(2)],
        "epoch": [None, "1", 1.0, True, -1, 2**70],
        "runner": [None, 3, "", "no number", b"a#0", ["a#0"], np.ones(2)],
        "have": [3, "x", (1, 2), np.ones(2), Version("x", 1), Version(1, 2**70)],  # type: ignore[arg-type]
        "held": [3, "x", [0], {0}, frozenset(["x"]), frozenset([-1]), frozenset([1.5])],
        "roster": [None, "x", -1, 1.5, 2**70],
        "looking": [None, "x", -1.0, float("nan"), float("inf")],
        "copied": [None, 3, (1,), (1, 2, 3), ("x", 0.0), (-1, 0.0), (0, float("nan")), (0, "x"), [0, 0.0]],
    }
    wrong = [good._replace(**{name: value}) for name, values in parts.items() for value in values]
    return [*wrong, None, 3, "x", {}, (), tuple(good), [good], good._asdict()]


def pushes(handle: Handle) -> list[Any]:
    """What cannot be a push."""
    at = Version(handle.epoch, 1)
    good = Push(0, 1, Task.SOLVE, at, {"x": np.zeros(9), "f": 1.0, "g": np.zeros(9), "H": np.eye(9)}, None, 1.0)
    parts: dict[str, list[Any]] = {
        "chunk": [None, True, -1, 10**9, 2**70, "0", 0.0],
        "seq": [None, True, -1, 2**70, 10**6, "1", float("nan")],
        "task": [None, "solve", 3, Task.SURVEY, Task.INFER, Task.NULL],
        "version": [None, (1, 1), Version(handle.epoch, 10**9), Version(handle.epoch + 1, 1), Version(0, 0)],
        "payload": [None, 3, {}, {1: 2}, {"x": "x"}],
        "seconds": [None, "x", -1.0, float("nan"), float("inf")],
        "fingerprint": ["x", (None,)],
        "trouble": ["late", [], 3],
    }
    wrong = [good._replace(**{name: value}) for name, values in parts.items() for value in values]
    failures = [Failure("x", errors.RunFailed("x")), Failure(10**9, errors.RunFailed("x")), Failure(0, "x")]  # type: ignore[arg-type]
    return [*wrong, *failures, 3, "x", (), {}]


def garbage(handle: Handle) -> list[Any]:
    """Bytes that no message is made of."""
    rng = random.Random(0)
    whole = pickle.dumps(requests(handle)[0])
    cut = [[whole[: rng.randrange(len(whole))]] for _ in range(20)]
    return [*cut, [b""], [b"\x80\x05"], [b"."], [whole, b"more"], b"", [], None, 3, "x", {}, [[]], [None]]


async def send(client: Any, handle: Handle, method: str, packed: Any) -> dict[str, Any]:
    """As a runner does; the answer may be an error, but there is one."""
    import asyncio

    call = getattr(client.rpc(handle.address), DOOR)(actor=handle.key, method=method, packed=packed)
    return dict(await asyncio.wait_for(call, LIMIT))


def test_a_server_is_sent_garbage(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client, Slow(delay=0.1), keep=True)
    under_way(run, 5)
    handle = Handle(*client.sync(ask_supervisor, client, "find", name=run.name)["handle"])
    ours = 0
    for method in ("exchange", "replay", "hello"):
        for packed in [*garbage(handle), *map(pack, requests(handle))]:
            reply = client.sync(send, client, handle, method, packed)
            ours += isinstance(reply.get("exception"), errors.ParamServerError)
            assert reply["status"] == "error" or method == "replay", (method, packed, reply)
    assert ours > 150
    sent = pushes(handle)
    for push in sent:
        request = Request(
            handle.run_id, handle.epoch, "stranger#0", push, None, None, 999
        )  # who knows other chunks is answered at once
        assert client.sync(send, client, handle, "exchange", pack(request))["status"] == "OK", push
    assert client.sync(send, client, handle, "replay", pack(sent))["status"] == "OK"
    result = check(run)
    assert result.n_refused >= 40
    assert run.status().epoch == 1
    assert ps.connect(run.name, client).status().refused["malformed"] >= 20
    run.stop()
    assert_nothing_left(client)
