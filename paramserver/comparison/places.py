"""Where rules are compared: on a cluster, or in virtual time. Both run one, and know F(z) of any z."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from distributed import futures_of, wait

from paramserver.comparison.network import even
from paramserver.comparison.straggler import slowed
from paramserver.consensus import Consensus
from paramserver.environment import prepare
from paramserver.errors import BadData, CallTimeout, InvalidInput, ParamServerError, StepFailed
from paramserver.launching import client_of, forget, start
from paramserver.messages import Array
from paramserver.penalties import Bound, Penalty
from paramserver.simulator import Network, Simulation, prepared, simulate
from paramserver.views import Result
from paramserver.workers import at_hand
from paramserver.workers import chunks as chunking
from paramserver.workers.problems.base import Problem

LOADING = 600.0  #: seconds for lazy data to be there


class Ran(NamedTuple):
    """A run that is over, and the time in its trace from which on it counts."""

    result: Result
    zero: float


class Place(Protocol):
    """Data that are there, and workers."""

    unit: str
    n_chunks: int
    rows: int
    workers: int

    def run(self, rule: Consensus, tol: float, slow: bool, limit: float) -> Ran:
        """One fit."""

    def objective(self, zs: Sequence[Array]) -> Array:
        """F of each z in the units of the fit."""


class Objective:
    """The whole objective, from one that knows the losses of every chunk."""

    def __init__(self, problem: Problem, penalty: Penalty, surveys: list[Array]) -> None:
        surveys = [survey for survey in surveys if survey[0]]
        if not surveys:
            raise BadData("every chunk is empty: there are no rows to fit")
        merged = reduce(problem.merge, surveys)
        self.rows, self.problem, self._penalty = int(merged[0]), problem.at(merged), penalty

    def whole(self, losses: Array, zs: Sequence[Array]) -> Array:
        """Losses and penalty."""
        bound = Bound(self._penalty, np.asarray(self.problem.penalised(len(zs[0])), bool))
        out: Array = losses + np.array([bound.value(z) for z in zs])
        return out


def values(problem: Any, data: Any, zs: Sequence[Array]) -> Array:
    """One chunk's losses at each z."""
    return np.array([float(problem.evaluate(data, z).value) for z in zs])


class Simulated:
    """In virtual time."""

    unit = "passes"

    def __init__(self, problem: Problem, given: chunking.Given, penalty: Penalty, chunks: Any, net: Network, seed: int):
        self._problem, self._given, self._penalty, self._chunks = problem, given, penalty, chunks
        self._net, self._seed, self.workers = net, seed, len(net.speeds)
        self._data = prepared(problem, *given, chunks)
        self._whole = Objective(problem, penalty, [problem.survey(data) for data in self._data])
        self.n_chunks, self.rows = len(self._data), self._whole.rows

    def run(self, rule: Consensus, tol: float, slow: bool, limit: float) -> Ran:
        with _as_on_a_cluster(rule):
            found = self._simulated(rule, tol, slow, limit)
        return Ran(found.result, 0.0)

    def _simulated(self, rule: Consensus, tol: float, slow: bool, limit: float) -> Simulation:
        given = self._given
        return simulate(
            self._problem, given.X, given.y, sample_weight=given.sample_weight, offset=given.offset,
            exposure=given.exposure, chunks=self._chunks, penalty=self._penalty, consensus=rule, tol=tol,
            network=self._net if slow else even(self._net), seed=self._seed, limit=limit, trace=True,
        )  # fmt: skip

    def objective(self, zs: Sequence[Array]) -> Array:
        losses: Array = np.sum([values(self._whole.problem, data, zs) for data in self._data], axis=0)
        return self._whole.whole(losses, zs)


class OnCluster:
    """On a cluster whose workers hold the data once for all rules."""

    unit = "s"

    def __init__(
        self, problem: Problem, given: chunking.Given, penalty: Penalty, chunks: int | None, client: Any, times: float
    ) -> None:
        self._problem, self._penalty, self._client = problem, penalty, client_of(client)
        if self._client.asynchronous:
            raise InvalidInput("compare needs a synchronous client: Client(address), not an asynchronous one")
        at_hand.check_one(given.offset, given.exposure)
        if len(getattr(given.X, "shape", ())) == 2:
            problem.check_given(given.y)
        threads = self._client.sync(prepare, self._client)
        made = chunking.make(self._client, problem, given, chunks or chunking.default(given.X, threads))
        futures = {future.key: future for future in futures_of(made.held)}
        self._waited(list(futures.values()))
        self.workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        self._slow = slowed(problem, times, _last(self._client)) if times else problem
        self._chunks = [tuple(None if key is None else futures[key] for key in keys) for keys in made.keys]
        self._whole = Objective(problem, penalty, self._on_chunks(_survey, problem))
        self.n_chunks, self.rows = len(self._chunks), self._whole.rows

    def run(self, rule: Consensus, tol: float, slow: bool, limit: float) -> Ran:
        given = chunking.Given(self._chunks)
        settings = {"tol": tol, "max_seconds": limit, "inference": False, "trace": True}
        problem = self._slow if slow else self._problem
        run = start(problem, given, self._penalty, rule, settings, None, self._client, None, None)
        try:
            result = run.result(timeout=2.0 * limit + 120.0)
        except BaseException:
            with contextlib.suppress(ParamServerError):
                run.stop()
            raise
        finally:
            with contextlib.suppress(ParamServerError):
                forget(run.name, self._client)
        stages = {} if result.profile is None else result.profile.stages
        # Stages are since the call of launch, the trace since the server began.
        return Ran(result, stages.get("data held", 0.0) - (stages.get("end", result.seconds) - result.seconds))

    def objective(self, zs: Sequence[Array]) -> Array:
        points = self._client.scatter(np.array(zs), broadcast=True, hash=False)
        losses: Array = np.sum(self._on_chunks(_values, self._whole.problem, points), axis=0)
        return self._whole.whole(losses, zs)

    def _on_chunks(self, function: Any, *args: Any) -> list[Any]:
        tasks = [self._client.submit(function, *args, *parts, pure=False) for parts in self._chunks]
        self._waited(tasks)
        found: list[Any] = self._client.gather(tasks)
        return found

    def _waited(self, futures: list[Any]) -> None:
        try:
            with self._client.as_current():
                wait(futures, timeout=LOADING)
        except (TimeoutError, asyncio.TimeoutError):
            raise CallTimeout(f"chunks were not read within {LOADING:g} s: are there still workers?") from None


@contextlib.contextmanager
def _as_on_a_cluster(rule: Consensus) -> Iterator[None]:
    """Whatever a step raises is the run's end, and ours to say."""
    try:
        yield
    except ParamServerError:
        raise
    except Exception as error:
        raise StepFailed.of(type(rule).__name__, error) from error


def _last(client: Any) -> str:
    """The worker that is to be the straggler."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return max(workers, key=lambda address: (str(workers[address]["name"]), address))  # type: ignore[no-any-return]


def _unpacked(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    return parts[0] if len(parts) == 1 and isinstance(parts[0], tuple) else parts


def _survey(problem: Problem, *parts: Any) -> Array:
    return problem.survey(problem.prepare(*_unpacked(parts)))


def _values(problem: Problem, zs: Array, *parts: Any) -> Array:
    return values(problem, problem.prepare(*_unpacked(parts)), list(zs))
