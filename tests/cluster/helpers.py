"""What the cluster tests share: data, an independent optimum, slow problems, clusters of own processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import distributed
import numpy as np

import paramserver as ps
from cluster.forks import Forked
from paramserver.views import Residuals

TESTS = Path(__file__).parent.parent
ENVIRON = {  #: of every process that the tests start
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(Path(ps.__file__).parent.parent)]),
}
LONG = np.longdouble


# -- data ------------------------------------------------------------------------------------------


def make_data(n: int = 20_000, d: int = 10, seed: int = 0, kind: str = "logistic") -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns, a sparse truth, an offset; y is 0/1 or real."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)) / np.sqrt(d))
    w = np.where(np.arange(d) % 3 == 0, 0.0, rng.standard_normal(d)) / np.sqrt(d)
    m = X @ w - 0.7
    if kind == "logistic":
        return X, (rng.uniform(size=n) < 1 / (1 + np.exp(-m))).astype(np.float64)
    return X, m + rng.standard_normal(n)


# -- the optimum, found another way ----------------------------------------------------------------


class Reference(NamedTuple):
    """The optimum and what gaps are relative to; values in extended precision."""

    z: np.ndarray
    objective: Any
    null: Any
    value: Callable[[np.ndarray], Any]

    def gap(self, z: np.ndarray) -> float:
        """(F(z) − F*) / F(null model)."""
        return float((self.value(z) - self.objective) / self.null)


def reference(problem: Any, X: Any, y: Any, penalty: Any = None, weight: Any = None) -> Reference:
    """Proximal Newton with exact active-set polish, in numpy; F in extended precision."""
    penalty = ps.NoPenalty() if penalty is None else penalty
    logistic = isinstance(problem, ps.Logistic)
    X = np.asarray(X, np.float64)
    y = np.asarray(y).astype(np.float64)
    y = (y > 0).astype(np.float64) if logistic else y
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    A = np.column_stack([X, np.ones(len(X))]) if problem.fit_intercept else X
    p, d = A.shape[1], X.shape[1]
    free = np.arange(p) >= d
    l1 = np.where(free, 0.0, penalty.alpha * penalty.l1_ratio)
    l2 = np.where(free, 0.0, penalty.alpha * (1 - penalty.l1_ratio))
    A_long, y_long, weight_long = A.astype(LONG), y.astype(LONG), weight.astype(LONG)

    def value(z: np.ndarray) -> Any:
        z_long = np.asarray(z).astype(LONG)
        m = (A_long * z_long).sum(axis=1)
        losses = np.logaddexp(LONG(0), m) - y_long * m if logistic else (m - y_long) ** 2 / 2
        return (weight_long * losses).sum() + (l1 * np.abs(z_long)).sum() + (l2 * z_long**2).sum() / 2

    scale = np.sqrt((A * A).mean(axis=0))
    A, lasso, ridge = A / scale, l1 / scale, l2 / scale**2
    start = np.zeros(p)
    if problem.fit_intercept:
        mean = float(weight @ y / weight.sum())
        start[-1] = np.log(mean / (1 - mean)) if logistic else mean
    v = start * scale
    best, null = value(v / scale), value(start)
    for _ in range(100):
        m = A @ v
        rate = 1 / (1 + np.exp(-m)) if logistic else m
        slope = A.T @ (weight * (rate - y)) + ridge * v
        H = (A * (weight * (rate * (1 - rate) if logistic else 1.0))[:, None]).T @ A + np.diag(ridge)
        step = _minimise(H, slope, lasso, v)
        t = 1.0
        while (now := value((v + t * step) / scale)) > best and t > 1e-4:
            t /= 2
        small = float(step @ H @ step) < 1e-22 * float(null)
        if now <= best:
            v, best = v + t * step, now
        if small:
            break
    else:
        raise AssertionError("the reference did not converge")
    return Reference(v / scale, best, null, value)


def _minimise(H: np.ndarray, slope: np.ndarray, l1: np.ndarray, v: np.ndarray) -> np.ndarray:
    """argmin over s of slopeᵀs + ½sᵀHs + Σ l1|v + s|: coordinate descent, then exact on its support."""
    if not l1.any():
        return -np.linalg.solve(H, slope)
    s = np.zeros_like(v)
    g = slope.copy()
    for _ in range(2000):
        largest = 0.0
        for j in range(len(v)):
            w = v[j] + s[j]
            u = w - g[j] / H[j, j]
            new = np.sign(u) * max(abs(u) - l1[j] / H[j, j], 0.0)
            if new != w:
                g += H[:, j] * (new - w)
                s[j] += new - w
                largest = max(largest, abs(new - w))
        if largest < 1e-14:
            break
    on = (v + s != 0) | (l1 == 0)
    polished = -v.copy()
    rest = slope[on] + l1[on] * np.sign(v + s)[on] + H[np.ix_(on, ~on)] @ polished[~on]
    polished[on] = -np.linalg.solve(H[np.ix_(on, on)], rest)
    return polished


# -- problems and rules that take their time ---------------------------------------------------------


@dataclass(frozen=True)
class Slow(ps.Logistic):
    """Logistic whose every evaluation sleeps, ``factor`` times longer on workers whose name is in ``slow``."""

    delay: float = 0.02
    slow: tuple[str, ...] = ()
    factor: float = 6.0

    def evaluate(self, data: Any, z: Any) -> Any:
        name = str(distributed.get_worker().name)
        time.sleep(self.delay * (self.factor if name in self.slow else 1.0))
        return super().evaluate(data, z)


@dataclass(frozen=True)
class Endless(ps.AggregatedNewton):
    """Never asks to be verified: the run goes on until it is stopped or a limit ends it."""

    def residuals(self, state: Any, slots: Any, penalty: Any, z: Any) -> Residuals:
        return Residuals(float("inf"))


# -- waiting ---------------------------------------------------------------------------------------


def until(condition: Callable[[], Any], seconds: float = 30.0, every: float = 0.05) -> Any:
    """Wait for something to be true; what it was."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, f"not within {seconds:g} s: {condition}"
        time.sleep(every)
    return value


# -- clusters whose every part is a process ----------------------------------------------------------


class Worker(NamedTuple):
    """A worker without a nanny."""

    name: str
    process: subprocess.Popen[bytes] | Forked

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)


class Processes:
    """A scheduler and workers, each a process of its own; ``args`` are for all of them."""

    def __init__(
        self, folder: Any, env: dict[str, str] | None = None, args: tuple[str, ...] = (),
        scheduler_args: tuple[str, ...] = ("--port", "0"),
    ) -> None:  # fmt: skip
        self.folder, self.args = folder, args
        self.file = str(folder / f"scheduler-{time.monotonic_ns()}.json")
        self.workers: dict[str, Worker] = {}
        self.scheduler = self.start("dask_scheduler", *scheduler_args, "--scheduler-file", self.file, env=env)
        until(lambda: os.path.exists(self.file) and os.path.getsize(self.file), 30.0)

    def start(self, what: str, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """One of Dask's command line tools."""
        with self._log(what).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{what}", "--no-dashboard", *self.args, *args],
                env={**os.environ, **ENVIRON, **(env or {})}, stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip

    def _log(self, what: str) -> Path:
        return Path(self.folder, f"{what}-{time.monotonic_ns()}.log")

    def add(self, *names: str, args: tuple[str, ...] = (), env: dict[str, str] | None = None) -> list[Worker]:
        """Start workers; `wait_for` waits for them."""
        for name in names:
            words = (
                "--scheduler-file", self.file, "--no-nanny", "--nthreads", "1",
                "--name", name, "--local-directory", str(self.folder), *args,
            )  # fmt: skip
            self.workers[name] = Worker(name, self._worker(words, env))
        return [self.workers[name] for name in names]

    def _worker(self, words: tuple[str, ...], env: dict[str, str] | None) -> subprocess.Popen[bytes] | Forked:
        """A whole interpreter where the environment that it reads is another, or its end is looked at."""
        if env or "--preload" in words:
            return self.start("dask_worker", *words, env=env)
        return Forked(("--no-dashboard", *self.args, *words), self.folder, self._log("dask_worker"), ENVIRON)

    def client(self, **kwargs: Any) -> distributed.Client:
        return distributed.Client(scheduler_file=self.file, **kwargs)

    def by_name(self, client: distributed.Client) -> dict[str, str]:
        """name → address of the workers there are."""
        info = client.run_on_scheduler(_names)
        return dict(info)

    def wait_for(self, client: distributed.Client, *names: str) -> dict[str, str]:
        """The named workers' addresses once all are there."""
        until(lambda: set(names) <= set(self.by_name(client)))
        return self.by_name(client)

    def named(self, client: distributed.Client, address: str) -> str:
        """The name of the worker at an address."""
        return next(name for name, there in self.by_name(client).items() if there == address)

    def stop_workers(self) -> None:
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            worker.process.wait(10)
        self.workers.clear()

    def close(self) -> None:
        self.stop_workers()
        self.scheduler.kill()
        self.scheduler.wait(10)


def _names(dask_scheduler: Any) -> list[tuple[str, str]]:
    return [(str(ws.name), address) for address, ws in dask_scheduler.workers.items()]


@contextlib.contextmanager
def processes(folder: Any, env: dict[str, str] | None = None, **options: Any) -> Iterator[Processes]:
    """Closed whatever happens."""
    own = Processes(folder, env, **options)
    try:
        yield own
    finally:
        own.close()
