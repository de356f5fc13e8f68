"""A cluster that has no job until a run needs some, and none after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster.helpers import Slow, until
from faults.helpers import CHUNKS, check, launch

import paramserver as ps

from .site import Site

pytestmark = pytest.mark.timeout(180)

MOST = 8


def test_jobs_come_for_a_run_and_go_with_it(on_slurm: Callable[..., Site]) -> None:
    """Whatever a run can use, within bounds, before its data are read."""
    assert CHUNKS > MOST
    site = on_slurm()
    site.cluster.adapt(Adaptive=ps.cluster.Adaptive, minimum=0, maximum=MOST, interval="500ms", wait_count=3)
    assert site.system.jobs() == {}
    run = launch(site.client, Slow(delay=0.4), name="needs some")
    until(lambda: len(site.system.jobs()) == MOST, 60.0)
    until(lambda: len(run.status().runners) >= MOST - 1, 60.0)  # the server's has none where there are more than four
    check(run)
    until(lambda: not site.system.jobs(), 60.0)
    again = launch(site.client, name="comes later")
    until(lambda: site.system.jobs(), 30.0)
    check(again)
    until(lambda: not site.system.jobs(), 60.0)
