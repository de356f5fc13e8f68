"""What the facts of a cluster mean for a run: one rule a hazard, each with the line that mends it."""

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from paramserver.cluster.keywords import PRELOAD, THREADS
from paramserver.cluster.probe import Facts
from paramserver.cluster.systems import SYSTEMS
from paramserver.supervisor.data import RETRIES
from paramserver.transport import exposed

LOST_AFTER = 5.0  #: seconds from a worker's loss to another job in its place that nobody minds
ALLOWED = 10  #: deaths of workers at one task that a cluster of mortal workers should bear
WIDTH = 110

Level = Literal["error", "warning", "note"]
LEVELS = ("error", "warning", "note")


class Finding(NamedTuple):
    """Something that would hurt a run."""

    level: Level  #: error: a run would fail or wait for ever; warning: it may suffer; note: good to know
    what: str
    do: str  #: the line that mends it


class Findings(list[Finding]):
    """All of them, the worst first; prints as a table."""

    @property
    def errors(self) -> list[Finding]:
        """Those that a run would fail by."""
        return [finding for finding in self if finding.level == "error"]

    def __str__(self) -> str:
        return "\n".join(_row(finding) for finding in self) or "nothing found that would hurt a run"

    __repr__ = __str__


def _row(finding: Finding) -> str:
    head = f"{finding.level:<9}"
    what = textwrap.fill(finding.what, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    return f"{what}\n{textwrap.indent(finding.do, ' ' * 13)}"  # not wrapped: it is to be pasted


def judge(facts: Facts) -> Findings:
    """What would hurt a run on a cluster that is as these facts say."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return Findings(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def _by_start(facts: Facts, options: str, jobqueue: str, local: str) -> str:
    """The line for however its workers are started: by hand, by dask-jobqueue, or with a LocalCluster."""
    kind = facts.deployed.kind
    if kind == "jobqueue" or (not kind and _in_jobs(facts)):
        return jobqueue
    return local if kind == "local" else options


def _some(addresses: Iterable[str], most: int = 3) -> str:
    every = sorted(addresses)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _workers(addresses: Iterable[str]) -> str:
    every = list(addresses)
    return f"the worker at {every[0]}" if len(every) == 1 else f"{len(every)} workers ({_some(every)})"


def _in_jobs(facts: Facts) -> list[str]:
    return [address for address, worker in facts.workers.items() if worker["job"]]


def _mortal(facts: Facts) -> list[str]:
    """Workers that somebody else may end."""
    return [address for address, worker in facts.workers.items() if worker["job"] or worker["lifetime"] is not None]


# -- who is there ----------------------------------------------------------------------------------


def _versions(facts: Facts) -> Iterator[Finding]:
    here, processes = facts.here, {f"the scheduler at {facts.address}": facts.scheduler}
    processes |= {f"the worker at {address}": worker for address, worker in facts.workers.items()}
    for where, there in processes.items():
        if there["paramserver"] != here["paramserver"]:
            has = f"imports paramserver {there['paramserver']}" if there["paramserver"] else "cannot import paramserver"
            what = f"{where} (host {there['host']}) {has}, this process has {here['paramserver']}"
            yield Finding("error", what, f"pip install paramserver=={here['paramserver']}   # the same one there")
        if _minor(there["python"]) != _minor(here["python"]):
            what = f"{where} runs Python {there['python']}, this process {here['python']}: functions cannot travel"
            yield Finding("error", what, "start it from the environment that this process has")
        if there["distributed"] != here["distributed"]:
            what = f"{where} has distributed {there['distributed']}, this process {here['distributed']}"
            yield Finding("warning", what, f"pip install distributed=={here['distributed']}   # there")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _silent(facts: Facts) -> Iterator[Finding]:
    for address, why in facts.silent.items():
        what = f"the worker at {address}, or its nanny, {why}"
        yield Finding("error", what, "look at its log; end it, and let another start")


def _nobody(facts: Facts) -> Iterator[Finding]:
    if facts.workers or facts.silent:
        return
    if facts.deployed.adaptive:
        yield Finding("note", "no worker has joined; the cluster adapts, and starts some for a run", "nothing to do")
        return
    jobs = facts.deployed.jobs
    what = "no worker has joined" + (f" of {jobs} that the cluster started" if jobs else "")
    how = "cluster.scale(jobs=4)" if facts.deployed.kind == "jobqueue" else f"dask worker {facts.address} --nthreads 1"
    yield Finding("error", what, "see why they do not start: squeue, qstat or bjobs" if jobs else how)


# -- who may listen --------------------------------------------------------------------------------


def _in_the_clear(facts: Facts) -> Iterator[Finding]:
    reached = [address for address in {facts.address, *facts.scheduler["listens"], *facts.workers} if exposed(address)]
    if reached:
        yield Finding(
            "warning",
            f"data and parameters travel unencrypted, and whoever reaches {_some(reached)} runs code there as you",
            _by_start(
                facts,
                "dask worker ... --tls-ca-file ca.pem --tls-cert any.pem --tls-key any.key   # the scheduler too",
                'SLURMCluster(..., security=True, shared_temp_directory="a directory that all machines see")',
                "LocalCluster(..., security=True)   # and launch(..., require_tls=True), to be sure of it",
            ),
        )


def _http(facts: Facts) -> Iterator[Finding]:
    open_ = [address for address, worker in facts.workers.items() if any(map(_open, worker["http"]))]
    said = "show tasks and logs to everyone who reaches their hosts, without authentication, over TLS or not"
    if open_:
        lines = (
            "dask worker ... --dashboard-address 127.0.0.1:0",
            'worker_extra_args=["--dashboard-address", "127.0.0.1:0"]',
            'LocalCluster(..., worker_dashboard_address="127.0.0.1:0")',
        )
        yield Finding("warning", f"the HTTP servers of {_workers(open_)} {said}", _by_start(facts, *lines))
    if any(map(_open, facts.scheduler["http"])):
        lines = (
            "dask scheduler ... --dashboard-address 127.0.0.1:8787   # and ssh -L 8787:127.0.0.1:8787",
            'scheduler_options={"dashboard_address": "127.0.0.1:8787"}   # and ssh -L 8787:127.0.0.1:8787',
            'LocalCluster(..., dashboard_address="127.0.0.1:8787")',
        )
        host = facts.scheduler["host"]
        what = f"the scheduler's dashboard answers everyone who reaches {host}, without authentication, over TLS or not"
        yield Finding("warning", what, _by_start(facts, *lines))


def _open(host: str) -> bool:
    return not ipaddress.ip_address(host.partition("%")[0]).is_loopback


# -- who may die -----------------------------------------------------------------------------------


def _walltime(facts: Facts) -> Iterator[Finding]:
    unwarned = [
        address
        for address in _in_jobs(facts)
        if any(PRELOAD not in one[address]["preloads"] for one in (facts.workers, facts.nannies) if address in one)
    ]
    name = facts.workers[unwarned[0]]["job"][0] if unwarned else ""
    if not unwarned or not SYSTEMS[name].warn:  # nobody warns its jobs
        return
    directives = " ".join(SYSTEMS[name].warn).format(seconds=60, minutes=1)
    what = (
        f"{_workers(unwarned)} in {name} jobs would be killed at their walltime without a word, and a server there "
        f"with them: they lack the preload {PRELOAD}"
    )
    do = (
        f'{SYSTEMS[name].cluster}(**paramserver.cluster.settings("{name}", cores=1, memory="4GB"))\n'
        f"dask worker ... --preload {PRELOAD} --preload-nanny {PRELOAD}   # in a script with {directives}"
    )
    yield Finding("warning", what, do)


def _scheduler_in_a_job(facts: Facts) -> Iterator[Finding]:
    if facts.scheduler["job"]:
        system, number = facts.scheduler["job"]
        what = f"the scheduler runs in {system} job {number}, whose end is every run's end"
        yield Finding("note", what, 'ps.launch(..., checkpoint="a directory that all machines see")   # then ps.resume')


def _lifetimes(facts: Facts) -> Iterator[Finding]:
    homes = [worker for worker in facts.workers.values() if worker["reserved"]] or list(facts.workers.values())
    if homes and all(worker["lifetime"] is not None for worker in homes):
        what = "every worker that a run's server may go to was started with --lifetime: the server is lost at its end"
        yield Finding("warning", what, f'dask worker {facts.address} --nthreads 1 --resources "paramserver=1"')


def _nowhere_safe(facts: Facts) -> Iterator[Finding]:
    mortal = _mortal(facts)
    if mortal and not any(worker["reserved"] for worker in facts.workers.values()):
        what = (
            f"{_workers(mortal)} may be ended by others, and no worker is reserved for servers: each loss of a server "
            "costs a second or so, and the steps that died with it"
        )
        do = f'dask worker {facts.address} --nthreads 1 --resources "paramserver=1"   # where nobody ends it'
        yield Finding("note", what, do)


def _neighbours(facts: Facts) -> Iterator[Finding]:
    if facts.deployed.adaptive == "other" and facts.deployed.grouped:
        what = "the cluster starts several workers a job, and its Adaptive ends a server's job for an idle neighbour"
        yield Finding("warning", what, "cluster.adapt(Adaptive=paramserver.cluster.Adaptive, minimum=0, maximum=8)")


def _replaced_late(facts: Facts) -> Iterator[Finding]:
    after = facts.deployed.lost_after
    if facts.deployed.kind == "jobqueue" and after > LOST_AFTER:
        what = f"a job that was lost is given up after {after:g} s, and only then can another take its place"
        yield Finding("note", what, 'dask.config.set({"distributed.deploy.lost-worker-timeout": "2s"})')


def _given_up(facts: Facts) -> Iterator[Finding]:
    allowed = facts.scheduler["allowed_failures"]
    if _mortal(facts) and allowed < ALLOWED:
        what = (
            f"Dask gives up a task when {allowed + 1} workers died at it, a run lets it try {RETRIES} times more: a "
            f"chunk whose reading is under way at {(allowed + 1) * (RETRIES + 1)} deaths is lost"
        )
        lines = (
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=20 dask scheduler ...",
            'dask.config.set({"distributed.scheduler.allowed-failures": 20})   # before the cluster is made',
        )
        yield Finding("note", what, _by_start(facts, *lines, lines[-1]))


# -- who is slow -----------------------------------------------------------------------------------


def _blas(facts: Facts) -> Iterator[Finding]:
    many = {address: worker["blas"] for address, worker in facts.workers.items() if worker["blas"] > 1}
    if many:
        what = (
            f"BLAS on {_workers(many)} takes {max(many.values())} threads: a run's own steps keep to one each whatever "
            "this says, but other work there does not, such as reading the data"
        )
        lines = (
            f"{THREADS}   # before dask worker",
            f'job_script_prologue=["{THREADS}"]',
            f"{THREADS}   # and begin anew",
        )
        yield Finding("note", what, _by_start(facts, *lines))


def _threads(facts: Facts) -> Iterator[Finding]:
    several = {address: worker["threads"] for address, worker in facts.workers.items() if worker["threads"] > 1}
    if several:
        n = max(several.values())
        what = f"{n} threads on {_workers(several)}: as many workers of one thread do more"
        lines = (f"dask worker ... --nworkers {n} --nthreads 1", f"cores={n}, processes={n}")
        yield Finding("note", what, _by_start(facts, *lines, f"LocalCluster(n_workers={n}, threads_per_worker=1)"))


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _versions, _silent, _nobody, _in_the_clear, _http, _walltime, _scheduler_in_a_job, _lifetimes, _nowhere_safe,
    _neighbours, _replaced_late, _given_up, _blas, _threads,
)  # fmt: skip
