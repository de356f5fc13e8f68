"""`SLURMRunner`: a whole Dask cluster inside one Slurm allocation, in the clear or over TLS."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from dask_jobqueue import slurm
from distributed.core import rpc
from distributed.security import Security

from paramserver.cluster.credentials import Credentials, write
from paramserver.errors import CallTimeout

HTTP = {"dashboard_address": "127.0.0.1:0"}  # it lets in everyone, whatever the rest is protected by
STARTS = 120.0  #: seconds from a task's start to the scheduler's


class SLURMRunner(slurm.SLURMRunner):  # type: ignore[misc]
    """dask-jobqueue's own, with TLS, and with an end to every wait.

    Of the tasks of ``srun python script.py``, three at least, the first becomes the scheduler, the second goes on with
    the script, and each of the others becomes a worker with as many threads as ``--cpus-per-task`` gives it::

        with SLURMRunner(security=True) as runner, Client(runner) as client:
            result = paramserver.fit(paramserver.Logistic(), X, y, client=client)

    Parameters
    ----------
    *args, **kwargs
        As of `dask_jobqueue.slurm.SLURMRunner`. ``scheduler_file`` must be in a folder that all nodes see: by
        default it is in the working directory. The HTTP of scheduler and workers is on loopback, unless
        ``scheduler_options`` and ``worker_options`` have another ``dashboard_address``.
    security : bool or distributed.Security
        True: the scheduler makes a certificate for this allocation alone. It lies beside the scheduler file, for its
        owner only to read, until the scheduler ends. A `Security` of files that every node sees is used as it is.
    """

    def __init__(self, *args: Any, security: bool | Security = False, **kwargs: Any) -> None:
        self.security: Any = security or None
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
        kwargs["scheduler_options"] = {**HTTP, **(kwargs.get("scheduler_options") or {})}
        kwargs["worker_options"] = {"nthreads": threads, **HTTP, **(kwargs.get("worker_options") or {})}
        super().__init__(*args, **kwargs)

    @property
    def _certificate(self) -> str:
        """The file of key and certificate, which is its own authority."""
        return str(Path(self.scheduler_file).with_suffix(".pem"))

    async def start_scheduler(self) -> None:
        """Called in the first task, until its end."""
        made = self.security is True
        if made:
            _write_certificate(self._certificate)
        try:
            await super().start_scheduler()
        finally:
            if made:
                Path(self._certificate).unlink(missing_ok=True)

    async def before_scheduler_start(self) -> None:
        """Called in the first task."""
        if self._secure():
            self.scheduler_options.update(protocol="tls", security=self.security)

    async def before_worker_start(self) -> None:
        """Called in all tasks but two."""
        await self.get_scheduler_address()
        if self._secure():
            self.worker_options["security"] = self.security

    async def before_client_start(self) -> None:
        """Called in the second task, when dask-jobqueue has made a connection that knows of no certificate."""
        if self._secure():
            args = self.security.get_connection_args("client")
            self.scheduler_comm = rpc(self.scheduler_address, connection_args=args)

    async def get_scheduler_address(self) -> str:
        """From the scheduler file, once it is there."""
        try:
            return str(await asyncio.wait_for(super().get_scheduler_address(), STARTS))
        except asyncio.TimeoutError:
            raise CallTimeout(
                f"no scheduler file {self.scheduler_file} within {STARTS:g} s: the first task did not start, or its "
                "working directory is not on a file system that all nodes share (scheduler_file= names another)"
            ) from None

    def _secure(self) -> bool:
        if self.security is True:
            self.security = Credentials(*[self._certificate] * 3).security()
        return self.security is not None


def _write_certificate(path: str) -> None:
    """A new key and the certificate it vouches for itself with."""
    new = Security.temporary()
    write(path, new.tls_scheduler_key + new.tls_scheduler_cert)
