"""Every problem and penalty: pushes a chunk to a certified 1e-8, and the certificate against the true gap.

    python tests/benchmarks/models.py

The cells of tests/correctness (300 rows, 4 unequal chunks; optima found without the library, in extended precision),
each dense, as float32 and as CSR, with weights, with an offset and plain, in virtual time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from correctness.cases import FAMILIES, case
from correctness.test_table import CELLS, SLACK, TOL, fit


def main() -> None:
    """Print a table; the last two columns are the worst of all cells of the row."""
    heads = (f"{'problem':14}", f"{'cells':>6}", f"{'pushes a chunk':>16}", f"{'worst true gap':>15}", "certified/true")
    print(*heads)
    for family in FAMILIES:
        cells = [cell.values for cell in CELLS if cell.values[0] == family]
        pushes, gaps, ratios = [], [], []
        for name, penalty, storage, extra in cells:
            made = case(name, penalty, extra)
            result, null = fit(made, storage), float(made.null)
            gap = made.gap(result.z)
            assert result.converged, (name, penalty, storage, extra)
            assert gap <= result.gap_absolute + SLACK * null
            pushes.append(result.n_pushes / result.n_chunks)
            gaps.append(gap / null)
            if gap > 10 * SLACK * null:  # below, rounding is all there is
                ratios.append(result.gap_absolute / gap)
        spread = f"{np.median(pushes):.1f} to {max(pushes):.1f}"
        worst = f"{max(ratios):.2f} ({len(ratios)})" if ratios else "-"
        print(f"{family:14} {len(cells):6} {spread:>16} {max(gaps):15.1e} {worst:>14}")
    print(f"(pushes: median to most; certified/true: the worst of the cells whose true gap is above {10 * SLACK:.0e},")
    print(f"and how many these are; tol {TOL:.0e})")


if __name__ == "__main__":
    main()
