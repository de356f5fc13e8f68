"""python -m tests.benchmarks.scaling [--measure [D ...]] [--check [D ...]]"""

from __future__ import annotations

import argparse

from . import report
from .costs import save
from .measure import CASES, costs_of, real

CHECKED = ((100, "AggregatedNewton"), (1_000, "LBFGS"))  #: fits of a second or two


def main() -> None:
    """Measure what was asked for; then the sweep, the plot and the section of RESULTS.md, from all that is kept."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.scaling")
    parser.add_argument("--measure", nargs="*", type=int, metavar="D", help="the costs, for these d or all")
    parser.add_argument("--check", nargs="*", type=int, metavar="D", help="real runs to hold the model against: quiet!")
    asked = parser.parse_args()
    for case in CASES:
        if asked.measure is not None and (case.d in asked.measure or not asked.measure):
            save([costs_of(case)], [])
        due = asked.check is not None and (case.d in asked.check or not asked.check)
        if due and (case.d, case.name) in CHECKED:
            save([], list(real(case)))
    report.write()


if __name__ == "__main__":
    main()
