"""Workers forked from a process that has imported what they need: there in a fraction of the time."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["distributed.cli.dask_worker", "paramserver.server.actor", "paramserver.workers.runner", "cluster.helpers"]
)


class Forked:
    """A process, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, args: tuple[str, ...], folder: Path, log: Path, env: dict[str, str]) -> None:
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
        try:
            forkserver.ensure_running()  # BLAS reads the environment when it is imported
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self._process = FORKS.Process(target=work, args=(args, str(folder), str(log), env), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"process {self.pid} still runs after {timeout} s"
        return self._process.exitcode


def work(args: tuple[str, ...], folder: str, log: str, env: dict[str, str]) -> None:
    """``python -m distributed.cli.dask_worker``, in the child."""
    from distributed.cli.dask_worker import main

    with open(log, "wb", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(env)
    os.chdir(folder)
    sys.path.insert(0, folder)  # -m puts the working directory first
    sys.argv = ["dask_worker", *args]
    main()
