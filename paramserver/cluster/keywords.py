"""Keywords for dask-jobqueue's clusters that suit runs, beside what the user and his jobqueue.yaml say."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any

import dask

from paramserver.cluster.systems import System, cluster_class, system
from paramserver.errors import InvalidInput
from paramserver.plugins import nearest

PRELOAD = "paramserver.cluster.preload"
LOOPBACK = "127.0.0.1:0"
THREADS = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"
OLD = {"worker_extra_args": "extra", "job_extra_directives": "job_extra", "job_script_prologue": "env_extra"}
SCHEDULERS = ("dashboard_address", "host")  #: refused where they are
OURS = {
    "self", "scheduler", "job_cls", "job_kwargs", "base_class_kwargs", "asynchronous", "loop", "n_workers", *SCHEDULERS,
}  # fmt: skip


def settings(name: str, *, warning: float = 60.0, **keywords: Any) -> dict[str, Any]:
    """Keywords for a cluster: ``SLURMCluster(**settings("slurm", cores=4, memory="8GB", walltime="01:00:00"))``.

    Parameters
    ----------
    name : str
        "slurm", "pbs", "sge", "lsf", "htcondor", "oar" or "moab".
    warning : float
        Seconds before the end of a job at which its workers are to hear of it, so that they lose nothing (SGE: as
        long as the queue's ``notify``; LSF: in whole minutes). 0: never; and never on PBS, Moab and HTCondor, where a
        server that ends with its job is made again as after any loss, from what was pushed.
    **keywords :
        Of the cluster's class. They and jobqueue.yaml have the last word: what they say is not said again.

    Returns
    -------
    dict
        The keywords, and: the signal before the end, the preload that acts on it, and ``exec`` before ``python``,
        without which it would end the job's shell; no requeueing, which Dask does not notice; one BLAS thread a
        runner; the HTTP of workers and scheduler on loopback, since it lets in everyone.

    Raises
    ------
    InvalidInput
        There is no such system or keyword, dask-jobqueue is missing, or cores or memory are.
    """
    if not (isinstance(warning, (int, float)) and 0 <= warning < math.inf):
        raise InvalidInput(f"warning must be seconds ≥ 0, got {warning!r}")
    check(name, keywords)
    given = Given(name, keywords)
    return {
        **{key: value for key, value in keywords.items() if key not in OLD.values()},
        **given.size(),
        "python": _exec(given("python") or sys.executable),
        "job_extra_directives": _directives(system(name), given.all("job_extra_directives"), warning),
        "worker_extra_args": _arguments(given.all("worker_extra_args"), warning),
        "job_script_prologue": _prologue(given.all("job_script_prologue"), warning),
        "scheduler_options": {"dashboard_address": LOOPBACK, **(given("scheduler_options") or {})},
    }


def check(name: str, keywords: Mapping[str, Any], where: Mapping[str, str] | None = None) -> None:
    """Refuse what the class does not know; ``where`` says, of each keyword, what its message begins with."""
    known = _known(name)
    for key in keywords:
        begin = (where or {}).get(key, "")
        if key in SCHEDULERS:
            raise InvalidInput(f"{begin}{key} is the scheduler's: scheduler_options: {{{key}: …}}")
        if key not in known:
            made = system(name).cluster
            raise InvalidInput(
                f"{begin}{made} has no keyword {key!r}{nearest(key, known)}; it has {', '.join(sorted(known))}"
            )


def _known(name: str) -> set[str]:
    """Every parameter of the class and of its jobs', which take what they know of ``**kwargs``."""
    made = cluster_class(name)
    kinds = [kind for kind in (*made.__mro__, *made.job_cls.__mro__) if kind.__module__.startswith("dask_jobqueue")]
    return {key for kind in kinds for key in inspect.signature(kind.__init__).parameters} - OURS


class Given:
    """What the user says of a keyword, here or in jobqueue.yaml."""

    def __init__(self, name: str, keywords: Mapping[str, Any]) -> None:
        self.name, self.keywords = name, keywords
        self.section = keywords.get("config_name") or name

    def __call__(self, key: str) -> Any:
        value = self.keywords.get(key)
        return dask.config.get(f"jobqueue.{self.section}.{key.replace('_', '-')}", None) if value is None else value

    def all(self, key: str) -> Any:
        """Of a list: by its new name or, as dask-jobqueue still takes it, by its old one."""
        value = self(key) or self(OLD[key]) or []
        return dict(value) if isinstance(value, Mapping) else [*value]

    def size(self) -> dict[str, Any]:
        """Cores, memory, and processes: by these keywords alone Dask and `Adaptive` know what a job brings."""
        from distributed.deploy.local import nprocesses_nthreads

        cores, memory = self("cores"), self("memory")
        if cores is None or memory is None:
            raise InvalidInput(
                f"say how large a job is: cores and memory, under cluster: in the job file, or in "
                f"~/.config/dask/jobqueue.yaml:\n    jobqueue:\n      {self.section}:\n        cores: {cores or 4}\n"
                f"        memory: {memory or '8GB'}"
            )
        return {"cores": cores, "memory": memory, "processes": self("processes") or nprocesses_nthreads(cores)[0]}


def _exec(python: str) -> str:
    return python if python.startswith("exec ") else f"exec {python}"


def _directives(batch: System, given: Any, warning: float) -> Any:
    if isinstance(given, dict):  # HTCondor's, which has none for this
        return given
    own = {str(directive).replace("=", " ").split()[0] for directive in given if str(directive).strip()}
    units = {"seconds": math.ceil(warning), "minutes": math.ceil(warning / 60)}
    ours = {**batch.always, **(batch.warn if warning else {})}
    return [*given, *(text.format(**units) for text, same in ours.items() if not own.intersection(same))]


def _arguments(given: list[Any], warning: float) -> list[Any]:
    said = " ".join(map(str, given)).replace("=", " ").split()
    preload = ["--preload", PRELOAD, "--preload-nanny", PRELOAD] if warning and PRELOAD not in said else []
    return [*given, *preload, *(["--dashboard-address", LOOPBACK] if "--dashboard-address" not in said else [])]


def _prologue(given: list[str], warning: float) -> list[str]:
    ours = [THREADS, *([f"export PARAMSERVER_WARNING={warning:g}"] if warning else [])]
    names = [line.removeprefix("export ").partition("=")[0] for line in ours]
    return [*given, *(line for line, name in zip(ours, names, strict=True) if not any(name in one for one in given))]
