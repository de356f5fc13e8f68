"""python -m tests.benchmarks.scaling [--measure [D ...]]"""

from __future__ import annotations

import argparse

from . import report
from .costs import save
from .measure import CASES, costs_of, real


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--measure", nargs="*", type=int, metavar="D", help="measure first, on this machine: these d, or all"
    )
    wanted = parser.parse_args().measure
    if wanted is not None:
        for case in CASES:
            if not wanted or case.d in wanted:
                runs = list(real(case)) if case.d <= 1000 else []
                save([costs_of(case)], runs)
    report.write()


if __name__ == "__main__":
    main()
