"""The laws of the timing-only benchmark: the real core with a server that is a single queue."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from benchmarks.scaling.clock import Form, timing
from benchmarks.scaling.costs import Costs, load, save

FREE = Costs(d=1, rule="none", step=1.0)  #: steps of one second, and nothing else takes time
DEAR = replace(FREE, message=0.05)  #: twenty exchanges a second, at most


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(("workers", "chunks"), [(1, 1), (1, 8), (2, 4), (8, 2), (8, 3)])
def test_free_messages_and_equal_steps_take_the_steps_of_one_worker(workers: int, chunks: int, sync: bool) -> None:
    run = timing(FREE, Form(workers, chunks, sync=sync), sweeps=4)
    assert run.seconds == pytest.approx(4 * chunks, abs=1.01)  # one more may be under way when the count is full
    assert run.computing > 0.8


def test_every_chunk_is_surveyed_stepped_and_verified() -> None:
    run = timing(FREE, Form(2, 4, sync=True), sweeps=3)
    assert (run.pushes, run.versions) == (8 * (1 + 3 + 1), 3)
    asynchronous = timing(FREE, Form(1, 4), sweeps=3)
    assert asynchronous.pushes == 4 * (1 + 3 + 1)
    assert asynchronous.versions >= 9  # a z for every push, once all have been seen


@pytest.mark.parametrize("sync", [False, True])
def test_the_server_bounds_the_rate(sync: bool) -> None:
    """Enough workers to ask for more than it can do: it does what it can, and is busy all the time."""
    run = timing(DEAR, Form(64, sync=sync), sweeps=6)
    assert run.pushes / run.seconds <= 20.0 * (1 + 1e-9)
    assert run.pushes / run.seconds > 15.0
    assert run.busy > 0.85


def test_below_the_bound_the_rate_is_the_workers() -> None:
    run = timing(DEAR, Form(4), sweeps=6)
    assert run.computing > 0.85
    assert run.busy < 0.25


@pytest.mark.parametrize("sync", [False, True])
def test_more_workers_for_the_same_chunks_take_no_longer(sync: bool) -> None:
    """But for what waits in the queue: one exchange a worker."""
    costs = replace(DEAR, message=0.002)
    seconds = [timing(costs, Form(n, 32 // n, sync=sync), sweeps=4).seconds for n in (1, 2, 4, 8, 16, 32)]
    for fewer, more, n in zip(seconds, seconds[1:], (2, 4, 8, 16, 32), strict=False):
        assert more <= fewer + 0.002 * n * 6


def test_a_slow_z_step_costs_latency_but_no_throughput_where_pushes_coalesce() -> None:
    costs = replace(FREE, consensus=0.5)
    together, apart = (timing(costs, Form(16, coalesce=how), sweeps=4) for how in ("heavy", "never"))
    assert apart.versions / apart.seconds <= 2.0
    assert together.pushes / together.seconds > 8.0
    assert together.versions < apart.versions


def test_idle_runners_are_only_asked_again_for_news() -> None:
    """At a barrier most runners wait: asking all of them at every push costs a square of their number."""
    costs = replace(FREE, choose=1e-3, spread=0.1)
    asked, told = (timing(costs, Form(64, 2, sync=True, wake=how), sweeps=4) for how in ("all", "news"))
    assert told.pushes == asked.pushes
    assert told.busy < asked.busy / 3


def test_the_first_sweep_merges_each_chunk_s_survey_once() -> None:
    """Whether those that answered look like the whole is asked at every push: of 4096 chunks, 8 million merges."""
    run = timing(replace(FREE, merge=1e-3), Form(32, 4), sweeps=2)
    assert run.busy * run.seconds <= 1e-3 * 3 * 128


def test_the_same_seed_gives_the_same_run() -> None:
    costs = replace(DEAR, spread=0.2)
    assert timing(costs, Form(8), seed=3) == timing(costs, Form(8), seed=3)
    assert timing(costs, Form(8), seed=3) != timing(costs, Form(8), seed=4)


def test_costs_are_kept_by_size_and_rule(tmp_path) -> None:
    file = tmp_path / "costs.json"
    save([FREE, replace(FREE, d=2, step=math.pi)], [{"d": 1, "rule": "none", "seconds": 1.0}], file)
    save([replace(FREE, step=2.0)], [], file)
    kept = load(file)
    assert [Costs(**each) for each in kept["costs"]] == [replace(FREE, step=2.0), replace(FREE, d=2, step=3.14)]
    assert len(kept["runs"]) == 1
