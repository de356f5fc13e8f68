"""Batch systems: the keywords that suit runs, what users say instead, scripts, and what their commands print."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from typing import Any

import dask
import pytest

import paramserver as ps
from paramserver.cluster.jobs import script
from paramserver.cluster.request import Request
from paramserver.cluster.submissions import Submissions, recorded
from paramserver.cluster.systems import SYSTEMS, Job, cluster_class, listed, reason
from paramserver.errors import InvalidInput

SIZE = {"cores": 2, "memory": "4GB"}
PRELOAD = "--preload paramserver.cluster.preload"


def script_of(system: str, **keywords: Any) -> str:
    more = (
        {"disk": "1GB"} if system == "htcondor" else {"memory_per_core_property_name": "mem"} if system == "oar" else {}
    )
    return script(Request(system, keywords={**SIZE, **more, **keywords}))


@pytest.mark.parametrize(
    ("system", "directives"),
    [
        ("slurm", ["#SBATCH --signal=B:USR1@60", "#SBATCH --no-requeue", "#SBATCH --cpus-per-task=2"]),
        ("sge", ["#$ -notify"]),
        ("lsf", ["#BSUB -wa USR1", "#BSUB -wt 1"]),
        ("oar", ["#OAR --checkpoint 60"]),
        ("pbs", ["#PBS -l select=1:ncpus=2:mem=3815MB"]),
        ("moab", ["#PBS -l walltime=00:30:00"]),
        ("htcondor", []),
    ],
)
def test_scripts(system: str, directives: list[str]) -> None:
    text = script_of(system)
    for directive in directives:
        assert f"{directive}\n" in text
    assert "exec " in text
    assert "OMP_NUM_THREADS=1" in text
    assert PRELOAD in text
    assert "--dashboard-address 127.0.0.1:0" in text
    assert "--death-timeout 60" in text


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("(echo no such queue >&2; exit 255)", "no such queue"),
        ("(echo no such; echo queue; exit 255)", "no such; queue"),
        ("echo submitted", "Could not parse job id"),
    ],
)
def test_what_a_refusal_says(does: str, said: str) -> None:
    """Of LSF too, whose stderr dask-jobqueue throws away."""
    submissions = Submissions()
    job = recorded(cluster_class("lsf").job_cls, submissions)("tcp://127.0.0.1:1", "job", **SIZE)
    job.submit_command = does
    asyncio.run(job.start())
    assert (submissions.accepted, job.job_id) == ([], None)
    assert submissions.refused[0].startswith(said)


def test_an_interrupt_stays_one() -> None:
    """Importing dask_jobqueue makes SIGINT end a process without a word."""
    code = "import signal; from paramserver.cluster.systems import cluster_class; before = signal.getsignal(2); " \
        "cluster_class('slurm'); assert signal.getsignal(2) is before is signal.default_int_handler"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_system_is_dask_jobqueues() -> None:
    for name in SYSTEMS:
        assert cluster_class(name).job_cls.config_name == name


def test_keywords_have_the_last_word() -> None:
    text = script_of(
        "slurm",
        job_extra_directives=["--signal=B:TERM@10", "--requeue"],
        worker_extra_args=["--dashboard-address", ":9000", "--lifetime=50m"],
        job_script_prologue=["export OMP_NUM_THREADS=4"],
        python="exec /opt/python",
    )
    assert "--signal=B:USR1" not in text
    assert "--no-requeue" not in text
    assert "exec /opt/python -m distributed" in text
    assert f"--dashboard-address :9000 --lifetime=50m {PRELOAD} --preload-nanny" in text
    assert text.count("--dashboard-address") == 1
    assert "OPENBLAS" not in text


def test_the_users_yaml_counts() -> None:
    slurm = {
        "cores": 3, "memory": "6GB", "processes": 3, "queue": "long", "job-extra-directives": ["--nice=3"],
        "worker-extra-args": ["--lifetime=50m"], "scheduler-options": {"dashboard_address": ":8787"},
    }  # fmt: skip
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **slurm}}):
        text = script(Request("slurm", warning=90))
        made = ps.cluster.settings("slurm")
    assert "#SBATCH -p long\n" in text
    assert "#SBATCH --nice=3\n#SBATCH --no-requeue\n#SBATCH --signal=B:USR1@90\n" in text
    assert f"--lifetime=50m {PRELOAD}" in text
    assert (made["cores"], made["processes"]) == (3, 3)
    assert made["scheduler_options"] == {"dashboard_address": ":8787"}


def test_old_names_count_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        text = script_of("slurm", job_extra=["--nice=3"], extra=["--lifetime=50m"], env_extra=["module load python"])
    assert "#SBATCH --nice=3\n#SBATCH --no-requeue" in text
    assert "--lifetime=50m --preload" in text
    assert "module load python\nexport OMP_NUM_THREADS=1" in text


def test_no_warning() -> None:
    made = ps.cluster.settings("slurm", warning=0, **SIZE)
    assert made["job_extra_directives"] == ["--no-requeue"]
    assert "--preload" not in made["worker_extra_args"]


def test_a_script_with_tls() -> None:
    text = script(Request("slurm", tls=True, keywords={**SIZE, "shared_temp_directory": "/shared"}))
    assert "tls://<insert-scheduler-address-here>:8786" in text
    assert "--tls-key /shared/.paramserver-tls-…/key.pem" in text


@pytest.mark.parametrize(
    ("system", "keywords", "message"),
    [
        ("slrum", {}, "system must be one of htcondor, lsf, .*'slrum' .did you mean 'slurm'"),
        (
            "slurm",
            {"queu": "long"},
            "SLURMCluster has no keyword 'queu' .did you mean 'queue'.*; it has account, config",
        ),
        ("slurm", {"n_workers": 4}, "SLURMCluster has no keyword 'n_workers'"),
        ("slurm", {"host": "me"}, "host is the scheduler's: scheduler_options"),
        ("slurm", {"cores": None}, "say how large a job is: cores and memory"),
        ("slurm", {"warning": -1}, "warning must be seconds ≥ 0, got -1"),
    ],
)
def test_mistakes(system: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ps.cluster.settings(system, **{**SIZE, **keywords})


def test_mistakes_that_dask_jobqueue_finds() -> None:
    with pytest.raises(InvalidInput, match=r"job.yaml:2: cluster: SLURMCluster says: .*'lots'"):
        script(Request("slurm", keywords={**SIZE, "memory": "lots"}, lines={"system": "job.yaml:2: cluster: "}))
    with pytest.raises(InvalidInput, match=r"job.yaml:4: cluster: SLURMCluster has no keyword 'queu'"):
        script(Request("slurm", keywords={**SIZE, "queu": "long"}, lines={"queu": "job.yaml:4: cluster: "}))


LISTS = {
    "slurm": ("12 PD Resources\n13 R None\n14 PD Prio\n", {"12": (True, "Resources"), "13": (False, "None")}),
    "sge": (
        "job-ID  prior   name       user         state submit/start at     queue             slots ja-task-ID\n"
        "----------------------------------------------------------------------------------------------------\n"
        "     12 0.00000 dask-worke me           qw    11/28/2026 04:40:01                       1\n"
        "     13 0.55500 dask-worke me           r     11/28/2026 04:40:01 main@n1               1\n",
        {"12": (True, ""), "13": (False, "")},
    ),
    "pbs": (
        "Job id              Name             Username        Time Use S Queue\n"
        "------------------- ---------------- --------------- -------- - ---------------\n"
        "12.server           dask-worker      me              00:00:00 Q batch\n"
        "13.server           dask-worker      me              00:00:00 R batch\n"
        "15.server           dask-worker      me              00:00:00 C batch\n",
        {"12": (True, ""), "13": (False, "")},
    ),
    "lsf": (
        "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
        "12      me      PEND  normal     login                   dask-work  Nov 28 04:40\n"
        "13      me      RUN   normal     login       n1          dask-work  Nov 28 04:40\n",
        {"12": (True, ""), "13": (False, "")},
    ),
    "htcondor": (
        "12 0 1 undefined\n13 0 2 undefined\n15 0 5 no disk\n",
        {"12.0": (True, "undefined"), "13.0": (False, "undefined"), "15.0": (True, "no disk")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str) -> None:
    text, jobs = LISTS[name]
    ids = {"12", "13", "15", "12.0", "13.0", "15.0"}
    found = listed(SYSTEMS[name], text, ids)
    assert {job: (seen.pending, seen.reason) for job, seen in found.items()} == jobs
    assert listed(SYSTEMS[name], text, ()) == {}
    assert all(isinstance(seen, Job) for seen in found.values())


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("sge", "job_number:   12\nscheduling info:            cannot run in queue main\n", "cannot run in queue main"),
        ("pbs", "Job Id: 12.server\n    comment = Not Running: no node\n", "Not Running: no node"),
        ("lsf", "JOBID USER STAT\n12 me PEND\n New job is waiting: 1 host;\n", "New job is waiting: 1 host;"),
        ("sge", "Following jobs do not exist: 12\n", ""),
    ],
)  # fmt: skip
def test_reasons(name: str, text: str, why: str) -> None:
    assert reason(SYSTEMS[name], text) == why
