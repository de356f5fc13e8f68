"""`check` on a cluster of jobs: what a plain one lacks, and that our settings are what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
from dask_jobqueue import SLURMCluster
from distributed import Client

import paramserver as ps

from .site import QUICK, Site, worker_options
from .slurm import Slurm

pytestmark = pytest.mark.timeout(180)


def whats(site: Site, level: str) -> list[str]:
    return [finding.what for finding in ps.check(site.client) if finding.level == level]


def test_a_plain_cluster_of_jobs_is_told_what_it_lacks(slurm: Slurm, no_job_left: None, tmp_path: Path) -> None:
    """dask-jobqueue's own, as a script makes it that knows nothing of `settings`."""
    plain = {**worker_options(tmp_path), "scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
    with dask.config.set(QUICK), SLURMCluster(**plain) as cluster, Client(cluster, set_as_default=False) as client:
        site = Site(cluster, client, slurm)
        site.scale(2)
        told_what_it_lacks(site)


def told_what_it_lacks(site: Site) -> None:
    assert whats(site, "error") == []
    http, walltime = whats(site, "warning")
    assert http.startswith("the HTTP servers of 2 workers")
    assert walltime.startswith("2 workers")
    assert "in slurm jobs would be killed at their walltime" in walltime
    nowhere, given_up = whats(site, "note")
    assert "no worker is reserved for servers" in nowhere
    assert "when 4 workers died at it" in given_up


def test_with_our_settings_nothing_is_left_but_notes(on_slurm: Callable[..., Site], tmp_path: Path) -> None:
    own: dict[str, Any] = {**worker_options(tmp_path), "worker_extra_args": ["--resources", "paramserver=1"]}
    site = on_slurm(jobs=1, **ps.cluster.settings("slurm", **own))
    assert whats(site, "error") == whats(site, "warning") == []
    (given_up,) = whats(site, "note")
    assert "12 deaths" in given_up
