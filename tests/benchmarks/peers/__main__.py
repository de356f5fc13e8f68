"""Peers and paramserver in turn on the same data, the same two cores, judged by the same true gap.

    pip install -e ".[bench]" && python -m tests.benchmarks.peers [--all] [--data a,c-l2] [--peers glum,skglm]

Rows are kept in peers.jsonl: what is measured replaces what was measured before of that case and peer. The section of
RESULTS.md and peers.png are made from them; --report makes both again and measures nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from . import report, results
from .cases import CASES, Case
from .data import Store
from .measure import two_cores
from .objective import Objective
from .optimum import judge
from .registry import LIMIT, OURS, PEERS
from .rounds import Plan, measure

HERE = Path(__file__).parent.parent
ROWS, PAGE, PLOT = HERE / "peers.jsonl", HERE / "RESULTS.md", HERE / "peers.png"


def main() -> None:
    """Measure what is asked for, then write the page and the plot."""
    given = _arguments()
    if not given.report:
        with ExitStack() as stack:
            folder = given.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
            _measure(given, Plan(folder, given.rounds, given.limit, given.lock))
    rows = results.read(ROWS)
    report.write(PAGE, rows)
    from . import plot  # needs matplotlib

    plot.draw(PLOT, rows)


def _measure(given: argparse.Namespace, plan: Plan) -> None:
    two_cores()
    for case in _cases(given.data):
        store = Store(plan.folder, case.data)
        store.make()
        names = _names(given, case)
        print(f"{case.name}: {case.what}", flush=True)
        judged = judge(Objective(case, *store.read(mapped=True)), plan.folder)
        rows = results.read(ROWS)  # again for each case: what is done stays done
        for row in measure(case, names, judged, plan):
            rows[row.case, row.peer] = row
        results.write(ROWS, rows.values())


def _cases(wanted: str) -> list[Case]:
    """By data set (c) or case (c-l2)."""
    asked = set(filter(None, wanted.split(",")))
    found = [case for case in CASES if not asked or asked & {case.letter, case.name}]
    unknown = asked - {name for case in found for name in (case.letter, case.name)}
    if unknown:
        raise SystemExit(f"no such data: {', '.join(unknown)}; there are {', '.join(case.name for case in CASES)}")
    return found


def _names(given: argparse.Namespace, case: Case) -> list[str]:
    """Peers of a case: the fastest, all, or those asked for."""
    asked = list(filter(None, given.peers.split(",")))
    unknown = set(asked) - set(PEERS)
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if not case.fastest:
        return [LIMIT, OURS]
    rest = [name for name in PEERS if name not in case.fastest]
    return [LIMIT, OURS, *(asked or [*case.fastest, *(rest if given.all else [])])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every peer, not only the fastest five of each case")
    parser.add_argument("--data", default="", help="data sets or cases, such as a,c-l2")
    parser.add_argument("--peers", default="", help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a run")
    parser.add_argument("--cache", type=Path, help="a folder that keeps data and optima for the next invocation")
    parser.add_argument("--lock", type=Path, help="a file to lock in every run, where others measure too")
    parser.add_argument("--report", action="store_true", help="only make the page and the plot again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
