"""Measure what things cost, in real fits whose calls are timed; and real fits to hold the model against."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
from distributed import Client
from scipy.sparse import csr_matrix

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.penalties import Penalty
from paramserver.workers.fingerprint import fingerprint

from ..common import local, logistic_data, median
from .costs import Costs
from .wire import CHUNKS, dispatch, seconds, wire

MODES = ((True,), (True, False))  #: of a rule that is always synchronous, and of the others
HOOKS = ("step", "plan", "absorb", "consensus", "residuals")


class Case(NamedTuple):
    """What is fitted: ``rows`` a chunk, and which rule does it."""

    d: int
    rows: int
    rule: Consensus
    penalty: Penalty

    @property
    def name(self) -> str:
        return type(self.rule).__name__

    def data(self) -> tuple[Any, np.ndarray]:
        """Dense and normal up to d = 1000, else sparse with 40 entries a row."""
        n = self.rows * CHUNKS
        return logistic_data(n, self.d) if self.d <= 1000 else _sparse(n, self.d)


CASES = (
    Case(100, 62_500, ps.AggregatedNewton(), ps.L2(1.0)),
    Case(1_000, 6_250, ps.AggregatedNewton(), ps.L2(1.0)),
    Case(1_000, 6_250, ps.LBFGS(), ps.L2(1.0)),
    Case(10_000, 31_250, ps.ActiveNewton(), ps.L1(60.0)),
    Case(100_000, 31_250, ps.ActiveNewton(), ps.L1(60.0)),
)


def _sparse(n: int, d: int, nnz: int = 40) -> tuple[csr_matrix, np.ndarray]:
    """Word-like counts: columns by a power law, 600 of the commonest 2000 matter."""
    rng = np.random.default_rng(0)
    share = np.cumsum(1.0 / np.arange(1, d + 1) ** 0.8)
    columns = np.minimum(np.searchsorted(share / share[-1], rng.random((n, nnz))), d - 1)
    values = 2.0 / np.sqrt(nnz) * np.abs(rng.standard_normal((n, nnz)))
    X = csr_matrix((values.ravel(), (np.repeat(np.arange(n), nnz), columns.ravel())), shape=(n, d))
    X.sum_duplicates()
    w = np.zeros(d)
    w[rng.permutation(2000)[:600]] = 2.5 * rng.standard_normal(600)
    return X, (rng.random(n) < 1 / (1 + np.exp(-(X @ w)))).astype(float)


# -- a real fit, its calls timed -------------------------------------------------------------------


def clocked(rule: Consensus, seen: dict[str, list[float]]) -> Consensus:
    """The same rule, which notes what each call takes, Hessians apart, and the sizes of its pushes."""

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def hook(self: Any, *args: Any) -> Any:
            began = time.thread_time()
            out = call(self, *args)
            took = time.thread_time() - began
            if name == "step":
                _sizes(out, seen)
            share = len(args[1]) if name == "residuals" else 1
            push = out if name == "step" else args[-1] if name == "absorb" else ()
            seen[name + "_hessian" * ("H" in push)].append(took / max(share, 1))
            return out

        return hook

    base = type(rule)
    kind = type(base.__name__, (base,), {name: timed(name, getattr(base, name)) for name in HOOKS})
    return kind(**{each.name: getattr(rule, each.name) for each in fields(rule)})


def _sizes(push: dict[str, Any], seen: dict[str, list[float]]) -> None:
    seen["x"].append(np.size(push["x"]))
    if "H" in push:
        seen["H"].append(np.size(push["H"]))


def arithmetic(case: Case) -> dict[str, float]:
    """Steps, absorbs, z-steps and how many of each, from fits in one process: a z from every push, and from all."""
    X, y = case.data()
    chunk, out = survey(X[: case.rows], y[: case.rows])
    z = np.full(case.d + 1, 1e-3)
    out["step"] = seconds(lambda: ps.Logistic().evaluate(chunk, z), 15)
    seen: dict[str, list[float]] = defaultdict(list)
    for sync in MODES[case.name != "LBFGS"]:
        already = len(seen["step"]), len(seen["step_hessian"])
        rule = clocked(replace(case.rule, min_fresh=CHUNKS if sync else 1), seen)
        run = ps.simulate(ps.Logistic(), X, y, chunks=CHUNKS, penalty=case.penalty, consensus=rule, tol=1e-8)
        assert run.result.converged, run.result
        hessians = (len(seen["step_hessian"]) - already[1]) / CHUNKS
        sweeps = (len(seen["step"]) - already[0]) / CHUNKS + hessians
        out |= {"hessians_sync": hessians, "sweeps_sync": sweeps} if sync else {"hessians": hessians, "sweeps": sweeps}
    return out | _medians(seen, out["step"])


def survey(*parts: Any) -> tuple[Any, dict[str, float]]:
    """The prepared chunk, and what a survey takes: the first task of a chunk, so it is checked and prepared too."""

    def first() -> Any:
        fingerprint(parts)
        chunk = ps.Logistic().prepare(*parts, None, None)
        return chunk, ps.Logistic().survey(chunk)

    return first()[0], {"survey": seconds(first, 3)}


def _medians(seen: dict[str, list[float]], step: float) -> dict[str, float]:
    """What is not seen without a Hessian costs as it does with one."""
    out = {name: median(seen[name] or seen[name + "_hessian"]) for name in ("absorb", "plan", "consensus")}
    out["absorb_hessian"] = median(seen["absorb_hessian"] or seen["absorb"])
    out["hessian"] = max(median(seen["step_hessian"]) - step, 0.0) if seen["step_hessian"] else 0.0
    steps = np.array(max(seen["step"], seen["step_hessian"], key=len))
    out["spread"] = float(np.subtract(*np.percentile(steps, [75, 25])) / np.median(steps) / 1.35)
    return out | {
        "look": median(seen["residuals"]), "verify": step + out["hessian"],
        "x": median(seen["x"]), "H": median(seen["H"] or [0.0]),
    }  # fmt: skip


# -- all of it -------------------------------------------------------------------------------------


def costs_of(case: Case) -> Costs:
    """One case's costs."""
    found = arithmetic(case)
    x, H = int(found.pop("x")), int(found.pop("H"))
    return Costs(d=case.d, rule=case.name, **found, **network(x, case.d + 1, H, dispatch()))


def network(x: int, p: int, H: int, asking: dict[str, float]) -> dict[str, float]:
    """What messages cost, for pushes of so many numbers; a byte's share is seen best in eight million."""
    with local() as client:
        bare, (light, trip) = wire(client, (1, 1, 0, 1))[0], wire(client, (x, p, 0, p))
        heavy = wire(client, (x, p, 10**6, p))[0]
    byte, push = max(heavy - light, 0.0) / 8e6, 8.0 * (x + p)
    asked = asking["choose"] + CHUNKS * (asking["choose_live"] + asking["choose_wanted"])
    return asking | {
        "push": push, "push_hessian": 8.0 * H, "z": 8.0 * p, "latency": max(trip - light, 0.0), "byte": byte,
        "send": max(light - bare - byte * push, 0.0), "message": max(bare - asked, 0.0),
    }  # fmt: skip


def real(case: Case, rounds: int = 3) -> Iterator[dict[str, Any]]:
    """Real fits by one and by two processes, with a z from every push and with one from all."""
    X, y = case.data()
    parts = [(X[k * case.rows :][: case.rows], y[k * case.rows :][: case.rows]) for k in range(CHUNKS)]
    for workers in (1, 2):
        with local(workers) as client:
            data = client.scatter(parts, direct=True)
            for sync in MODES[case.name != "LBFGS"]:
                rule = replace(case.rule, min_fresh=CHUNKS if sync else 1)
                fits = [_fit(client, data, case, rule) for _ in range(rounds + 1)][1:]  # the first is a warm-up
                took, cpu, pushes = (median(list(each)) for each in zip(*fits, strict=True))
                yield {
                    "d": case.d, "rule": case.name, "workers": workers, "sync": sync,
                    "seconds": took, "cpu": cpu / workers, "pushes": pushes,
                }  # fmt: skip


def _fit(client: Client, data: Any, case: Case, rule: Consensus) -> tuple[float, float, float]:
    """(seconds, processor seconds of all workers, pushes) of one fit."""
    before = sum(client.run(time.process_time).values())
    result = ps.fit(ps.Logistic(), data, penalty=case.penalty, consensus=rule, tol=1e-8)
    assert result.converged, result
    return result.seconds, sum(client.run(time.process_time).values()) - before, float(result.n_pushes)
