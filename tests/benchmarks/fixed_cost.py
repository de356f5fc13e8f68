"""What a fit costs before its data do: launch to result in hand, 200 rows × 5 columns, a warm cluster.

python tests/benchmarks/fixed_cost.py [rounds]
"""

from __future__ import annotations

import sys
import time

from common import local, logistic_data, median

import paramserver as ps

CASES = {
    "Logistic, L2": (ps.Logistic(), ps.L2(1.0)),
    "Logistic, L1": (ps.Logistic(), ps.L1(1.0)),
    "LeastSquares, L2": (ps.LeastSquares(), ps.L2(1.0)),
}


def main(rounds: int = 20) -> None:
    """The cases in turn, so that all of them meet the machine's moods; one warm-up each."""
    X, y = logistic_data(200, 5)
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with local() as client:
        for k in range(rounds + 1):
            for name, (problem, penalty) in CASES.items():
                began = time.perf_counter()
                result = ps.fit(problem, X, y, penalty=penalty, client=client)
                seconds = time.perf_counter() - began
                assert result.converged, result
                if k:
                    times[name].append(seconds)
                time.sleep(0.05)
    for name, taken in times.items():
        print(f"{name:<18} median {median(taken):.3f} s, min {min(taken):.3f}, max {max(taken):.3f} ({rounds} fits)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
