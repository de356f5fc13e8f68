"""Measure what things cost, in real fits whose calls are timed; and real fits to hold the model against."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

import paramserver as ps
from paramserver.consensus import Consensus
from paramserver.penalties import Penalty

from ..common import local, logistic_data, median, on_cluster
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
    Case(100_000, 31_250, ps.LBFGS(), ps.L2(1.0)),
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
            began = time.perf_counter()
            out = call(self, *args)
            took = time.perf_counter() - began
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
    chunk = ps.Logistic().prepare(X[: case.rows], y[: case.rows], None, None)
    out: dict[str, float] = {"survey": seconds(lambda: ps.Logistic().survey(chunk), 3)}
    z = np.full(case.d + 1, 1e-3)
    out["step"] = seconds(lambda: ps.Logistic().evaluate(chunk, z), 15)
    seen: dict[str, list[float]] = defaultdict(list)
    for suffix, fresh in (("_sync", CHUNKS), ("", 1)):
        already = len(seen["step"]), len(seen["step_hessian"])
        rule = clocked(replace(case.rule, min_fresh=fresh), seen)
        run = ps.simulate(ps.Logistic(), X, y, chunks=CHUNKS, penalty=case.penalty, consensus=rule, tol=1e-8)
        assert run.result.converged, run.result
        out["hessians" + suffix] = (len(seen["step_hessian"]) - already[1]) / CHUNKS
        out["sweeps" + suffix] = (len(seen["step"]) - already[0]) / CHUNKS + out["hessians" + suffix]
    return out | _medians(seen, out["step"])


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
    found, asking = arithmetic(case), dispatch()
    p, x, H = case.d + 1, int(found.pop("x")), int(found.pop("H"))
    bare, (light, trip) = wire((1, 1, 0, 1))[0], wire((x, p, 0, p))
    found |= {"push": 8.0 * (x + p), "push_hessian": 8.0 * H, "z": 8.0 * p, "latency": max(trip - light, 0.0)}
    found["byte"] = max(wire((x, p, H or 10**5, p))[0] - light, 0.0) / (8 * (H or 10**5))
    found["send"] = max(light - bare - found["byte"] * found["push"], 0.0)
    asked = asking["choose"] + CHUNKS * (asking["choose_live"] + asking["choose_wanted"])
    return Costs(d=case.d, rule=case.name, message=max(bare - asked, 0.0), **found, **asking)


def real(case: Case) -> Iterator[dict[str, Any]]:
    """Real fits by one and by two processes, with a z from every push and with one from all."""
    X, y = case.data()
    for workers in (1, 2):
        with local(workers) as client:
            data = on_cluster(client, X, y, CHUNKS)
            for sync in MODES[case.name != "LBFGS"]:
                rule = replace(case.rule, min_fresh=CHUNKS if sync else 1)
                took, pushes = zip(*(_fit(data, case, rule) for _ in range(3)), strict=True)
                yield {
                    "d": case.d, "rule": case.name, "workers": workers, "sync": sync,
                    "seconds": median(list(took)), "pushes": median(list(pushes)),
                }  # fmt: skip


def _fit(data: Any, case: Case, rule: Consensus) -> tuple[float, float]:
    result = ps.fit(ps.Logistic(), *data, penalty=case.penalty, consensus=rule, tol=1e-8)
    assert result.converged, result
    return result.seconds, float(result.n_pushes)
