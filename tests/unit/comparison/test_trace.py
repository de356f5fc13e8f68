"""A trace: every version and step of a short run, a thinned record of a long one, nothing unless asked for."""

from __future__ import annotations

import numpy as np

import paramserver as ps
from paramserver.server.tracing import Thinned


def test_a_simulated_run_is_traced() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 3)), rng.standard_normal(300)
    options = {"chunks": 6, "network": ps.Network(speeds=(1.0, 4.0)), "tol": 1e-6}
    found = ps.simulate(ps.LeastSquares(), X, y, trace=True, **options)
    trace, result = found.result.trace, found.result
    assert np.array_equal(trace.z[-1], result.z)
    assert len(trace.z) == result.version.n + 1  # every one
    assert (np.diff(trace.seconds) >= 0).all()
    assert (np.diff(trace.pushes) >= 0).all()
    assert trace.pushes[-1] <= result.n_pushes
    assert len(trace.steps) == sum(result.profile.steps.values())
    by_worker = {w: sum(s.end - s.start for s in trace.steps if s.worker == w) for w in ("w0", "w1")}
    assert np.allclose([by_worker[time.worker] for time in result.profile.workers],
                       [time.compute for time in result.profile.workers])  # fmt: skip
    assert all(0 <= step.start <= step.end <= found.time + 10 for step in trace.steps)
    assert ps.simulate(ps.LeastSquares(), X, y, **options).result.trace is None


def test_a_long_record_keeps_its_beginning_and_end_and_is_thinned_evenly_between() -> None:
    record = Thinned(100)
    for k in range(5000):
        record.add((k,))
    rows = [k for (k,) in record.all()]
    assert 100 <= len(rows) <= 202
    assert (rows[0], rows[-1]) == (0, 4999)
    assert rows[:50] == list(range(50))
    assert len(set(np.diff(rows[50:-1]))) == 1
