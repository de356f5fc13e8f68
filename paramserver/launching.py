"""`launch`, `fit`, `connect`, `list`, `forget`: from a user's data to a named run."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import distributed
import numpy as np

from paramserver.asking import ask_supervisor
from paramserver.consensus import Consensus, named
from paramserver.environment import prepare
from paramserver.errors import InvalidInput, NoScheduler, UnknownRun
from paramserver.penalties import Bound, NoPenalty, Penalty
from paramserver.resumption import check_storable, earlier, fresh
from paramserver.run import Run
from paramserver.server import inferring
from paramserver.server.spec import RunSpec, check_z0
from paramserver.supervisor.data import KEYS_LIMIT
from paramserver.views import Result, Status
from paramserver.workers import at_hand
from paramserver.workers import chunks as chunking
from paramserver.workers.problems.base import Problem

logger = logging.getLogger("paramserver")

RESUMABLE = {
    "until", "max_seconds", "max_pushes", "keep", "inference", "checkpoint_every", "on_chunk_loss", "on_chunk_change",
}  # fmt: skip
PENALTY_METHODS = {
    "value": "value(w) -> R(w)",
    "prox": "prox(v, steps) -> argmin R(w) + Σ (w - v)²/(2 steps)",
    "subgradient": "subgradient(w, near) -> the element of ∂R(w) nearest to near",
}


def launch(
    problem: Problem,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    exposure: Any = None,
    penalty: Penalty | None = None,
    consensus: str | Consensus = "auto",
    z0: Any = None,
    name: str | None = None,
    client: Any = None,
    tol: float | None = None,
    until: Callable[[Status], bool] | None = None,
    max_seconds: float | None = None,
    max_pushes: int | None = None,
    keep: bool = False,
    inference: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    chunks: int | None = None,
    runners_per_worker: int | None = None,
    on_chunk_loss: str = "fail",
    on_chunk_change: str = "fail",
    require_tls: bool = False,
) -> Run:
    """Start a fit on the cluster and return at once; it needs this client no more.

    With an asynchronous client: ``run = await launch(...)``, ``result = await run``.

    Minimises Σ sample_weight·loss(Xw + intercept + offset) + R(w) over z = (w, intercept); the
    intercept is last in z and never penalised.

    Parameters
    ----------
    problem : Problem
        An object such as ``Logistic()`` or ``Poisson(fit_intercept=False)``, or your own.
    X : array_like or scipy sparse (n, d), dask array of either, DataFrame, or list of chunks
        Unknown chunk sizes are fine, and so is what `datasets.encode(..., expand=False)` makes. A
        list holds, one a chunk, futures or delayed values of (X_i, y_i[, weight_i[, offset_i]]),
        tuples of them, or objects handed to the problem untouched.
    y, sample_weight : as X, (n,)
    offset : as X, (n,), or (n, K) where there are K margins a row
        Added to each row's margin.
    exposure : as X, (n,), > 0
        ``offset=log(exposure)`` by another name; only one of both.
    penalty : Penalty
        ``NoPenalty()`` if not given; `L1`, `L2`, `ElasticNet`, `GroupL1`, `Box`, `NonNegative`, or your own.
    consensus : str or Consensus
        "auto", "newton", "active", "lbfgs", "admm", "prox_gradient", "sgd", "easgd", "fedavg",
        "progressive_hedging", "aph", the name of a rule that another package brings, or a rule with settings.
        auto: `AggregatedNewton` where its Hessians fit 1 GB and there are at most 4000 columns; else
        `ActiveNewton` where the penalty has an L1 term and `LBFGS` where it is smooth. The status and
        the result say which, and why, in their notes.
    z0 : (p,) array
        Where to start; the null model otherwise.
    name : str
        Unique among the scheduler's live runs; made up if not given.
    client : distributed.Client
        The current one if not given, also inside a task.
    tol : float
        On the certified relative gap (F − F*)/F(null model). None: 1e-6, and an error of at most
        0.1 standard errors.
    until : callable of Status → bool
        Runs beside the server a few times a second; true ends the run.
    max_seconds, max_pushes : float, int
        Limits; the last z is certified when one is met.
    keep : bool
        The run stays live after convergence, until `Run.stop`.
    inference : bool
        Whether the run ends with the passes over the data that `Result.summary` needs: None where
        there is no penalty, the problem offers them and p ≤ 1000; True also for a larger p.
    checkpoint : str or path
        A directory that every machine sees, or an fsspec URL (``s3://…``): the run's state is written there every
        ``checkpoint_every`` seconds and at its end, for `resume`. It must hold none of another run.
    checkpoint_every : float
        Seconds, > 0.
    chunks : int
        For data in memory: how many chunks (default 8 a worker thread).
    runners_per_worker : int
        Default: each worker's number of threads.
    on_chunk_loss : "fail" or "drop"
        What becomes of the run where a chunk's data are gone for good: the workers that held it left and nothing can
        compute it again, or its task raises. fail: it ends with `ChunkLost`. drop: it goes on to the optimum of the
        other rows; ``notes`` and `Result.left_out` say what was left out. If no chunk with rows is left it fails.
    on_chunk_change : "fail" or "reset"
        What becomes of it where a chunk was lost, computed again, and has other values now (a source that was
        rewritten, or is not deterministic). fail: it ends with `ChunkChanged`. reset: it forgets what it knew of
        this chunk, reads it anew, says so in ``notes``, and ends at the optimum of the data as they are then. Changes
        are seen in arrays, sparse matrices and tables, not in objects of your own.
    require_tls : bool
        Refuse a cluster any part of which is reached by, or listens at, another address than a tls:// one.

    Raises
    ------
    InvalidInput, NameTaken, EnvironmentMismatch, NoScheduler
    """
    url = None if checkpoint is None else fresh(checkpoint)
    settings = {
        "z0": z0, "tol": tol, "until": until, "max_seconds": max_seconds, "max_pushes": max_pushes, "keep": keep,
        "inference": inference, "checkpoint": url, "checkpoint_every": checkpoint_every,
        "on_chunk_loss": on_chunk_loss, "on_chunk_change": on_chunk_change,
    }  # fmt: skip
    given = chunking.Given(X, y, sample_weight, offset, exposure)
    return start(problem, given, penalty, consensus, settings, name, client, chunks, runners_per_worker, require_tls)


def start(
    problem: Problem,
    given: chunking.Given,
    penalty: Penalty | None,
    consensus: str | Consensus,
    settings: dict[str, Any],
    name: str | None,
    client: Any,
    chunks: int | None,
    runners_per_worker: int | None,
    require_tls: bool = False,
    epoch: int = 1,
) -> Run:
    """`launch`, and whatever else begins a run: ``settings`` are `RunSpec`'s."""
    began = time.monotonic()
    client = client_of(client)
    penalty = NoPenalty() if penalty is None else penalty
    rule = named(consensus)
    at_hand.check_one(given.offset, given.exposure)
    _check_plugins(problem, rule, penalty)
    _check_sizes(problem, given, penalty, settings.get("z0"))
    if settings.get("checkpoint") is not None:
        check_storable(rule, penalty)
    if chunks is not None and not (isinstance(chunks, (int, np.integer)) and chunks >= 1):
        raise InvalidInput(f"chunks must be None or a whole number ≥ 1, got {chunks!r}")
    if name is not None and not (isinstance(name, str) and name):
        raise InvalidInput(f"name must be None or text, got {name!r}")
    run_id = uuid.uuid4().hex[:12]
    name = name or f"run-{run_id[:6]}"
    # Checked before any data are sent; how many chunks they make is seen then.
    spec = RunSpec(problem, penalty, rule, 1, name, run_id, **settings)
    inferring.check(spec)

    def make(threads: int) -> tuple[RunSpec, chunking.Chunks]:
        data = chunking.make(client, problem, given, chunks or chunking.default(given.X, threads))
        return replace(spec, n_chunks=len(data.keys), feature_names=data.names), data

    if client.asynchronous:
        return _launch_async(client, make, runners_per_worker, require_tls, epoch, began)  # type: ignore[return-value]
    threads, checked = client.sync(prepare, client, require_tls), time.monotonic() - began
    summary = client.sync(_claim, client, *make(threads), runners_per_worker, epoch, began, checked)
    _own_cluster(client)
    return Run(name, client, summary, began)


async def _launch_async(
    client: Any, make: Callable[[int], Any], runners_per_worker: int | None, require_tls: bool, epoch: int, began: float
) -> Run:
    threads, checked = await prepare(client, require_tls), time.monotonic() - began
    spec, data = make(threads)
    summary = await _claim(client, spec, data, runners_per_worker, epoch, began, checked)
    _own_cluster(client)
    return Run(spec.name, client, summary, began)


def resume(
    checkpoint: str | os.PathLike[str],
    problem: Problem,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    exposure: Any = None,
    penalty: Penalty | None = None,
    consensus: str | Consensus | None = None,
    tol: float | None = None,
    name: str | None = None,
    client: Any = None,
    chunks: int | None = None,
    runners_per_worker: int | None = None,
    require_tls: bool = False,
    **settings: Any,
) -> Run:
    """Go on, on this cluster, from the newest checkpoint of a run that ended or was lost.

    The data are passed again. z is taken over; so are the local models of those chunks that are the same by their
    fingerprints, whatever their order, and `Status.notes` say which begin afresh.

    Parameters
    ----------
    checkpoint : str or path
        Where that run wrote its checkpoints; this one writes there too.
    problem, X, y, sample_weight, offset, exposure, name, client, chunks, runners_per_worker, require_tls :
        As for `launch`.
    penalty, consensus, tol :
        What the run had, if not given; a penalty or rule of your own must be.
    **settings :
        As for `launch`: until, max_seconds, max_pushes, keep, inference, checkpoint_every, on_chunk_loss,
        on_chunk_change.

    Raises
    ------
    CheckpointError
        There is none, or none can be used; the message says why of each.
    InvalidInput
        As for `launch`.
    """
    unknown = sorted(set(settings) - RESUMABLE)
    if unknown:
        raise InvalidInput(f"resume has no setting {unknown[0]!r}; it has {', '.join(sorted(RESUMABLE))}")
    run = earlier(checkpoint)
    settings = {"tol": run.state["tol"] if tol is None else tol, **settings, "checkpoint": run.url, "resume": run.name}
    given = chunking.Given(X, y, sample_weight, offset, exposure)
    return start(
        problem, given, run.penalty() if penalty is None else penalty,
        run.consensus() if consensus is None else consensus, settings, name, client, chunks, runners_per_worker,
        require_tls, run.epoch + 1,
    )  # fmt: skip


def fit(problem: Problem, X: Any, y: Any = None, **options: Any) -> Result:
    """`launch`, then wait for the result; the run is stopped if the wait is interrupted."""
    run: Any = launch(problem, X, y, **options)
    if not isinstance(run, Run):
        return _fit_async(run)  # type: ignore[return-value]
    try:
        return run.result()
    except KeyboardInterrupt:
        run.stop()
        raise


async def _fit_async(launching: Awaitable[Run]) -> Result:
    return await (await launching)


def connect(name: str | None = None, client: Any = None) -> Run:
    """A run by its name, from any process that reaches the scheduler; without a name, the only one.

    Raises
    ------
    UnknownRun
        Lists the runs there are.
    """
    client = client_of(client)
    run: Run = client.sync(_connect, client, name)
    return run


async def _connect(client: Any, name: str | None) -> Run:
    summary = await ask_supervisor(client, "find", name=name)
    return Run(summary["name"], client, summary)


def list_runs(client: Any = None) -> list[dict[str, Any]]:
    """Every run the scheduler knows: name, state, reason, n_chunks, created; newest last."""
    client = client_of(client)
    runs: list[dict[str, Any]] = client.sync(_list_runs, client)
    return runs


async def _list_runs(client: Any) -> list[dict[str, Any]]:
    try:
        found = await ask_supervisor(client, "list")
    except UnknownRun:
        return []
    return [{key: run[key] for key in ("name", "state", "reason", "n_chunks", "created")} for run in found]


def forget(name: str, client: Any = None) -> None:
    """Drop a finished run's result from the scheduler."""
    client = client_of(client)
    out: None = client.sync(ask_supervisor, client, "forget", name=name)
    return out  # with an asynchronous client: to be awaited


# -- checks ----------------------------------------------------------------------------------------


def client_of(client: Any) -> Any:
    """This client, or the current one."""
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            raise InvalidInput("no Dask client: create one, distributed.Client(...), or pass client=") from None
    if client.status not in ("running", "connecting", "newly-created"):
        raise NoScheduler(f"the client is {client.status}: connect a new one")
    return client


def _check_plugins(problem: Any, rule: Consensus, penalty: Any) -> None:
    if not isinstance(problem, Problem):
        raise InvalidInput(f"problem must be a Problem such as Logistic(), an object and no class, got {problem!r}")
    if isinstance(penalty, type) and issubclass(penalty, Penalty):
        raise InvalidInput(f"penalty must be a Penalty, got the class itself: pass {penalty.__name__}(...)")
    lacking = [text for method, text in PENALTY_METHODS.items() if not callable(getattr(penalty, method, None))]
    if lacking:
        lines = "\n".join(f"    def {text}" for text in lacking)
        raise InvalidInput(f"penalty must be a Penalty; {type(penalty).__name__} lacks\n{lines}")
    if not isinstance(penalty, Penalty):
        raise InvalidInput(
            f"penalty must be a Penalty: let {type(penalty).__name__} be a subclass of paramserver.Penalty"
        )
    rule.check(problem)


def _check_sizes(problem: Problem, given: chunking.Given, penalty: Penalty, z0: Any) -> None:
    """What arrays tell before they are read: a target is there, penalty and z0 are for so many columns."""
    if isinstance(given.X, (list, tuple)):
        problem.check_list(given.X)
    shape: Any = getattr(given.X, "shape", ())
    if len(shape) != 2:
        return
    problem.check_given(given.y)
    p = problem.size(int(shape[1])) if isinstance(shape[1], (int, np.integer)) else None
    if p is None:
        return
    bound = Bound(penalty, np.asarray(problem.penalised(p), bool))
    penalty.check_columns(int(shape[1]), int(bound.mask.sum()))
    bound.terms()
    if z0 is not None:
        check_z0(z0, p)


def _own_cluster(client: Any) -> None:
    """A cluster made by this process ends with it, and every run on it: say so, once. Its jobs come back until then."""
    from paramserver.cluster.replacing import replace_lost

    cluster = getattr(client, "cluster", None)
    if cluster is None:
        return
    replace_lost(cluster)
    if not getattr(client, "_paramserver_said", False):
        client._paramserver_said = True
        kind = type(cluster).__name__
        logger.info("the run needs this process: it made the %s, whose scheduler or workers end with it", kind)


async def _claim(
    client: Any, spec: RunSpec, data: chunking.Chunks, runners_per_worker: int | None, epoch: int, began: float,
    checked: float,
) -> Any:  # fmt: skip
    blob, keys = cloudpickle.dumps((spec, dict(enumerate(data.keys)))), cloudpickle.dumps(data.keys)
    stages = {"cluster checked": checked, "data sent": time.monotonic() - began}
    claim = ask_supervisor(
        client, "claim", timeout=KEYS_LIMIT + 15.0, name=spec.name, run_id=spec.run_id, keys=keys, blob=blob,
        runners_per_worker=runners_per_worker, stages=stages, epoch=epoch, checkpoint=spec.checkpoint,
        on_chunk_loss=spec.on_chunk_loss,
    )  # fmt: skip
    try:
        summary = await claim
    except BaseException:
        data.let_go()
        raise
    if summary["warning"]:
        logger.warning("paramserver: run %s: %s", spec.name, summary["warning"])
    return summary
