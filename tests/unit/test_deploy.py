"""The files in deploy: the settings that suit runs are in them, and what they submit is what one reads there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import dask
import dask_jobqueue
import pytest
import yaml

from paramserver.cluster import settings
from paramserver.cluster.jobs import script
from paramserver.cluster.request import Request

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
SYSTEMS = ["lsf", "pbs", "sge", "slurm"]


def written(system: str) -> Any:
    """What a site's jobqueue.yaml says."""
    return yaml.safe_load((DEPLOY / system / "jobqueue.yaml").read_text())


def known(system: str) -> Any:
    """dask-jobqueue's keys, and what it takes for them."""
    return yaml.safe_load(Path(dask_jobqueue.__file__).with_name("jobqueue.yaml").read_text())["jobqueue"][system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_files_say_what_settings_says(system: str) -> None:
    section = written(system)["jobqueue"][system]
    for key, value in settings(system, cores=4, memory="16GB", processes=4, python="python").items():
        there = section[key.replace("_", "-")] if value else []
        if isinstance(value, list):
            assert set(value) <= set(there), key
        else:
            assert str(there).split()[0] == str(value).split()[0], key  # exec, and some python


@pytest.mark.parametrize("system", SYSTEMS)
def test_dask_jobqueue_knows_every_key(system: str) -> None:
    assert written(system)["jobqueue"][system].keys() <= known(system).keys()


def test_a_job_of_lsf() -> None:
    site = {**known("lsf"), **written("lsf")["jobqueue"]["lsf"], "lsf-units": "mb"}
    with dask.config.set({"jobqueue.lsf": site}):
        assert script(Request("lsf")) == (DEPLOY / "lsf" / "job.lsf").read_text()


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sbatch")) + sorted(DEPLOY.glob("local/*/*")), ids=str)
def test_bash_can_read_it(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True, timeout=20)
