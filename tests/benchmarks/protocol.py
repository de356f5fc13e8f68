"""The protocol's cost on a warm 2-worker LocalCluster: launch, one exchange, readers.

python tests/benchmarks/protocol.py [launch exchange readers]
"""

from __future__ import annotations

import sys
import threading
import time

import cloudpickle
from common import Endless, Still, Uncertified, local, logistic_data, median, on_cluster, until
from distributed import Client, get_worker

import paramserver as ps
from paramserver.messages import Assignment, Push, Request
from paramserver.server.actor import Server
from paramserver.server.handle import Handle
from paramserver.server.spec import RunSpec
from paramserver.workers.runner import Runner
from paramserver.workers.tasks import answer


def launch(rounds: int = 20) -> None:
    """Launch to first push applied, n = 1e5, d = 50, 16 chunks already on the cluster."""
    X, y = logistic_data()
    with local() as client:
        Xd, yd = on_cluster(client, X, y, 16)
        ps.fit(ps.Logistic(), Xd, yd, penalty=ps.L2(1.0))  # warm: imports, plug-in
        first, total = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            run = ps.launch(ps.Logistic(), Xd, yd, penalty=ps.L2(1.0), tol=1e-8)
            until(lambda run=run: run.status().pushes > 0)
            first.append(time.perf_counter() - began)
            run.result()
            total.append(time.perf_counter() - began)
            time.sleep(0.3)
    print(f"launch to first push applied: median {median(first):.3f} s, max {max(first):.3f} s ({rounds} launches)")
    print(f"launch to certified 1e-8:     median {median(total):.3f} s")


class Bare:
    """An actor that does nothing."""

    async def ping(self) -> None:
        """Answer."""


def _exchanges(handle: tuple, bare: object, rule: Endless, d: int, rounds: int, calls: int) -> list:
    """Median seconds of (a bare call, an exchange), round by round; the steps between are real, and not timed."""
    runner, problem = Runner(get_worker(), Handle(*handle), 99), Uncertified()
    data = problem.prepare(*logistic_data(4 * d, d))
    push, have, out = None, None, []

    def exchange() -> float:
        nonlocal push, have
        held, version = (frozenset(range(16)) if push is None else None), have and have[0]
        began = time.perf_counter()
        reply = runner.call("exchange", Request("bench", 1, runner.name, push, version, held))
        seconds = time.perf_counter() - began
        assert isinstance(reply, Assignment), reply
        if reply.z is not None:
            have = reply.version, reply.z
        payload = answer(rule, problem, data, reply, have and have[1])
        base = None if reply.whole else reply.seq - 1
        push = Push(reply.chunk, reply.seq, reply.task, reply.version, payload, base, 1e-3)
        return seconds

    def call() -> float:
        began = time.perf_counter()
        bare.ping().result()
        return time.perf_counter() - began

    for _ in range(100):
        exchange()
        call()
    for _ in range(rounds):
        out.append((median([call() for _ in range(calls)]), median([exchange() for _ in range(calls)])))
    return out


def exchange(d: int = 100, rounds: int = 15, calls: int = 200) -> None:
    """One exchange against a bare actor call, both from a task on the other worker; then from one beside the server."""
    with local() as client:
        here, there = list(client.scheduler_info()["workers"])
        bare = client.submit(Bare, actor=True, workers=[here]).result()
        for what, rule in (("with the consensus step", Endless()), ("protocol alone", Still())):
            spec = RunSpec(Uncertified(), ps.L2(1.0), rule, 16, run_id="bench")
            blob = cloudpickle.dumps((spec, dict.fromkeys(range(16), ("k",))))
            key = f"bench-server-{type(rule).__name__}"
            server = client.submit(Server, blob, "bench", 1, actor=True, workers=[here], key=key)
            server.result()
            handle = (key, here, "bench", 1)
            for where, place in (("", there), (", beside the server", here)):
                sent = (handle, bare, rule, d, rounds, calls)
                pairs = client.submit(_exchanges, *sent, workers=[place], pure=False).result()
                ratios = sorted(b / a for a, b in pairs)
                print(
                    f"one exchange at d = {d}, {what}{where}: median {median([b for _, b in pairs]) * 1e3:.2f} ms, "
                    f"bare actor call {median([a for a, _ in pairs]) * 1e3:.2f} ms, ratio {median(ratios):.2f} "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} paired rounds of {calls})"
                )


def readers(rounds: int = 12, seconds: float = 2.0, rate: float = 20.0) -> None:
    """Exchanges/s with and without a status reader at 20 Hz in a thread of another client, in turn."""
    X, y = logistic_data(20_000, 100)
    with local() as client, Client(client.scheduler.address, set_as_default=False) as other:
        Xd, yd = on_cluster(client, X, y, 16)
        run = ps.launch(Uncertified(), Xd, yd, penalty=ps.L2(1.0), consensus=Endless(), name="readers")
        until(lambda: run.status().version.n > 50)
        seen = ps.connect("readers", client=other)
        ratios, rates = [], []
        for _ in range(rounds):
            without = _rate(run, seconds)
            stop = threading.Event()
            reader = threading.Thread(target=_read, args=(seen, stop, rate))
            reader.start()
            with_reader = _rate(run, seconds)
            stop.set()
            reader.join()
            ratios.append(with_reader / without)
            rates.append(without)
        run.stop()
    print(
        f"exchanges/s with a status reader at {rate:.0f} Hz over without: median {median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {rounds} paired rounds; {median(rates):.0f}/s without)"
    )


def _rate(run: ps.Run, seconds: float) -> float:
    a = run.status()
    time.sleep(seconds)
    b = run.status()
    return (b.pushes - a.pushes) / (b.seconds - a.seconds)


def _read(run: ps.Run, stop: threading.Event, rate: float) -> None:
    while not stop.wait(1 / rate):
        run.status()


if __name__ == "__main__":
    for name in sys.argv[1:] or ("launch", "exchange", "readers"):
        globals()[name]()
