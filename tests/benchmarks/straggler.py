"""Virtual time and pushes a chunk to a certified 1e-8: 8 workers, 64 chunks, one worker 10× slower or none.

    python tests/benchmarks/straggler.py

"pinned" is the classical synchronous form: a barrier, every chunk on its own worker. "synchronous" has the same
dispatch and the same two copies of every chunk as "asynchronous".
"""

from __future__ import annotations

import numpy as np
from common import logistic_data

import paramserver as ps

EVEN = (1.0,) * 8
SLOW = (10.0, *(1.0,) * 7)


def main() -> None:
    """Print a table."""
    X, y = logistic_data(20_000, 30)
    order = np.argsort(y, kind="stable")
    forms = (
        ("asynchronous", ps.AggregatedNewton(), {}),
        ("synchronous", ps.AggregatedNewton(min_fresh=64), {}),
        ("pinned", ps.AggregatedNewton(min_fresh=64), {"copies": 1, "fetch": np.inf}),
    )
    print(f"{'data':16} {'workers':10} {'form':14} {'time':>7} {'pushes/chunk':>12}")
    for data, rows in (("iid", np.arange(len(y))), ("sorted by label", order)):
        for workers, speeds in (("even", EVEN), ("one slow", SLOW)):
            for form, rule, options in forms:
                network = ps.Network(speeds=speeds, **options)
                run = ps.simulate(
                    ps.Logistic(), X[rows], y[rows], chunks=64, penalty=ps.L2(1.0), consensus=rule, network=network
                )
                assert run.result.converged
                print(f"{data:16} {workers:10} {form:14} {run.time:7.0f} {run.pushes_per_chunk:12.1f}")


if __name__ == "__main__":
    main()
