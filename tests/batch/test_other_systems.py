"""PBS and Grid Engine: a run over several jobs, and the loss of its server's."""

from __future__ import annotations

from typing import Any

import pytest
from cluster.helpers import Slow, until
from faults.helpers import assert_nothing_left, check, launch, under_way

pytestmark = pytest.mark.timeout(180)

SYSTEMS = ["on_pbs", "on_sge"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_fit(request: Any, system: str) -> None:
    site = request.getfixturevalue(system)(jobs=2)
    assert set(site.workers().values()) == set(site.system.jobs())
    run = launch(site.client)
    check(run)
    assert_nothing_left(site.client)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_server_s_job_is_deleted(request: Any, system: str) -> None:
    """Grid Engine tells it before (-notify), so that the server moves; PBS does not."""
    site = request.getfixturevalue(system)(jobs=3)
    run = launch(site.client, Slow(delay=0.1))
    job = site.workers()[under_way(run)]
    site.system.cancel(job)
    until(lambda: run.status().epoch == 2)
    result = check(run)
    assert result.version.epoch == 2
    assert any("was lost" in note for note in result.notes) is (system == "on_pbs")
    until(lambda: job not in site.system.jobs())
