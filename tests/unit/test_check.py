"""What the facts of a cluster mean: one sin at a time, on a cluster that is otherwise as it should be."""

from __future__ import annotations

from typing import Any

import pytest

from paramserver.cluster.findings import Finding, Findings, judge
from paramserver.cluster.keywords import PRELOAD
from paramserver.cluster.probe import Deployed, Facts

HERE = {"paramserver": "1.2", "python": "3.11.4", "distributed": "2026.8.0", "host": "login"}
SCHEDULER = "tls://10.0.0.1:8786"


def worker(**changes: Any) -> dict[str, Any]:
    good = {
        **HERE, "host": "node1", "job": None, "blas": 1, "http": ["127.0.0.1"], "preloads": [], "lifetime": None,
        "nanny": None, "threads": 1, "reserved": False,
    }  # fmt: skip
    return {**good, **changes}


def in_job(**changes: Any) -> dict[str, Any]:
    return worker(job=("slurm", "17"), **{"preloads": [PRELOAD], **changes})


def facts(*workers: dict[str, Any], scheduler: Any = None, **changes: Any) -> Facts:
    """A cluster of these workers; without any, of two good ones."""
    here = {
        **HERE, "job": None, "http": ["127.0.0.1"], "listens": [SCHEDULER], "allowed_failures": 20, **(scheduler or {})
    }  # fmt: skip
    there = {f"tls://10.0.0.2:{40000 + k}": one for k, one in enumerate(workers or (worker(), worker()))}
    good = Facts(HERE, SCHEDULER, here, there, {}, {}, Deployed())
    return good._replace(**changes)


def of(found: Findings) -> list[tuple[str, str]]:
    return [(finding.level, finding.what) for finding in found]


def test_a_cluster_as_it_should_be_has_no_findings() -> None:
    assert judge(facts()) == []
    assert str(judge(facts())) == "nothing found that would hurt a run"
    safe = facts(in_job(), in_job(), worker(reserved=True), deployed=Deployed("jobqueue", 2, False, "ours", 2.0))
    assert judge(safe) == []
    assert judge(facts(worker(lifetime=3600.0), worker(reserved=True))) == []
    assert judge(facts(SAFE, worker(job=("pbs", "3")))) == []  # whose jobs nobody warns, preload or not


JOBQUEUE = Deployed("jobqueue", 2, False, "", 2.0)
SAFE = worker(reserved=True)

SINS = {
    "other paramserver": (
        facts(worker(), worker(paramserver="1.1")),
        "error",
        "imports paramserver 1.1, this process has 1.2",
        "pip install paramserver==1.2",
    ),
    "no paramserver": (
        facts(scheduler={"paramserver": ""}),
        "error",
        "scheduler at tls://10.0.0.1:8786 (host login) cannot import",
        "pip install paramserver==1.2",
    ),
    "other Python": (facts(worker(python="3.10.9")), "error", "runs Python 3.10.9, this process 3.11.4", "environment"),
    "other distributed": (
        facts(worker(distributed="2025.1.0")),
        "warning",
        "has distributed 2025.1.0",
        "distributed==2026.8.0",
    ),
    "silent": (
        facts(silent={"tls://10.0.0.3:1": "did not answer within 30 s"}),
        "error",
        "10.0.0.3:1, or its nanny, did not answer within 30 s",
        "log",
    ),
    "nobody": (facts(workers={}), "error", "no worker has joined", "dask worker tls://10.0.0.1:8786"),
    "nobody of three": (
        facts(workers={}, deployed=Deployed("jobqueue", 3)),
        "error",
        "no worker has joined of 3",
        "squeue",
    ),
    "nobody yet": (
        facts(workers={}, deployed=Deployed("jobqueue", 0, adaptive="ours")),
        "note",
        "starts some for a run",
        "",
    ),
    "plain TCP": (
        facts(workers={"tcp://10.0.0.2:1": worker()}),
        "warning",
        "whoever reaches tcp://10.0.0.2:1 runs code",
        "--tls-ca-file",
    ),
    "plain TCP too": (
        facts(scheduler={"listens": [SCHEDULER, "tcp://10.0.0.1:8787"]}),
        "warning",
        "tcp://10.0.0.1:8787",
        "--tls-ca-file",
    ),
    "open HTTP": (
        facts(worker(http=["0.0.0.0"])),
        "warning",
        "HTTP servers of the worker at tls://10.0.0.2:40000",
        "dask worker ... --dashboard-address 127.0.0.1:0",
    ),
    "open HTTP, IPv6": (facts(worker(http=["127.0.0.1", "::"])), "warning", "HTTP servers", "--dashboard-address"),
    "open HTTP in jobs": (
        facts(SAFE, in_job(http=["10.0.0.2"])),
        "warning",
        "HTTP servers",
        'worker_extra_args=["--dashboard-address", "127.0.0.1:0"]',
    ),
    "open HTTP, local": (
        facts(worker(http=["0.0.0.0"]), deployed=Deployed("local")),
        "warning",
        "HTTP servers",
        "worker_dashboard_address=",
    ),
    "open dashboard": (facts(scheduler={"http": ["0.0.0.0"]}), "warning", "the scheduler's dashboard", "ssh -L"),
    "no preload": (
        facts(SAFE, in_job(preloads=[])),
        "warning",
        "tls://10.0.0.2:40001 in slurm jobs would be killed",
        "--signal=B:USR1@60",
    ),
    "no preload, SGE": (facts(SAFE, worker(job=("sge", "3"))), "warning", "in sge jobs", "with -notify"),
    "no preload in the nanny": (
        facts(SAFE, in_job(), nannies={"tls://10.0.0.2:40001": worker()}),
        "warning",
        "in slurm jobs",
        "--preload-nanny",
    ),
    "scheduler in a job": (
        facts(scheduler={"job": ("slurm", "4")}),
        "note",
        "the scheduler runs in slurm job 4",
        "checkpoint=",
    ),
    "all have a lifetime": (facts(worker(lifetime=60.0)), "warning", "was started with --lifetime", "--resources"),
    "the reserved one has a lifetime": (
        facts(worker(), worker(lifetime=60.0, reserved=True)),
        "warning",
        "was started with --lifetime",
        "--resources",
    ),
    "nowhere safe": (facts(in_job(), worker()), "note", "no worker is reserved for servers", "--resources"),
    "neighbours": (
        facts(deployed=Deployed("jobqueue", 2, True, "other", 2.0)),
        "warning",
        "several workers a job",
        "Adaptive=paramserver.cluster.Adaptive",
    ),
    "lost late": (
        facts(deployed=JOBQUEUE._replace(lost_after=15.0)),
        "note",
        "given up after 15 s",
        "lost-worker-timeout",
    ),
    "few failures": (
        facts(SAFE, in_job(), scheduler={"allowed_failures": 3}),
        "note",
        "4 workers died at it, a run lets it try 2 times more: a chunk whose reading is under way at 12",
        "allowed-failures",
    ),
    "BLAS": (facts(worker(blas=8)), "note", "takes 8 threads", "OMP_NUM_THREADS=1"),
    "threads": (facts(worker(threads=4)), "note", "4 threads on the worker", "--nworkers 4 --nthreads 1"),
}


@pytest.mark.parametrize("sin", SINS)
def test_each_sin_is_found_with_the_line_that_mends_it(sin: str) -> None:
    given, level, what, do = SINS[sin]
    found = [finding for finding in judge(given) if what in finding.what]
    assert len(found) == 1, str(judge(given))
    assert found[0].level == level
    assert do in found[0].do
    if sin not in ("all have a lifetime",):  # which is also nowhere safe
        assert len(judge(given)) == 1, str(judge(given))


@pytest.mark.parametrize(
    "deployed",
    [Deployed("jobqueue", 2, True, "ours", 2.0), Deployed("jobqueue", 2, False, "other", 2.0), Deployed("local")],
)
def test_what_is_well_deployed_is_left_alone(deployed: Deployed) -> None:
    assert judge(facts(deployed=deployed)) == []


def test_the_worst_comes_first_and_the_lines_are_whole() -> None:
    found = judge(facts(*[worker(threads=2, http=["0.0.0.0"]) for _ in range(5)], scheduler={"paramserver": "1"}))
    assert [finding.level for finding in found] == ["error", "warning", "note"]
    assert found.errors == found[:1]
    text = str(found)
    assert text.startswith("error    the scheduler at")
    assert "5 workers (tls://10.0.0.2:40000, tls://10.0.0.2:40001, tls://10.0.0.2:40002 and 2 more)" in " ".join(
        text.split()
    )
    assert "\n             dask worker ... --dashboard-address 127.0.0.1:0\n" in text
    assert repr(found) == text
    assert of(Findings([Finding("note", "a", "b")])) == [("note", "a")]
