"""Where a run's time went, told while it runs and after its end, to whoever asks."""

from __future__ import annotations

import time
from typing import Any

import distributed
import numpy as np
import pytest

import paramserver as ps
from cluster.helpers import Endless, Slow, make_data, until
from paramserver.profile import COLUMNS

X, Y = make_data(n=4_000, d=5)
OUTER = ["cluster checked", "data sent", "data held", "server up"]  # before the server speaks


def test_a_fit_s_time_is_accounted_for(client: Any) -> None:
    began = time.monotonic()
    run = ps.launch(ps.Logistic(), X, Y, chunks=8, penalty=ps.L2(1.0), client=client)
    result = run.result()
    took = time.monotonic() - began
    profile = run.profile()
    assert list(profile.stages)[:4] == OUTER
    reached = [profile.stages[name] for name in ("server up", "first push", "null model", "last solve", "certificate")]
    assert reached == sorted(reached)
    assert profile.stages["end"] <= profile.stages["end known"] <= profile.stages["result in hand"] <= took
    assert profile.seconds == pytest.approx(profile.stages["result in hand"])
    steps = sum(profile.steps.values())
    assert 0 <= steps - result.n_pushes - result.n_refused <= 2  # two runners may be in the inbox
    assert profile.steps["survey"] >= 8
    for worker in profile.workers:
        assert worker.seconds == pytest.approx(sum(getattr(worker, column) for column in COLUMNS))
        assert worker.seconds <= profile.seconds
    assert result.profile is not None
    assert result.profile.workers == profile.workers
    # A client that did not launch it knows all but when the result came into the other's hands.
    seen = ps.connect(run.name, client).profile()
    assert set(profile.stages) - set(seen.stages) == {"result in hand"}


def test_a_live_run_is_profiled_from_an_asynchronous_client(client: Any) -> None:
    run = ps.launch(Slow(delay=0.05), X, Y, chunks=4, consensus=Endless(), penalty=ps.L2(1.0), client=client)
    until(lambda: np.isfinite(run.status().objective))

    async def read() -> list[ps.Profile]:
        async with distributed.Client(client.scheduler.address, asynchronous=True, set_as_default=False) as other:
            seen = await ps.connect(run.name, other)
            first = await seen.profile()
            await seen._over_within(0.5)
            return [first, await seen.profile()]

    first, second = client.sync(read)
    assert first.state == second.state == "running"
    assert second.seconds - first.seconds >= 0.5
    assert sum(second.steps.values()) > sum(first.steps.values())
    slept = sum(second.by_task.values()) / sum(worker.seconds for worker in second.workers)
    assert slept > 0.5  # each step sleeps 50 ms
    run.stop()


def test_a_run_that_failed_says_where_its_time_went(client: Any) -> None:
    bad = Y.copy()
    bad[-1] = np.inf
    run = ps.launch(ps.LeastSquares(), [(X, bad)], client=client)
    with pytest.raises(ps.errors.RunFailed):
        run.result()
    profile = run.profile()
    assert profile.state == "failed"
    assert list(profile.stages) == [*OUTER, "end", "end known"]
