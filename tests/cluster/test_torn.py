"""No reader sees a mixture of versions, at d = 1e6 with 20 Hz readers in two other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from distributed import Client

import paramserver as ps
from paramserver.consensus import Absorbed, Consensus, Pull, Setup
from paramserver.messages import Fields
from paramserver.workers.problems import Start

P = 1_000_000
SECONDS = 5.0

READER = """
import json, sys, time
import numpy as np, paramserver as ps
from distributed import Client
with Client(sys.argv[1], set_as_default=False) as client:
    run, seen, torn, end = ps.connect("torn", client=client), [], 0, time.monotonic() + float(sys.argv[2])
    values = {}
    while time.monotonic() < end:
        began = time.monotonic()
        params = run.params()
        torn += int(np.ptp(params.z) != 0.0)
        torn += int(values.setdefault(params.version, params.z[0]) != params.z[0])
        seen.append(params.version.n)
        time.sleep(max(0.05 - (time.monotonic() - began), 0.0))
    print(json.dumps([len(seen), len(set(seen)), torn]))
"""


class Level(ps.Problem):
    """A chunk is one number; every z is that many times the same number."""

    def prepare(self, *parts: Any) -> Any:
        return _Number(float(parts[0]))

    def survey(self, data: Any) -> Any:
        return np.array([1.0, P])

    def start(self, survey: Any) -> Start:
        return Start(np.zeros(P), 1.0)


class _Number:
    rows = 1

    def __init__(self, value: float) -> None:
        self.value, self.memo = value, dict[str, Any]()


@dataclass
class Total:
    sum: np.ndarray
    count: float


@dataclass(frozen=True)
class Averaging(Consensus):
    """z = the mean of the last x_i; a rule of the user's own, in a few lines."""

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {"x": ("p",)}

    def init(self, setup: Setup) -> Total:
        return Total(np.zeros(setup.p), 0.0)

    def step(self, problem: Any, data: Any, pull: Pull) -> Fields:
        return {"x": 0.5 * pull.z + data.value * (1 + pull.version.n % 3)}

    def absorb(self, state: Total, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        state.sum += new["x"] if old is None else new["x"] - old["x"]  # in place: private, never published
        return Absorbed(replace(state, count=state.count + (old is None)), new)

    def consensus(self, state: Total, penalty: Any, z: Any) -> Any:
        return state.sum / state.count, state


def test_no_torn_reads(client: Client) -> None:
    chunks = [client.submit(float, k, key=f"level-{k}") for k in range(4)]
    run = ps.launch(Level(), chunks, consensus=Averaging(), name="torn", client=client, max_seconds=60.0)
    command = [sys.executable, "-c", READER, client.scheduler.address, str(SECONDS)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(reader.communicate(timeout=60)[0]) for reader in readers]
    versions = run.status().version.n
    run.stop()
    for reads, distinct, torn in answers:
        assert torn == 0
        assert reads >= 5
        assert distinct >= 5
    assert versions >= 20
