"""The same server and the same local steps in virtual time, without Dask.

Try a rule, a penalty or a problem under stragglers, deaths and a bad network before it costs
cluster hours. Deterministic by seed. One unit of virtual time is one gradient pass over a chunk of
mean size on a worker of speed 1; a Hessian costs p/40 passes, that of k coordinates of many k/200.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from paramserver.consensus import Consensus, named
from paramserver.errors import InvalidInput
from paramserver.messages import ELSEWHERE, Array, Assignment, Push, Version, Wait
from paramserver.penalties import NoPenalty, Penalty
from paramserver.server import inferring, reading
from paramserver.server.core import Core
from paramserver.server.spec import RunSpec
from paramserver.views import Result
from paramserver.workers.cutting import cut
from paramserver.workers.problems.base import Problem
from paramserver.workers.tasks import answer


@dataclass(frozen=True)
class Network:
    """What happens to messages and workers.

    Parameters
    ----------
    speeds : sequence of float
        Slowness of each worker: 1 normal, 10 a straggler; its length is the number of workers.
    latency : float
        One exchange, in gradient passes.
    copies : int
        How many workers hold each chunk at the start (round robin).
    fetch : float
        Time to copy a chunk to another worker when the server asks for it; inf: never.
    deaths : sequence of (worker, when, back)
        A worker dies with its work at ``when`` and is back, its chunks with it, at ``back``
        (inf: never; another worker takes its chunks over).
    lost, late, doubled : float
        Probabilities of a push.
    """

    speeds: Sequence[float] = (1.0,) * 8
    latency: float = 0.1
    copies: int = 2
    fetch: float = 2.0
    deaths: Sequence[tuple[int, float, float]] = ()
    lost: float = 0.0
    late: float = 0.0
    doubled: float = 0.0


@dataclass(frozen=True)
class Simulation:
    """How a simulated run went: the result, its virtual time, and where the time was spent (`Result.profile` too)."""

    result: Result
    time: float
    pushes_per_chunk: float
    hessians: int
    busy: Array  #: share of the time that each worker computed


class _Costed:
    """A problem that counts the rows it passes over, and the Hessians."""

    PASSES = (
        "evaluate", "curvature", "line", "fenchel", "hessian_diagonal", "dual", "prox", "moments", "log_likelihood",
    )  # fmt: skip

    def __init__(self, problem: Problem) -> None:
        self._problem, self.cost, self.hessians = problem, 0.0, 0

    def settle(self, problem: Problem) -> None:
        """The problem as it was bound to the data."""
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._problem, name)
        if name in self.PASSES:
            return partial(self._pass, value)
        if name in ("hessian", "hessian_of"):
            return partial(self._hessian, value, 40.0 if name == "hessian" else 200.0)
        return value

    def _pass(self, make: Callable[..., Any], data: Any, *args: Any, **more: Any) -> Any:
        self.cost += data.rows
        return make(data, *args, **more)

    def _hessian(self, make: Callable[..., Array], columns: float, data: Any, *args: Any) -> Array:
        out = make(data, *args)
        self.cost += data.rows * len(out) / columns
        self.hessians += 1
        return out


@dataclass
class _World:
    core: Core
    problem: _Costed
    data: list[Any]
    network: Network
    rng: np.random.Generator
    now: float = 0.0
    events: list[Any] = field(default_factory=list)
    parked: list[int] = field(default_factory=list)
    have: dict[int, tuple[Version, Array]] = field(default_factory=dict)
    holds: list[set[int]] = field(default_factory=list)
    life: list[int] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    count: int = 0

    def at(self, when: float, what: str, *args: Any) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, args))

    def run(self, limit: float) -> None:
        while self.events and self.core.state not in ("finished", "failed", "converged"):
            self.now, _, what, args = heapq.heappop(self.events)
            if self.now > limit:
                self.core.end("max_seconds", limit, verify=False)
                return
            getattr(self, "on_" + what)(*args)
            self.core.tick(self.now)
            self._wake()

    def _wake(self) -> None:
        while self.core.due:
            self.core.refresh(self.now)
            if self.core.timesheet.tracer is not None:
                self.core.timesheet.tracer.look(self.core, self.now)
        parked, self.parked = self.parked, []
        for worker in parked:
            self._ask(worker)

    # -- events ----------------------------------------------------------------------------------

    def on_ask(self, worker: int, life: int, push: Push | None = None) -> None:
        if life == self.life[worker]:
            self.core.came(f"w{worker}#0", push, self.now)
            self.parked.append(worker)

    def on_push(self, worker: int, life: int, push: Push, answered: bool) -> None:
        """A message under way arrives even if its sender has died since."""
        self.core.deliver(push, self.now)
        if answered:
            self.on_ask(worker, life, push)

    def on_fetched(self, worker: int, life: int, chunk: int) -> None:
        if life == self.life[worker]:
            self.holds[worker].add(chunk)
            self.core.dispatch.holds(f"w{worker}", self.holds[worker])
            count, seconds = self.core.dispatch.copied.get(f"w{worker}", (0, 0.0))
            self.core.dispatch.copied[f"w{worker}"] = count + 1, seconds + self.network.fetch

    def on_death(self, worker: int, back: float) -> None:
        self.life[worker] += 1
        self.core.dispatch.gone(f"w{worker}")
        self.core.timesheet.gone(f"w{worker}", self.now)
        if worker in self.parked:
            self.parked.remove(worker)
        if np.isfinite(back):
            self.at(back, "birth", worker)
        else:
            alive = [w for w in range(len(self.life)) if self.core.dispatch.holders.get(f"w{w}")]
            for k, chunk in enumerate(sorted(self.holds[worker])):
                if alive:
                    heir = alive[k % len(alive)]
                    self.at(self.now + self.network.fetch, "fetched", heir, self.life[heir], chunk)

    def on_birth(self, worker: int) -> None:
        self.core.dispatch.holds(f"w{worker}", self.holds[worker])
        self.have.pop(worker, None)
        self.on_ask(worker, self.life[worker])

    def on_tick(self, every: float) -> None:
        self.at(self.now + every, "tick", every)

    # -- one worker ------------------------------------------------------------------------------

    def _ask(self, worker: int) -> None:
        version, z = self.have.get(worker, (None, None))
        reply = self.core.assign(f"w{worker}#0", version, self.now)
        if isinstance(reply, (Wait, Assignment)) and reply.fetch is not None and np.isfinite(self.network.fetch):
            self.at(self.now + self.network.fetch, "fetched", worker, self.life[worker], reply.fetch)
        if isinstance(reply, Wait):
            self.parked.append(worker)
        elif isinstance(reply, Assignment):
            self.core.timesheet.answered(f"w{worker}#0", reply, self.now)
            self._work(worker, reply, z)

    def _work(self, worker: int, work: Assignment, z: Array | None) -> None:
        if work.z is not None:
            z = work.z
            if work.task not in ELSEWHERE:
                self.have[worker] = (work.version, z)
        self.problem.settle(self.core.params.problem)
        before, rows = self.problem.cost, max(self.data[work.chunk].rows, 1)
        payload = answer(self.core.params.rule, self.problem, self.data[work.chunk], work, z)  # type: ignore[arg-type]
        share = rows * len(self.data) / sum(d.rows for d in self.data)
        seconds = max((self.problem.cost - before) / rows, 0.05) * share * self.network.speeds[worker]
        self.busy[worker] += seconds
        trouble = "too_far" if payload is None else None
        base = None if work.whole else work.seq - 1
        push = Push(work.chunk, work.seq, work.task, work.version, payload or {}, base, seconds, trouble=trouble)
        self._send(worker, push, self.now + seconds + self.network.latency)

    def _send(self, worker: int, push: Push, when: float) -> None:
        net, life = self.network, self.life[worker]
        if self.rng.random() < net.lost:
            self.at(when + 5.0, "ask", worker, life)
            return
        if self.rng.random() < net.late:
            when += float(self.rng.exponential(20.0))
        self.at(when, "push", worker, life, push, True)
        if self.rng.random() < net.doubled:
            self.at(when + float(self.rng.exponential(10.0)), "push", worker, life, push, False)


def simulate(
    problem: Problem,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    exposure: Any = None,
    chunks: int | Iterable[Any] = 64,
    penalty: Penalty | None = None,
    consensus: Consensus | str = "auto",
    network: Network | None = None,
    tol: float = 1e-8,
    seed: int = 0,
    limit: float = 1e5,
    inference: bool | None = False,
    trace: bool = False,
) -> Simulation:
    """Run a fit in virtual time.

    Parameters
    ----------
    problem, penalty, consensus :
        As in `paramserver.launch`.
    X, y, sample_weight, offset or exposure : arrays with the same number of rows; X also scipy sparse
        or a `Table`, or, alone, a list of chunks: (X_i, y_i[, weight_i[, offset_i]]), or objects as they are
    chunks : int, or iterable of index arrays
        How the rows are cut.
    network : Network
    tol : float
        Certified relative gap to reach.
    seed : int
    limit : float
        Virtual time at which the run ends unfinished.
    inference : bool
        As in `paramserver.launch`, and off unless asked for: it takes time.
    trace : bool
        Whether the result has a `Trace`: every version of z, and every step.
    """
    rule = named(consensus)
    rule.check(problem)
    if isinstance(X, (list, tuple)):
        problem.check_list(X)
    network = network or Network()
    data = prepared(problem, X, y, sample_weight, offset, exposure, chunks)
    spec = RunSpec(
        problem, penalty or NoPenalty(), rule, len(data), tol=tol, patience=0.5, silence=1e9, inference=inference,
        trace=trace,
    )  # fmt: skip
    inferring.check(spec)
    n = len(network.speeds)
    world = _World(Core(spec, 0, 0.0), _Costed(problem), data, network, np.random.default_rng(seed))
    world.holds = [set() for _ in range(n)]
    for i in range(len(data)):
        for k in range(min(network.copies, n)):
            world.holds[(i + k * (1 + i // n % max(n - 1, 1))) % n].add(i)
    world.life, world.busy = [0] * n, [0.0] * n
    for worker in range(n):
        world.at(0.0, "birth", worker)
    for worker, when, back in network.deaths:
        world.at(when, "death", worker, back)
    world.at(1.0, "tick", 1.0)
    world.run(limit)
    core = world.core
    core.timesheet.unit = "passes"
    if core.error is not None:
        raise core.error
    out = reading.result(core)
    if out is None:
        raise InvalidInput(f"the simulated run read not one chunk within {limit} units of time")
    time = world.now
    return Simulation(out, time, core.record.pushes / len(data), world.problem.hessians, np.array(world.busy) / time)


def prepared(
    problem: Problem, X: Any, y: Any, sample_weight: Any, offset: Any, exposure: Any, chunks: int | Iterable[Any]
) -> list[Any]:
    """The data of every chunk, as `Problem.prepare` makes them."""
    return [problem.prepare(*parts) for parts in cut(X, y, sample_weight, offset, exposure, chunks)]
