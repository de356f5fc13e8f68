"""Where a run's time went: the server's books, and what a reader is told of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paramserver as ps
from paramserver.messages import Assignment, Outcome, Push, Stop, Task, Version, Wait
from paramserver.profile import COLUMNS, Profile, WorkerTime
from paramserver.server.timesheet import Timesheet

V = Version(1, 1)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1200, 4))
Y = (RNG.random(1200) < 1 / (1 + np.exp(-X @ np.array([1.0, -1.0, 0.5, 0.0])))).astype(float)


def work(task: Task = Task.SOLVE) -> Assignment:
    return Assignment(0, 1, task, V, None, {}, False)


def done(seconds: float, task: Task = Task.SOLVE, loading: float = 0.0, hessian: bool = False) -> Push:
    return Push(0, 1, task, V, {"H": 1} if hessian else {}, seconds=seconds, loading=loading)


def line(sheet: Timesheet, now: float, worker: str = "a") -> WorkerTime:
    return next(time for time in sheet.workers(now) if time.worker == worker)


def test_a_runner_s_time_is_all_accounted_for() -> None:
    sheet = Timesheet()
    sheet.came("a#0", None, 10.0)
    sheet.at("answers", 0.25)
    sheet.answered("a#0", work(), 11.0)  # 0.25 the server's, 0.75 idle
    sheet.came("a#0", done(3.0, loading=1.0, hessian=True), 15.0, looking=0.5)  # 1 load, 2 compute, 0.5 looked
    sheet.answered("a#0", Wait(), 15.0)
    sheet.came("a#0", None, 15.125)
    time = line(sheet, 20.125)
    assert dict(time.by_task) == {"solve + Hessian": 2.0}
    assert time.steps == {"solve + Hessian": 1}
    assert (time.load, time.exchange, time.server, time.idle) == (1.5, 0.625, 0.25, 5.75)
    assert time.seconds == 10.125  # from its first call till now
    assert time.seconds == sum(getattr(time, column) for column in COLUMNS)


def test_steps_under_way_grow_until_the_worker_is_gone() -> None:
    sheet = Timesheet()
    sheet.came("a#0", None, 0.0)
    sheet.answered("a#0", work(), 0.0)
    assert line(sheet, 2.0).under_way == 2.0
    assert line(sheet, 3.0).under_way == 3.0  # reading books nothing
    sheet.gone("a", 4.0)
    assert line(sheet, 9.0).under_way == line(sheet, 9.0).seconds == 4.0


def test_a_runner_that_was_told_to_stop_costs_nothing_more() -> None:
    sheet = Timesheet()
    sheet.came("a#0", None, 0.0)
    sheet.answered("a#0", Stop("over"), 1.0)
    assert line(sheet, 9.0).seconds == 1.0


def test_what_was_not_done_is_no_step_but_takes_its_time() -> None:
    sheet = Timesheet()
    sheet.came("a#0", None, 0.0)
    sheet.answered("a#0", work(), 0.0)
    sheet.came("a#0", Push(0, 1, Task.SOLVE, V, {}, seconds=1.0, trouble="busy", loading=1.0), 1.5)
    time = line(sheet, 1.5)
    assert (time.steps, time.load, time.exchange, time.compute) == ({}, 1.0, 0.5, 0.0)


def test_runners_of_a_worker_share_a_line() -> None:
    sheet = Timesheet()
    for runner in ("a#0", "a#1", "b#0"):
        sheet.came(runner, None, 0.0)
    sheet.copied("b", (3, 0.5))
    assert [(t.worker, t.runners, t.idle, t.copies) for t in sheet.workers(2.0)] == [("a", 2, 4.0, 0), ("b", 1, 2.0, 3)]


def test_the_server_at_work_while_a_call_waits_is_no_idleness() -> None:
    sheet = Timesheet()
    sheet.came("a#0", None, 0.0)
    sheet.at("z", 5.0)  # began before the call came: at most all of its wait
    assert (line(sheet, 2.0).server, line(sheet, 2.0).idle) == (2.0, 0.0)


def test_stages_are_the_first_push_and_the_last_solve() -> None:
    sheet = Timesheet()
    for now, task in enumerate((Task.SURVEY, Task.SOLVE, Task.SOLVE, Task.VERIFY)):
        sheet.pushed(task, Outcome.ACCEPTED, float(now))
    sheet.pushed(Task.SOLVE, Outcome.LATE, 9.0)
    assert sheet.stages == {"first push": 0.0, "last solve": 2.0}


def test_a_server_s_life_is_placed_where_others_saw_it() -> None:
    of_server = Profile("r", "finished", 2.0, {"first push": 0.5, "end": 2.0})
    whole = of_server.from_launch({"data sent": 0.1, "server up": 0.3, "end known": 2.2, "result in hand": 2.5})
    # Heard to be up at 0.3, but 2 s before its end at the latest: 0.2.
    assert list(whole.stages) == ["data sent", "server up", "first push", "end", "end known", "result in hand"]
    assert whole.stages["first push"] == pytest.approx(0.7)
    assert whole.seconds == 2.5
    live = Profile("r", "running", 2.0, {"first push": 0.5}).from_launch({"server up": 0.3})
    assert (live.stages["first push"], live.seconds) == (pytest.approx(0.8), pytest.approx(2.3))


@pytest.fixture(scope="module")
def simulated() -> Profile:
    network = ps.Network(speeds=(1, 1, 4), deaths=[(0, 4.0, 8.0)])
    result = ps.simulate(ps.Logistic(), X, Y, chunks=12, penalty=ps.L2(1.0), network=network).result
    assert result.profile is not None
    return result.profile


def test_a_simulation_is_profiled_in_virtual_time(simulated: Profile) -> None:
    assert simulated.unit == "passes"
    assert list(simulated.stages) == ["first push", "null model", "last solve", "certificate", "end"]
    assert list(simulated.stages.values()) == sorted(simulated.stages.values())
    assert set(simulated.by_task) >= {"survey", "solve", "solve + Hessian", "verify + Hessian"}
    for time in simulated.workers[1:]:  # those that did not die
        assert time.seconds == pytest.approx(simulated.seconds)
    assert simulated.workers[0].seconds == pytest.approx(simulated.seconds - 4.0)
    assert simulated.workers[0].under_way > 0  # what died with it


def test_the_table_and_the_json_say_the_same(simulated: Profile) -> None:
    text = str(simulated)
    for word in ("first push", "last solve", "certificate", "w2", "solve + Hessian", "all", "idle", "under way"):
        assert word in text
    plain = json.loads(json.dumps(simulated.as_dict()))
    assert plain["steps"] == simulated.steps
    assert plain["workers"][2]["compute"] == pytest.approx(simulated.workers[2].compute)
    assert sum(plain["by_task"].values()) == pytest.approx(sum(worker["compute"] for worker in plain["workers"]))


def test_a_run_without_a_server_has_stages_only() -> None:
    text = str(Profile("r", "waiting", 0.0, {}).from_launch({"cluster checked": 0.1, "data sent": 0.25}))
    assert text.splitlines()[0] == "run 'r': waiting, 0.250 s since its launch"
    assert "worker" not in text
