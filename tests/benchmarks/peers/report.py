"""Rows → the section of RESULTS.md between its two marks."""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import median

from .cases import CASES, TARGETS, Case
from .registry import LIMIT, OURS, PEERS
from .results import Row

Rows = dict[tuple[str, str], Row]
BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
TO = 1e-6  #: the gap that ratios are for
FIXED = 0.15  #: seconds, launch to result on next to nothing

HEAD = """## Beside other solvers

    pip install -e ".[bench]" && python -m tests.benchmarks.peers [--data d] [--peers glum]

Median seconds to a true relative gap, (F − F*)/F(null model), which the harness takes from z: F* is its own
proximal Newton's. Peers and paramserver in turn, all held to the same two cores: one process with two BLAS threads,
or two processes with one. Seconds are from data in memory (persisted on the workers) to z in the caller's hands,
conversions and launch included, cluster start and a warm-up left out. paramserver is asked for the gap itself; of a
peer's own tolerances the one is taken that was first there, and of dask-glm's ADMM and the driver loop the first z
that was."""

SHORT = """To 1e-6. "at most" is the larger of the aim times the best peer and 1.3 × the limit + 0.15 s, the limit
being one float64 Hessian pass and two gradient passes in numpy by both processes at once. Memory is the peak of all
processes together (proportional set size), allowed are 1.5 × the data and 120 MB a process."""


def write(page: Path, rows: Rows) -> None:
    """Replace the section; it goes to the page's end where there is none yet."""
    text = page.read_text()
    before, begun, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begun else "\n"
    page.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{section(rows)}\n{END}{after}")


def section(rows: Rows) -> str:
    """The whole of it."""
    cases = [case for case in CASES if (case.name, OURS) in rows]
    parts = [HEAD, *(_case(case, rows) for case in cases if case.fastest)]
    return "\n\n".join([*parts, SHORT, _summary(cases, rows), _where(rows)])


def _where(rows: Rows) -> str:
    whens, loads = [row.when for row in rows.values()], [row.load for row in rows.values()]
    versions = {f"{row.peer.split()[0]} {row.version}" for row in rows.values() if row.runs and row.version}
    said = f"Measured {min(whens)} to {max(whens)}, load before a case {min(loads)} to {max(loads)}:"
    return textwrap.fill(f"{said} {', '.join(sorted(versions))}.", 118, break_on_hyphens=False)


def _case(case: Case, rows: Rows) -> str:
    """Everyone's times."""
    here = [rows[case.name, name] for name in PEERS if name != LIMIT and (case.name, name) in rows]
    shown = sorted((row for row in here if row.runs), key=_rank)
    lines = [f"    {case.name}: {case.what:40} {'1e-4':>8} {'1e-6':>8} {'1e-8':>8} {'peak MB':>8}  rounds"]
    lines += [_line(row, len(case.name) + 42) for row in shown]
    reasons: dict[str, list[str]] = {}
    for row in here:
        if not row.runs:
            reasons.setdefault(row.problem, []).append(row.peer)
    others = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return "\n".join([*lines, *([_filled(f"Not here: {others}.")] if others else [])])


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False)


def _rank(row: Row) -> tuple[float, ...]:
    return tuple(row.time(target) or float("inf") for target in (TO, TARGETS[-1], TARGETS[0]))


def _line(row: Row, width: int) -> str:
    times = " ".join(f"{_seconds(row.time(target)):>8}" for target in TARGETS)
    rounds = 1 + max(run.round for run in row.runs)
    short = "" if row.time(TARGETS[-1]) else f"  (smallest gap {row.best():.0e})"
    short += f"  ({row.missed} runs missed their gap)" if row.missed else ""
    return f"    {row.peer:{width}} {times} {row.memory / 1e6:8.0f}  {rounds}{short}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _summary(cases: list[Case], rows: Rows) -> str:
    """Ours against the best peer and the limit."""
    head = f"    {'':12} {'best peer':28} {'its':>7} {'ours':>7} {'ratio':>6} {'aim':>5} {'limit':>6} {'at most':>8}  "
    lines = [head + f"{'memory MB':>9} {'allowed':>8}"]
    return "\n".join([*lines, *(_summed(case, rows) for case in cases)])


def _summed(case: Case, rows: Rows) -> str:
    ours, passes = rows[case.name, OURS], rows.get((case.name, LIMIT))
    mine, limit = ours.time(TO), median(run.seconds for run in passes.runs) if passes and passes.runs else None
    peer = best_peer(case, rows)
    its = peer.time(TO) if peer else None
    most = allowed_seconds(case, its, limit)
    within = "" if most is None else " ok " if mine is not None and mine <= most else " no "
    ratio = _seconds(mine / its if mine and its else None)
    room = allowed_memory(ours)
    return (
        f"    {case.name:12} {peer.peer if peer else '-':28} {_seconds(its):>7} {_seconds(mine):>7} {ratio:>6} "
        f"{_seconds(case.ratio):>5} {_seconds(limit):>6} {_seconds(most):>8}{within or '  '}{ours.memory / 1e6:8.0f} "
        f"{room / 1e6:8.0f} {'ok' if ours.memory <= room else 'no'}"
    )


def best_peer(case: Case, rows: Rows) -> Row | None:
    """The fastest to 1e-6."""
    there = [row for row in rows.values() if row.case == case.name and row.peer not in (OURS, LIMIT)]
    return min((row for row in there if row.time(TO) is not None), key=lambda row: row.time(TO) or 0.0, default=None)


def allowed_seconds(case: Case, peer: float | None, limit: float | None) -> float | None:
    """What ours may take to 1e-6."""
    if case.ratio is None:
        return FIXED
    sides = [case.ratio * peer] if peer else []
    return max([*sides, *([1.3 * limit + FIXED] if limit else [])], default=None)


def allowed_memory(row: Row) -> float:
    """Bytes, of all processes together."""
    return 1.5 * row.data + 120e6 * row.processes
