"""Who works on what, and who copies what, by how long steps take."""

import numpy as np
import pytest

import paramserver as ps
from paramserver.messages import Push, Task, Version
from paramserver.server.dispatch import Dispatch
from paramserver.server.pace import Pace
from paramserver.server.slots import Slot

AT = Version(0, 1)
ROWS = 1000


def took(worker_pace, worker, seconds, task=Task.SOLVE, **payload):
    worker_pace.took(worker, Push(0, 1, task, AT, payload, seconds=seconds), ROWS)


def dispatch(chunks, **holders):
    slots = [Slot(survey=np.array([ROWS])) for _ in range(chunks)]
    out = Dispatch(slots, floor=0.25)
    for worker, held in holders.items():
        out.holds(worker, held)
    return out


def paced(out, **seconds):
    """Ten steps of each worker."""
    for _ in range(10):
        for worker, each in seconds.items():
            took(out.pace, worker, each, f=0.0)
    return out


def test_a_worker_that_is_six_times_slower_is_found_so_by_its_steps():
    pace = Pace(0.0125)
    for _ in range(10):
        took(pace, "fast", 0.04)
        took(pace, "slow", 0.24)
    assert pace.slowness("slow") / pace.slowness("fast") == pytest.approx(6, rel=0.15)
    assert pace.seconds("slow", Task.SOLVE, ROWS) == pytest.approx(0.24, rel=0.15)
    assert pace.seconds("slow", Task.VERIFY, ROWS) is None


def test_kinds_of_step_are_compared_each_with_its_own():
    pace = Pace(0.0125)
    for _ in range(10):
        took(pace, "hessians", 0.4, H=0)
        took(pace, "gradients", 0.01)
    took(pace, "gradients", 0.4, H=0)
    took(pace, "hessians", 0.01)
    assert pace.slowness("hessians") / pace.slowness("gradients") == pytest.approx(1, rel=0.1)


def test_steps_far_shorter_than_the_trust_tell_little():
    pace = Pace(0.0125)
    took(pace, "a", 1e-4)
    took(pace, "b", 3e-4)
    assert pace.slowness("b") == pytest.approx(1, rel=0.05)


def test_a_sample_of_the_rows_stands_for_all():
    pace = Pace(0.0125)
    took(pace, "a", 0.001, every=np.int64(16))
    assert pace.seconds("a", Task.SOLVE, ROWS) == pytest.approx(0.016)


def test_nothing_is_copied_between_equals():
    out = paced(dispatch(16, a=range(8), b=range(8, 16)), a=0.04, b=0.045)
    assert out.choose("a", Task.SOLVE, range(16), 0.1)[1] is None
    assert out.choose("b", Task.SOLVE, range(16), 0.1)[1] is None


def test_the_slow_workers_last_chunk_is_copied_at_once():
    out = paced(dispatch(16, fast=range(8), slow=range(8, 16)), fast=0.04, slow=0.24)
    for k, slot in enumerate(out.slots):
        slot.served = -1.0 + k / 100  # in turn: the slow one comes to chunk 15 last
    chunk, copy = out.choose("fast", Task.SOLVE, range(16), 0.1)
    assert (chunk, copy) == (0, 15)
    assert out.choose("fast", Task.SOLVE, range(16), 0.11) == (0, None), "one at a time"
    out.holds("fast", {*range(8), 15})
    assert out.choose("fast", Task.SOLVE, range(16), 0.12) == (0, 14), "and the next when it is there"


def test_a_copy_dearer_than_the_wait_is_not_made():
    out = paced(dispatch(16, fast=range(8), slow=range(8, 16)), fast=0.04, slow=0.24)
    out.copied["fast"] = 5, 50.0
    assert out.choose("fast", Task.SOLVE, range(16), 0.1)[1] is None


def test_a_copy_that_does_not_come_about_is_asked_for_again():
    out = paced(dispatch(16, fast=range(8), slow=range(8, 16)), fast=0.04, slow=0.24)
    copy = out.choose("fast", Task.SOLVE, range(16), 0.1)[1]
    assert copy is not None
    assert out.choose("fast", Task.SOLVE, range(16), 4.0)[1] is None
    assert out.choose("fast", Task.SOLVE, range(16), 5.2)[1] is not None


def test_a_slow_worker_begins_with_what_only_it_holds():
    out = paced(dispatch(4, fast=[0, 1, 2], slow=[2, 3]), fast=0.04, slow=0.24)
    out.slots[3].served = 1.0  # chunk 2 has waited longer
    assert out.choose("slow", Task.SOLVE, range(4), 2.0)[0] == 3
    assert out.choose("slow", Task.SOLVE, [2], 2.0)[0] == 2
    even = paced(dispatch(4, a=[0, 1, 2], b=[2, 3]), a=0.04, b=0.04)
    even.slots[3].served = 1.0
    assert even.choose("b", Task.SOLVE, range(4), 2.0)[0] == 2


def test_an_idle_worker_takes_over_what_a_slow_one_is_at():
    out = paced(dispatch(1, fast=[0], slow=[0]), fast=0.04, slow=0.24)
    out.lease(0, "slow#0", Task.SOLVE, AT, 10.0)
    assert out.choose("fast", Task.SOLVE, [0], 10.01)[0] == 0
    assert out.choose("fast", Task.SOLVE, [0], 10.2)[0] is None, "the slow one is nearly done"
    assert out.choose("fast", Task.SOLVE, [0], 10.5)[0] == 0, "or is it?"
    out.lease(0, "fast#0", Task.SOLVE, AT, 10.5)
    assert out.slots[0].grace == 1.0, "no lease ran out"
    assert out.choose("slow", Task.SOLVE, [0], 10.51)[0] is None


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(("workers", "chunks", "slow"), [(2, 16, 6.0), (8, 64, 6.0), (6, 24, 10.0)])
def test_one_slow_worker_costs_little_more_than_its_work(workers, chunks, slow, copies):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6000, 20))
    y = (rng.random(6000) < 1 / (1 + np.exp(-X @ rng.standard_normal(20)))).astype(float)
    times = []
    for speeds in ((1.0,) * workers, (slow, *(1.0,) * (workers - 1))):
        network = ps.Network(speeds=speeds, copies=copies)
        run = ps.simulate(ps.Logistic(), X, y, chunks=chunks, penalty=ps.L2(1.0), network=network)
        assert run.result.converged
        times.append(run.time)
    limit = workers / (workers - 1 + 1 / slow)
    assert times[1] <= 1.35 * limit * times[0]
