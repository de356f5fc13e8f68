"""Where a run's time went, for its users to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

COLUMNS = ("compute", "load", "exchange", "server", "idle", "under_way")


@dataclass(frozen=True)
class WorkerTime:
    """What a worker's runners did: each runner's time since its first call, summed over them.

    Attributes
    ----------
    worker : str
    runners : int
    seconds : float
        The sum of the columns: compute, load, exchange, server, idle and under_way.
    steps, by_task : dict
        Steps done and their seconds by task, chunk ready: "survey", "solve", "solve + Hessian", "solve on a sample" …
    load : float
        Before a step could begin: which chunks are here, their parts fetched, checked and prepared.
    exchange : float
        Calls to the server and back, packing included.
    server : float
        At the server while it was at work.
    idle : float
        At the server while there was nothing to do for this runner.
    under_way : float
        In steps not answered yet, or never to be.
    copies, copying : int, float
        Chunks copied here from other workers, and the seconds of it: in the background, beside the rest.
    """

    worker: str
    runners: int = 0
    seconds: float = 0.0
    steps: dict[str, int] = field(default_factory=dict)
    by_task: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    exchange: float = 0.0
    server: float = 0.0
    idle: float = 0.0
    under_way: float = 0.0
    copies: int = 0
    copying: float = 0.0

    @property
    def compute(self) -> float:
        """Seconds of all tasks."""
        return sum(self.by_task.values())


@dataclass(frozen=True)
class Profile:
    """Where a run's time went, so far or in all; ``print(profile)`` shows a table.

    Attributes
    ----------
    name, state : str
    seconds : float
        From the call of `launch` to the end, or to now.
    stages : dict
        What was reached when, in seconds since the call of `launch`. Each process measures by its own
        clock; they are joined where one calls the next, and agree to within a message's way.
    workers : tuple of WorkerTime
    server : dict
        What the server was at, in seconds: "pushes" taken in, new "z", "null model", "certificate",
        "answers" given out, "messages" packed and unpacked.
    unit : str
        Of all times: "s", or "passes" over a chunk's rows in a simulation.
    """

    name: str
    state: str
    seconds: float
    stages: dict[str, float]
    workers: tuple[WorkerTime, ...] = ()
    server: dict[str, float] = field(default_factory=dict)
    unit: str = "s"

    def from_launch(self, around: Mapping[str, float]) -> Profile:
        """With the stages ``around`` the server's life, as others saw it: they hear of it a little late."""
        up, known = around.get("server up", 0.0), around.get("end known", float("inf"))
        shift = max(min(up, known - self.stages.get("end", 0.0)), 0.0)
        stages = {**{name: at + shift for name, at in self.stages.items()}, **around}
        ordered = dict(sorted(stages.items(), key=lambda stage: stage[1]))
        return replace(self, seconds=max(self.seconds + shift, *ordered.values(), 0.0), stages=ordered)

    @property
    def steps(self) -> dict[str, int]:
        """Steps done by task."""
        return dict(sum((Counter(worker.steps) for worker in self.workers), Counter()))

    @property
    def by_task(self) -> dict[str, float]:
        """Seconds of steps by task, over all workers."""
        tasks = dict.fromkeys(task for worker in self.workers for task in worker.by_task)
        return {task: sum(worker.by_task.get(task, 0.0) for worker in self.workers) for task in tasks}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        out = asdict(self)
        for worker, time in zip(out["workers"], self.workers, strict=True):
            worker["compute"] = time.compute
        return {**out, "workers": list(out["workers"]), "steps": self.steps, "by_task": self.by_task}

    def __str__(self) -> str:
        name = f"run {self.name!r}" if self.name else "the run"
        parts = [f"{name}: {self.state}, {self.seconds:.3f} {self.unit} since its launch", _stages(self)]
        if self.workers:
            parts += [_workers(self), _tasks(self), _server(self)]
        return "\n\n".join(parts)


def _stages(profile: Profile) -> str:
    return "\n".join(f"{at:>10.3f}  {name}" for name, at in profile.stages.items())


def _workers(profile: Profile) -> str:
    names = [worker.worker for worker in profile.workers]
    width = max(map(len, [*names, "worker"]))
    head = "".join(f"{column.replace('_', ' '):>10}" for column in COLUMNS)
    lines = [f"{'worker':<{width}}{'seconds':>10}{head}{'steps':>7}{'copied':>8}"]
    for worker in profile.workers:
        columns = "".join(f"{getattr(worker, column):>10.3f}" for column in COLUMNS)
        copied = f"{sum(worker.steps.values()):>7}{worker.copies:>8}"
        lines.append(f"{worker.worker:<{width}}{worker.seconds:>10.3f}{columns}{copied}")
    total = sum(worker.seconds for worker in profile.workers)
    shares = [sum(getattr(w, column) for w in profile.workers) / total if total else 0.0 for column in COLUMNS]
    copies = sum(worker.copies for worker in profile.workers)
    last = "".join(f"{share:>10.1%}" for share in shares) + f"{sum(profile.steps.values()):>7}{copies:>8}"
    return "\n".join([*lines, f"{'all':<{width}}{total:>10.3f}{last}"])


def _tasks(profile: Profile) -> str:
    lines = [f"{'task':<22}{'steps':>7}{'seconds':>10}{'a step':>10}"]
    steps = profile.steps
    for task, seconds in profile.by_task.items():
        lines.append(f"{task:<22}{steps[task]:>7}{seconds:>10.3f}{seconds / max(steps[task], 1):>10.4f}")
    return "\n".join(lines)


def _server(profile: Profile) -> str:
    parts = ", ".join(f"{what} {seconds:.3f}" for what, seconds in profile.server.items())
    return f"server at work {sum(profile.server.values()):.3f}: {parts}" if parts else "server: no time of its own"
