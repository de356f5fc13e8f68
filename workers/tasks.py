"""What a worker computes for each task: pure, no Dask."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.consensus.base import Consensus, Pull
from paramserver.messages import Array, Assignment, Fields, Task
from paramserver.workers import solvers
from paramserver.workers.problems.base import Problem
from paramserver.workers.problems.passes import ratios

#: A row's curvature fell by so much since a Hessian was made: where curvatures vanish, by 1/e a step,
#: coefficients may run away, and only a Hessian made here shows it.
VANISHING = 2.5
HOPELESS = 1e6  #: as above, where nobody looks for that: a bound by that one says nothing


def answer(rule: Consensus, problem: Problem, data: Any, work: Assignment, z: Array | None) -> Fields | None:
    """The payload for one assignment; None where z is too far for a finite value.

    ``z`` is the point the assignment is about: its own, or the one the runner holds of its version.
    """
    if work.task is Task.SURVEY:
        return {"survey": np.asarray(problem.survey(data), dtype=np.float64)}
    assert z is not None
    if work.task is Task.SOLVE:
        return rule.step(problem, data, Pull(z, work.version, work.fields, work.whole))
    return _QUESTIONS[work.task](problem, data, z, work.fields)


def _verify(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    if "without" in fields:
        data = problem.without(data, z, *fields["without"])
    at, p = problem.evaluate(data, z), len(z)
    out: Fields = {
        "f": np.float64(at.value),
        "g": at.gradient,
        "reach": _reach(problem, data),
        "drift": np.array([1.0, 0.0]),
    }
    data.memo["margins"] = (z, at.margins)  # what follows asks about the same z
    if not np.isfinite(at.value):  # too far: no derivatives there, and no certificate
        return {**out, "f": np.float64(np.inf), "g": np.zeros(p), "H": np.zeros((p, p))}
    kept, support = _kept(problem, data, fields), fields.get("support")
    stiff, moved = np.inf, np.inf
    if kept is not None:
        stiff, moved = float(ratios(kept, at.curvature).max(initial=1.0)), solvers.drift(at.curvature, kept)
    if stiff <= (VANISHING if support is None else HOPELESS) and moved <= solvers.DRIFT:
        out["drift"] = np.array([stiff, moved])
    elif kept is not None or fields["hessian"]:
        full = support is None
        out["H"] = problem.hessian(data, at.curvature) if full else problem.hessian_of(data, at.curvature, support)
        data.memo["hessian_at"] = (z, at.curvature)
    return out


def _kept(problem: Any, data: Any, fields: Fields) -> Array | None:
    """The rows' curvatures at the Hessian that the server has of this chunk, if its z is said."""
    return solvers.curvature_at(problem, data, fields["hessian_at"]) if "hessian_at" in fields else None


def _reach(problem: Any, data: Any) -> Array:
    if "reach" not in data.memo:
        data.memo["reach"] = np.asarray(problem.reach(data), dtype=np.float64)
    out: Array = data.memo["reach"]
    return out


def _conjugate(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    if "without" in fields:
        data = problem.without(data, z, *fields["without"])
    kept = _kept(problem, data, fields)
    borrowed = {} if kept is None else {"kept": kept}
    term, loss = problem.fenchel(data, z, fields["step"], fields.get("move"), **borrowed)
    out: Fields = {"fenchel": np.float64(term), "f": np.float64(loss)}
    if "dual" in fields:
        out["dual"] = problem.dual(data, z, fields["step"], **borrowed)
    return out


def _line(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    return {"values": np.asarray(problem.line(data, z, fields["step"], fields["ts"]), dtype=np.float64)}


def _null(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    at = problem.null(data, z)
    return {"f": np.float64(at.value), "g": np.asarray(at.gradient), "H": np.asarray(at.hessian)}


def _infer(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    return {name: np.asarray(value, np.float64) for name, value in problem.moments(data, z)._asdict().items()}


def _likelihood(problem: Any, data: Any, z: Array, fields: Fields) -> Fields:
    values = problem.log_likelihood(data, z, fields["dispersions"])
    return {"log_likelihood": np.asarray(values, dtype=np.float64)}


_QUESTIONS = {
    Task.NULL: _null,
    Task.VERIFY: _verify,
    Task.CONJUGATE: _conjugate,
    Task.LINE: _line,
    Task.INFER: _infer,
    Task.LIKELIHOOD: _likelihood,
}
