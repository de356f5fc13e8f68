"""What things cost: one object of measured seconds and bytes, kept in a small JSON file."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one problem size, in seconds unless it says bytes.

    Parameters
    ----------
    step, hessian, survey, verify : float
        A worker's gradient of one chunk; what a Hessian adds; the survey, with what prepares a chunk; a
        verification.
    spread : float
        Standard deviation of a step's time, relative.
    push, push_hessian, z : float
        Bytes of a push, what a Hessian adds, and of the parameters.
    message, byte, send : float
        The server's own time for an exchange without arrays, for each byte in, and for giving z out.
    latency : float
        The rest of an exchange's round trip, in which the server is free for others.
    absorb, absorb_hessian, plan : float
        The server's half of the rule at a push (without and with a Hessian) and at an assignment.
    consensus, look : float
        A new z, and one chunk's part of an estimate.
    choose, choose_live, choose_wanted : float
        Asking the dispatch: once, for each chunk there is, and for each from which an answer is wanted.
    merge : float
        One chunk's part in judging, during the first sweep, whether those that answered look like the whole.
    sweeps, sweeps_sync, hessians, hessians_sync : float
        Steps a chunk to a certified gap of 1e-8, and how many of them bring a Hessian; with a z from
        every push and with one from all.
    """

    d: int
    rule: str
    step: float = 1.0
    hessian: float = 0.0
    survey: float = 0.0
    verify: float = 0.0
    spread: float = 0.0
    push: float = 0.0
    push_hessian: float = 0.0
    z: float = 0.0
    send: float = 0.0
    message: float = 0.0
    byte: float = 0.0
    latency: float = 0.0
    absorb: float = 0.0
    absorb_hessian: float = 0.0
    plan: float = 0.0
    consensus: float = 0.0
    look: float = 0.0
    choose: float = 0.0
    choose_live: float = 0.0
    choose_wanted: float = 0.0
    merge: float = 0.0
    sweeps: float = 4.0
    sweeps_sync: float = 4.0
    hessians: float = 1.0
    hessians_sync: float = 1.0


def load(file: Path = FILE) -> dict[str, Any]:
    """What was measured: "costs", and the real "runs" that the model is held against."""
    return json.loads(file.read_text()) if file.exists() else {"costs": [], "runs": []}


def save(costs: Sequence[Costs], runs: Sequence[dict[str, Any]], file: Path = FILE) -> None:
    """Three significant digits: they are not known better. What was measured of the same before goes."""
    old, key = load(file), operator.itemgetter("d", "rule")
    new = {"costs": [asdict(each) for each in costs], "runs": list(runs)}
    for name, rows in new.items():
        fresh = {key(row) for row in rows}
        kept = [row for row in old[name] if key(row) not in fresh]
        new[name] = sorted(kept + [_rounded(row) for row in rows], key=key)
    file.write_text(json.dumps(new, indent=1) + "\n")


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
