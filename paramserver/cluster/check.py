"""`check`: a look at a cluster before a run."""

from __future__ import annotations

from typing import Any

from paramserver.cluster.findings import Findings, judge
from paramserver.cluster.probe import collect
from paramserver.launching import client_of


def check(client: Any = None) -> Findings:
    """Say what about a cluster would hurt a run, and the line that mends it; changes nothing.

    Every process is asked once, all at the same time and within 30 seconds: versions, batch jobs and
    their early warnings, lifetimes, TLS and open HTTP servers, threads, Dask's own settings. A worker
    that does not answer is one of the findings.

    Parameters
    ----------
    client : distributed.Client
        The current one if not given. With the one that was made of the cluster object
        (``Client(SLURMCluster(...))``), the settings of that object are looked at too.

    Returns
    -------
    Findings
        A list of (level, what, do), errors first, then warnings and notes; ``print`` makes a table of
        it, ``.errors`` are those that a run would fail by. With an asynchronous client: to be awaited.

    Raises
    ------
    NoScheduler, CallTimeout
        The scheduler cannot be reached or does not answer.
    """
    client = client_of(client)
    found: Findings = client.sync(_check, client)
    return found


async def _check(client: Any) -> Findings:
    return judge(await collect(client))
