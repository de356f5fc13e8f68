"""What a reader is told of a core: parameters, status, result, duals. Plain values throughout."""

from __future__ import annotations

import numpy as np

from paramserver.errors import InvalidInput
from paramserver.messages import Array
from paramserver.profile import Profile
from paramserver.server.core import Core
from paramserver.views import ChunkValue, Params, Result, Status

DOING = {
    "surveying": "reading the chunks",
    "running": "running",
    "verifying": "verifying: z stands still",
    "converged": "converged, kept live",
    "finished": "finished",
    "failed": "failed",
}


def params(core: Core, now: float) -> Params | None:
    """Today's parameters; None before the data are read."""
    version, z, made_at = core.params.published
    if z is None:
        return None
    problem = core.params.problem
    coef, intercept = problem.unpack(z)
    verified = core.verifier.verified
    certified = verified is not None and verified.version == version
    return Params(version, now - made_at, problem.outward(z), coef, intercept, core.spec.feature_names, certified)


def status(core: Core, now: float, runners: dict[str, int], server: str) -> Status:
    """How the run is doing."""
    p, spec = core.params, core.spec
    end = now if core.ended_at is None else core.ended_at
    overdue = p.overdue() if p.setup is not None and not core.over else ()
    notes = list(core.notes)
    if overdue:
        notes.append(f"z stands still: chunks {list(overdue)} are max_staleness versions behind")
    return Status(
        name=spec.name,
        state=core.state,
        doing=DOING[core.state],
        version=p.version,
        objective=core.objective,
        verified=core.verifier.verified,
        residuals=core.residuals,
        n_chunks=sum(not slot.gone for slot in p.slots),
        n_rows=sum(slot.rows for slot in p.slots),
        n_features=0 if p.z is None else _n_features(core),
        pushes=core.record.pushes,
        refused=core.record.refused,
        staleness=core.record.staleness(),
        chunk_age={i: max(end - slot.served, 0.0) for i, slot in enumerate(p.slots) if not (slot.empty or slot.gone)},
        runners=runners,
        server=server,
        epoch=core.epoch,
        seconds=end - core.started,
        reason=core.reason,
        consensus=repr(p.rule),
        notes=tuple(notes),
        waiting_for=tuple(core.dispatch.nowhere()) if not core.over else (),
        replayed=core.record.replayed,
        empty_chunks=tuple(i for i, slot in enumerate(p.slots) if slot.empty),
    )


def profile(core: Core, now: float) -> Profile:
    """Where the time went, since the server began."""
    sheet, end = core.timesheet, now if core.ended_at is None else core.ended_at
    stages = {name: at - core.started for name, at in sheet.stages.items()}
    if core.ended_at is not None:
        stages["end"] = end - core.started
    workers, server = sheet.workers(end), dict(sheet.server)
    return Profile(core.spec.name, core.state, end - core.started, stages, workers, server, sheet.unit)


def result(core: Core) -> Result | None:
    """How the run ended; None where it ended before there was a z."""
    p, spec, verified = core.params, core.spec, core.verifier.verified
    if p.z is None:
        return None
    exact = verified is not None and verified.version == p.version
    if exact:
        assert verified is not None
        objective, gap, kind = verified.objective, verified.gap_absolute, verified.certificate
        relative = gap / core.stopping.scale
    else:
        # At stop() the estimate may be a few pushes old: what it says must be of this z.
        residuals = p.residuals()
        objective, gap, kind = p.objective(), residuals.estimate, "estimate"
        relative = gap / core.stopping.scale
        if not spec.measured:
            gap, relative, kind = np.nan, residuals.relative, "residual"
    coef, intercept = p.problem.unpack(p.z)
    ended = core.started if core.ended_at is None else core.ended_at
    return Result(
        z=p.problem.outward(p.z),
        coef_=coef,
        intercept_=intercept,
        objective=objective,
        gap=relative,
        gap_absolute=gap,
        certificate=kind,
        converged=core.reason == "converged" or bool(exact and core.stopping.passes(gap)),
        reason=core.reason,
        n_pushes=core.record.pushes,
        n_refused=sum(core.record.refused.values()),
        n_rows=sum(slot.rows for slot in p.slots),
        n_features=_n_features(core),
        n_chunks=sum(not slot.gone for slot in p.slots),
        version=p.version,
        seconds=ended - core.started,
        consensus=repr(p.rule),
        penalty=_penalty(core),
        history=core.record.history(),
        name=spec.name,
        feature_names=spec.feature_names,
        standard_errors=float(np.sqrt(2 * max(gap, 0.0))),
        notes=tuple(core.notes),
        left_out=dict(core.census.left_out),
        inference=core.inferring.found,
        no_inference=core.inferring.why_not,
        profile=profile(core, ended),
        trace=None if core.timesheet.tracer is None else core.timesheet.tracer.trace(core.started),
        pushes_per_chunk={i: slot.pushes for i, slot in enumerate(p.slots) if not slot.gone},
    )


def values(core: Core, what: str, chunk: int | None) -> list[ChunkValue]:
    """ "dual" or "local" of one chunk, or of all that have reported."""
    slots = core.params.slots
    if chunk is not None and not 0 <= chunk < len(slots):
        raise InvalidInput(f"there is no chunk {chunk}: the run has chunks 0 to {len(slots) - 1}")
    if chunk is not None and slots[chunk].gone:
        raise InvalidInput(f"there is no chunk {chunk} any more: it was dropped")
    units = core.params.problem.outward if what == "local" else core.params.problem.outward_dual
    out = []
    for i in range(len(slots)) if chunk is None else (chunk,):
        fields, version = slots[i].fields, slots[i].version
        if fields is not None and version is not None:
            value = np.array(getattr(core.params.rule, what)(fields), dtype=np.float64)
            out.append(ChunkValue(i, version, units(value)))
    return out


def slope(core: Core) -> Array | None:
    """Σ y_i over the penalised coordinates, in the units that the penalty acts in; None before there is a z."""
    p = core.params
    if p.z is None:
        return None
    total = sum((p.rule.dual(fields) for fields in p.fields().values()), np.zeros_like(p.z))
    out: Array = total[p.bound.mask]
    return out


def _penalty(core: Core) -> str:
    """The penalty, and of what."""
    p = core.params
    of = " of sd·w (standardize=True)" if getattr(p.problem, "standardize", False) and p.bound.mask.any() else ""
    return f"{p.bound.penalty!r}{of}"


def _n_features(core: Core) -> int:
    assert core.params.z is not None
    coef = core.params.problem.unpack(core.params.z)[0]
    return len(core.params.z) if isinstance(coef, dict) else int(np.atleast_1d(coef).shape[-1])
