"""`path`: one penalty at many strengths, warm started on one copy of the data."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.errors import InvalidInput, ParamServerError, RunFailed
from paramserver.launching import client_of, forget, launch
from paramserver.messages import Array
from paramserver.penalties import L1, Penalty
from paramserver.run import Run
from paramserver.views import Result
from paramserver.workers.problems.base import Problem

POINTS = 20  #: alphas, where we choose
HUGE = 1e30  #: an alpha at which every penalised coefficient is zero
KEPT_ON = ("converged", "separation")  #: reasons after which a kept run takes another alpha


@dataclass(frozen=True)
class Path:
    """Fits at falling strengths of one penalty; ``path[k]`` is the k-th.

    Attributes
    ----------
    alphas : (k,) float64, falling
    results : list of Result
        Each certified for its own alpha.
    """

    alphas: Array
    results: list[Result]

    @property
    def coefs_(self) -> Array:
        """(k, d), or (k, K, d) where there are K margins a row."""
        return np.array([result.coef_ for result in self.results])

    @property
    def intercepts_(self) -> Array:
        """(k,) or (k, K)."""
        return np.array([result.intercept_ for result in self.results])

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, k: int) -> Result:
        return self.results[k]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        lines = [f"{'alpha':>12}  {'nonzero':>7}  {'objective':>16}  {'gap':>8}  reason"]
        for alpha, result in zip(self.alphas, self.results, strict=True):
            n = np.count_nonzero(result.coef_)
            lines.append(f"{alpha:12.6g}  {n:7d}  {result.objective:16.10g}  {result.gap:8.1e}  {result.reason}")
        return "\n".join(lines)


def path(
    problem: Problem,
    X: Any,
    y: Any = None,
    *,
    alphas: int | Sequence[float] | None = None,
    penalty: Penalty | type[Penalty] = L1,
    eps: float = 1e-3,
    **options: Any,
) -> Path:
    """Fit at many strengths of one penalty, from the largest down, each from the last one's z.

    Parameters
    ----------
    problem, X, y :
        As for `launch`.
    alphas : int, or sequence of float
        How many (default 20), geometric from the smallest alpha at which all penalised coefficients
        are zero down to ``eps`` of it (Friedman, Hastie & Tibshirani 2010, section 2.5); or which.
    penalty : Penalty, or a class of them
        Whose ``alpha`` is varied: `L1`, or for instance ``ElasticNet(l1_ratio=0.5)``. Against the sum
        of losses: scikit-learn's alpha times the number of rows.
    eps : float
        In (0, 1).
    **options :
        As for `launch`, without ``keep``; limits such as ``max_seconds`` are for the whole path,
        which is shorter where one of them, or a run that stalls, ends it.

    Raises
    ------
    InvalidInput
        Also where a number of alphas is asked for and no alpha makes coefficients zero (`L2`).
    RunFailed
        A limit ended the run before there was a first alpha.
    """
    n, chosen = _checked(penalty, alphas, eps)
    client = client_of(options.pop("client", None))
    if client.asynchronous or options.pop("keep", True) is not True:
        raise InvalidInput("path waits for each fit, on a run that it keeps: call it with a synchronous client")
    first = HUGE if chosen is None else chosen[0]
    run = launch(problem, X, y, penalty=_strong(penalty, first), keep=True, client=client, **options)
    try:
        result = run.result()
        if chosen is None:
            if result.reason not in KEPT_ON:
                raise RunFailed(f"the path's run ended ({result.reason}) before it had its first alpha: allow it more")
            chosen = np.geomspace(1.0, eps, n) * _alpha_max(run, penalty)
            run.update(penalty=_strong(penalty, chosen[0]))
            result = run.result()
        return _walk(run, penalty, chosen, result)
    finally:
        with contextlib.suppress(ParamServerError):
            run.stop()
        with contextlib.suppress(ParamServerError):
            forget(run.name, client)


def _checked(penalty: Any, alphas: Any, eps: float) -> tuple[int, Array | None]:
    """(how many alphas, or which); falling."""
    if not hasattr(_strong(penalty, 1.0), "alpha"):
        raise InvalidInput(f"path varies a penalty's alpha, which {penalty!r} lacks: pass L1, ElasticNet(l1_ratio=...)")
    if alphas is None or isinstance(alphas, (int, np.integer)):
        n = POINTS if alphas is None else int(alphas)
        if n < 1 or not 0 < eps < 1:
            raise InvalidInput(f"path needs at least one alpha and eps in (0, 1), got {n} and {eps!r}")
        if getattr(_strong(penalty, 1.0), "l1_ratio", 1.0) == 0:
            raise InvalidInput(_NO_MAXIMUM)
        return n, None
    chosen = np.sort(np.asarray(alphas, dtype=np.float64))[::-1]
    if chosen.ndim != 1 or not len(chosen) or not (np.isfinite(chosen).all() and (chosen > 0).all()):
        raise InvalidInput(f"alphas must be finite numbers > 0, at least one, got {alphas!r}")
    return len(chosen), chosen


_NO_MAXIMUM = (
    "no alpha of this penalty makes all coefficients zero, so there is none to begin from: "
    "pass the alphas themselves, or a penalty with an l1 part"
)


def _strong(penalty: Any, alpha: float) -> Any:
    """The penalty with this alpha."""
    out = copy.copy(penalty() if isinstance(penalty, type) else penalty)
    if hasattr(out, "alpha"):
        object.__setattr__(out, "alpha", float(alpha))
    return out


def _alpha_max(run: Run, penalty: Any) -> float:
    """The smallest alpha for which the penalised coefficients' zero is optimal, given Σy_i there; by bisection.

    ∂R(0) grows with alpha: the first that reaches as near to Σy_i as `HUGE` does.
    """
    slope = run.slope()
    zero = np.zeros_like(slope)
    held = _strong(penalty, HUGE).subgradient(zero, slope)
    if not held.any():
        raise InvalidInput(_NO_MAXIMUM)
    enough = 1e-14 * np.linalg.norm(held)
    low, high = 0.0, 1.0
    while np.linalg.norm(_strong(penalty, high).subgradient(zero, slope) - held) > enough:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        near = np.linalg.norm(_strong(penalty, middle).subgradient(zero, slope) - held) <= enough
        low, high = (low, middle) if near else (middle, high)
    return high


def _walk(run: Run, penalty: Any, alphas: Array, result: Result) -> Path:
    """The other alphas, from the first one's result on."""
    results = [result]
    for alpha in alphas[1:]:
        if results[-1].reason not in KEPT_ON:
            break
        run.update(penalty=_strong(penalty, alpha))
        results.append(run.result())
    return Path(alphas[: len(results)], results)
