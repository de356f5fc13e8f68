"""`compare`: rules on the same data, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.comparison.curves import GRID, Reached, curve
from paramserver.comparison.network import network
from paramserver.comparison.places import OnCluster, Place, Ran, Simulated
from paramserver.comparison.report import Comparison, Fitted
from paramserver.consensus import Consensus, named
from paramserver.errors import InvalidInput, NoScheduler, ParamServerError
from paramserver.messages import Array
from paramserver.penalties import NoPenalty, Penalty
from paramserver.workers.chunks import Given
from paramserver.workers.problems.base import Problem, require

ACCURACY = (1e-2, 1e-4, 1e-6, 1e-8)
TIGHT = 1e-12  #: of the fit that F* is from
LIMITS = {"s": 60.0, "passes": 2000.0}
COARSE = 12  #: a repeat's grid: no picture shows it
CHUNKS = 64  #: in the simulator, as in `simulate`


def compare(
    rules: Iterable[str | Consensus] | Mapping[str, str | Consensus],
    problem: Problem,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    exposure: Any = None,
    penalty: Penalty | None = None,
    accuracy: float | Sequence[float] = ACCURACY,
    client: Any = None,
    simulate: Any = None,
    straggler: float = 0.0,
    chunks: int | None = None,
    limit: float | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> Comparison:
    """Run rules one after the other on the same data and workers, and see when each came how near.

    Each rule's z is recorded as it goes, and its true gap, (F(z) − F*)/F(null model), computed
    afterwards, outside of what is timed; F* is of a fit of its own to 1e-12, or the lowest that any
    rule found. On a cluster a run is `launch`'s, its time since the data were there, and the last worker
    (by name) the straggler. In the simulator (`paramserver.simulate`) time is virtual.

    Parameters
    ----------
    rules : sequence of str or Consensus, or dict of label to either
        Names as for `launch`, or rules with settings.
    problem, X, y, sample_weight, offset, exposure, penalty :
        As for `launch`; for the simulator in memory.
    accuracy : float or sequence of float
        Relative gaps in (0, 1); the smallest is the tol of every run.
    client : distributed.Client
        The current one if not given.
    simulate : dict, str or Network
        In the simulator: ``{"workers": 64, "slow": (8, 1)}``, ``"workers=64,slow=8x1"`` (one worker 8 times
        slower), or a `Network`. Where a worker is slow, each rule is run without it too.
    straggler : float
        On a cluster: each rule is run again with one worker that sleeps so many times as long as every
        pass of its over a chunk took.
    chunks : int
        For data in memory (default 8 a worker thread; 64 in the simulator).
    limit : float
        Longest time of one run (default 60 s; 2000 in the simulator).
    repeats : int
        Runs of each rule, in turns; the table has medians, the plots the first.
    seed : int
        Of the simulator's network.

    Returns
    -------
    Comparison

    Raises
    ------
    InvalidInput
        Nothing can be compared; a rule that does not suit problem or penalty is a row with its reason.

    Notes
    -----
    What is measured is what Boyd et al. 2011, section 3.2 plots, in time as well as in iterations. A pass
    is a visit of every chunk, whatever is done there: FedAvg goes five times over a chunk's rows in
    one, AsyncSGD over some of them.
    """
    chosen, accuracies = _rules(rules), _accuracies(accuracy)
    require(("evaluate",), problem, "compare")
    if not (isinstance(straggler, (int, float)) and 0 <= straggler < math.inf):
        raise InvalidInput(f"straggler must be how many times its compute a worker sleeps, ≥ 0, got {straggler!r}")
    if not (isinstance(repeats, int) and repeats >= 1):
        raise InvalidInput(f"repeats must be a whole number ≥ 1, got {repeats!r}")
    if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
        raise InvalidInput(f"limit must be None or a number > 0, got {limit!r}")
    if chunks is not None and not (isinstance(chunks, int) and chunks >= 1):
        raise InvalidInput(f"chunks must be None or a whole number ≥ 1, got {chunks!r}")
    given, penalty = Given(X, y, sample_weight, offset, exposure), penalty or NoPenalty()
    place, slow = _place(problem, given, penalty, chunks, client, simulate, straggler, seed)
    series = _Series(place, accuracies, LIMITS[place.unit] if limit is None else limit)
    series.measure(chosen, [False, True] if slow else [False], repeats)
    what = f"{problem!r}, {penalty!r}, {place.rows:,} rows in {place.n_chunks} chunks, {place.workers} workers"
    return Comparison(what, series.best, series.null, accuracies, place.unit, slow, series.fitted)


def _rules(rules: Any) -> dict[str, Consensus]:
    """By label; the class's name, numbered where there are several of it."""
    if isinstance(rules, (str, Consensus)):
        rules = [rules]
    if not isinstance(rules, Mapping):
        made: dict[str, str | Consensus] = {}
        for rule in rules:
            label = rule if isinstance(rule, str) else type(rule).__name__
            same = sum(name.partition(" #")[0] == label for name in made)
            made[label if not same else f"{label} #{same + 1}"] = rule
        rules = made
    if not rules:
        raise InvalidInput('rules is empty: pass names or Consensus objects, for instance ["newton", "admm"]')
    return {str(label): named(rule) for label, rule in rules.items()}


def _accuracies(accuracy: Any) -> tuple[float, ...]:
    values = [accuracy] if isinstance(accuracy, (int, float)) else list(accuracy)
    if not values or not all(isinstance(value, (int, float, np.floating)) and 0 < value < 1 for value in values):
        raise InvalidInput(f"accuracy must be relative gaps in (0, 1), such as [1e-4, 1e-6], got {accuracy!r}")
    return tuple(sorted({float(value) for value in values}, reverse=True))


def _place(
    problem: Problem, given: Given, penalty: Penalty, chunks: int | None, client: Any, simulate: Any,
    straggler: float, seed: int,
) -> tuple[Place, str]:  # fmt: skip
    """Where, and what the straggler there is, if there is one."""
    if simulate is None:
        said = f"one of the workers sleeps {straggler:g} times its compute: {1 + straggler:g} times slower"
        return OnCluster(problem, given, penalty, chunks, client, straggler), said if straggler else ""
    if client is not None or straggler:
        what = "client" if client is not None else "straggler"
        raise InvalidInput(f'simulate= runs without a cluster: leave {what}= out; "workers=8,slow=6x1" has a straggler')
    net = network(simulate)
    late = [speed for speed in net.speeds if speed > min(net.speeds)]
    said = (
        f"{len(late)} of {len(net.speeds)} workers up to {max(late) / min(net.speeds):g} times slower" if late else ""
    )
    return Simulated(problem, given, penalty, CHUNKS if chunks is None else chunks, net, seed), said


@dataclass
class _Done:
    """A run, or why there is none, until F* is known."""

    label: str
    rule: Consensus
    slow: bool
    ran: Ran | None
    why: str = ""


class _Series:
    """Runs in turns, and gaps once the best F is known."""

    def __init__(self, place: Place, accuracies: tuple[float, ...], limit: float) -> None:
        self.place, self.accuracies, self.limit = place, accuracies, limit
        self.best = self.null = math.nan
        self.fitted: list[Fitted] = []

    def measure(self, rules: dict[str, Consensus], forms: list[bool], repeats: int) -> None:
        """All of it."""
        self._tight()
        turns = [(label, slow) for _ in range(repeats) for label in rules for slow in forms]
        done = [self._one(label, rules[label], slow) for label, slow in turns]
        ends = [one.ran.result.trace.z[-1] for one in done if one.ran is not None and one.ran.result.trace is not None]
        if ends:
            self.best = min(self.best, float(np.nanmin([self.best, *self.place.objective(ends)])))
        for label in rules:
            for slow in forms:
                self.fitted.append(self._fitted([one for one in done if (one.label, one.slow) == (label, slow)]))

    def _tight(self) -> None:
        """F* and F(null model), from a fit that nobody times."""
        ran = self.place.run(named("auto"), TIGHT, False, 10.0 * self.limit)
        assert ran.result.trace is not None
        values = self.place.objective([ran.result.trace.z[0], ran.result.trace.z[-1]])
        self.null, self.best = float(values[0]), float(np.min(values))

    def _one(self, label: str, rule: Consensus, slow: bool) -> _Done:
        try:
            return _Done(label, rule, slow, self.place.run(rule, min(self.accuracies), slow, self.limit))
        except NoScheduler:
            raise
        except ParamServerError as error:
            return _Done(label, rule, slow, None, str(error).partition("\n")[0])

    def _gaps(self, zs: Sequence[Array]) -> Array:
        scale = abs(self.null) if np.isfinite(self.null) and self.null else 1.0  # as of the runs' tol
        out: Array = (self.place.objective(zs) - self.best) / scale
        return out

    def _fitted(self, runs: list[_Done]) -> Fitted:
        """One rule's, with the medians of its repeats."""
        ran = [one.ran for one in runs if one.ran is not None]
        first = runs[0]
        if not ran:
            return Fitted(first.label, repr(first.rule), first.slow, first.why)
        curves = [
            curve(
                one.result.trace, self.place.n_chunks, one.zero, self.accuracies, self._gaps, GRID if k == 0 else COARSE
            )
            for k, one in enumerate(ran)
            if one.result.trace is not None
        ]
        failed: list[Reached | None] = [None] * (len(runs) - len(ran))
        reached = {a: _median([found.reached(a) for found in curves] + failed) for a in self.accuracies}
        result, zero, trace = ran[0].result, ran[0].zero, ran[0].result.trace
        assert trace is not None
        residuals = trace.residuals[:, [0, 1, 3, 4]] - [zero, 0.0, 0.0, 0.0]
        steps = [step._replace(start=step.start - zero, end=step.end - zero) for step in trace.steps]
        return Fitted(first.label, result.consensus, first.slow, result.reason, curves[0], reached, residuals, steps)


def _median(found: list[Reached | None]) -> Reached | None:
    """Of each number by itself; a run that did not get there counts as the longest."""
    table = np.array([(math.inf,) * 3 if one is None else one for one in found])
    middle = np.sort(table, axis=0)[(len(table) - 1) // 2]
    return None if np.isinf(middle).any() else Reached(*map(float, middle))
