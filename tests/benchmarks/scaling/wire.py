"""The server's own time for a message and for a question to its dispatch, measured without a rule's arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
from distributed import Client, get_worker

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.consensus.base import Absorbed
from paramserver.messages import Assignment, Push, Request, Task
from paramserver.server.actor import Server
from paramserver.server.core import Core
from paramserver.server.handle import Handle
from paramserver.server.spec import RunSpec
from paramserver.views import Residuals
from paramserver.workers.problems.base import Start
from paramserver.workers.runner import Runner

from ..common import logistic_data, median
from .blank import Blank, Charged, Meter
from .clock import FOREVER, SURVEYED
from .costs import Costs

CHUNKS = 8
COSTLESS = Costs(d=1, rule="none")


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """The median of so many calls, in this thread's own time: other work on the machine counts little."""

    def once() -> float:
        began = time.thread_time()
        call()
        return time.thread_time() - began

    return median([once() for _ in range(rounds)])


# -- the wire --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Carry(Consensus):
    """Takes arrays of any length and gives a z of p; computes nothing."""

    payload = {"x": ("*",), "g": ("*",), "H": ("*",)}  # noqa: RUF012
    optional = frozenset({"H"})

    def init(self, setup: Any) -> int:
        return setup.n_chunks

    def slot_bytes(self, p: int) -> int:
        return 0

    def step(self, problem: Any, data: Any, pull: Any) -> Any:
        raise NotImplementedError

    def absorb(self, state: Any, chunk: int, old: Any, new: Any) -> Absorbed:
        return Absorbed(state, {"x": new["x"]})

    def consensus(self, state: Any, penalty: Any, z: Any) -> Any:
        return z, state

    def residuals(self, *args: Any) -> Residuals:
        return Residuals(np.inf)


@dataclass(frozen=True)
class Sized(Blank):
    """A z of p."""

    p: int = 1

    def start(self, survey: Any) -> Start:
        return Start(np.zeros(self.p), 1.0)


def _exchanges(handle: tuple[Any, ...], sizes: tuple[int, int, int], calls: int) -> list[float]:
    """On another worker: so many exchanges, each with x, g and H of these lengths (H 0: none); seconds of each."""
    runner = Runner(get_worker(), Handle(*handle), 99)
    arrays = dict(zip(("x", "g", "H"), map(np.ones, sizes), strict=True))
    push, held, took = None, frozenset(range(CHUNKS)), []
    for _ in range(calls):
        began = time.perf_counter()
        reply = runner.call("exchange", Request("bench", 1, runner.name, push, None, held))
        took.append(time.perf_counter() - began)
        assert isinstance(reply, Assignment), reply
        payload = arrays if sizes[2] or reply.whole else {"x": arrays["x"], "g": arrays["g"]}
        if reply.task is Task.SURVEY:
            payload = SURVEYED
        push = Push(
            reply.chunk, reply.seq, reply.task, reply.version, payload, None if "H" in payload else reply.seq - 1
        )
    return took


def wire(client: Client, sizes: tuple[int, int, int, int], rounds: int = 4) -> tuple[float, float]:
    """(seconds of the server's process, of the round trip) for an exchange: x, g and H in, z out, of these lengths."""
    calls = int(np.clip(2.5e8 / (8 * sum(sizes)), 20, 200))
    here, there = list(client.scheduler_info()["workers"])
    problem, key = Sized(COSTLESS, Meter(), sizes[3]), f"bench-server-{sizes}"
    spec = RunSpec(problem, ps.NoPenalty(), Carry(), CHUNKS, run_id="bench", patience=FOREVER)
    blob = cloudpickle.dumps((spec, dict.fromkeys(range(CHUNKS), ("k",))))
    server = client.submit(Server, blob, "bench", 1, actor=True, workers=[here], key=key)
    server.result()

    def some(calls: int) -> tuple[float, float]:
        before = client.run(time.process_time, workers=[here])[here]
        handle = (key, here, "bench", 1)
        took = client.submit(_exchanges, handle, sizes[:3], calls, workers=[there], pure=False).result()
        return (client.run(time.process_time, workers=[here])[here] - before) / calls, median(took[calls // 4 :])

    some(3 * CHUNKS)
    cpu, trip = zip(*(some(calls) for _ in range(rounds)), strict=True)
    return median(list(cpu)), median(list(trip))


# -- the dispatch ----------------------------------------------------------------------------------


def _running(n: int) -> Core:
    """A core in its second sweep, all chunks wanted; four chunks a worker."""
    rule = Charged(costs=COSTLESS, meter=Meter(), min_fresh=n)
    core = Core(RunSpec(Blank(COSTLESS, Meter()), ps.NoPenalty(), rule, n, patience=FOREVER), 0, 0.0)
    for worker in range(n // 4):
        core.dispatch.holds(f"w{worker}", range(worker, n, n // 4))
    for task, payload in ((Task.SURVEY, SURVEYED), (Task.SOLVE, {"H": np.float64(0)})):
        _push(core, task, payload, range(n))
        core.refresh(1.0)
    return core


def _push(core: Core, task: Task, payload: Any, chunks: Iterable[int]) -> None:
    for i in chunks:
        slot = core.params.slots[i]
        base = None if "H" in payload else slot.seq
        core.deliver(Push(i, slot.seq + 1, task, core.params.version, payload, base, 1.0), 1.0)


def _ask(core: Core, calls: int = 16) -> float:
    """Seconds of one question to the dispatch."""

    def some() -> None:
        for worker in range(calls):
            core.assign(f"w{worker}#0", None, 2.0)
        for slot in core.params.slots:
            slot.lease = None

    return seconds(some, 15) / calls


def dispatch(few: int = 64, many: int = 2048) -> dict[str, float]:
    """One question to the dispatch, by the chunks there are and by those that are wanted; one merge."""
    cores = {n: _running(n) for n in (few, many)}
    all_wanted = _ask(cores[many])
    for n, core in cores.items():
        _push(core, Task.SOLVE, {}, range(n - 1))
    base, live = _ask(cores[few]), _ask(cores[many])
    each = max(live - base, 0.0) / (many - few)
    survey = ps.Logistic().survey(ps.Logistic().prepare(*logistic_data(100, 4), None, None))
    merge = seconds(lambda: [ps.Logistic().merge(survey, survey) for _ in range(1000)], 9) / 1000
    return {
        "choose": base - few * each, "choose_live": each, "choose_wanted": (all_wanted - live) / many, "merge": merge,
    }  # fmt: skip
