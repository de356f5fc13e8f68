"""How a run's messages travel: over TLS, or for everyone on the network to read and to forge."""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import logging
from collections.abc import Iterable
from typing import Any

from distributed.comm import get_address_host

from paramserver.errors import InvalidInput

logger = logging.getLogger("paramserver")

TLS = "tls://"


async def check_transport(client: Any, workers: Iterable[str], require_tls: bool) -> None:
    """Refuse what is not TLS where that is required; else say once what travels in the clear.

    Raises
    ------
    InvalidInput
        The client, the scheduler or a worker is reached by, or listens at, another address than a tls:// one.
    """
    addresses = [client.scheduler.address, *workers]
    if require_tls:
        check_tls([*addresses, *await client.run_on_scheduler(_listens)])
    elif not getattr(client, "_paramserver_warned", False):
        client._paramserver_warned = _warn(addresses)


def check_tls(addresses: Iterable[str]) -> None:
    """Raise `InvalidInput` for the first address that is not a tls:// one."""
    for address in addresses:
        if not address.startswith(TLS):
            raise InvalidInput(
                f"require_tls=True, but {address}, which is not {TLS}, is an address of the cluster: start scheduler "
                "and workers with --tls-ca-file, --tls-cert and --tls-key (a LocalCluster with security=Security(...)) "
                'and no other protocol, and connect with Client("tls://...", security=Security(...))'
            )


def remove_keys_at_exit(cluster: Any) -> None:
    """See to it that no key of a cluster of batch jobs (``SLURMCluster(security=True)``) outlives this process.

    dask-jobqueue writes them to a shared directory for its jobs, and leaves their removal to the garbage collector,
    which at the end of a process does not come.
    """
    for part in ("ca_file", "cert", "key"):
        file = getattr(cluster, f"_job_{part}", None)
        if file is not None and not hasattr(file, "_paramserver_removes"):
            file._paramserver_removes = True
            atexit.register(_remove, file)


def _remove(file: Any) -> None:
    with contextlib.suppress(OSError):
        file.close()


def _listens(dask_scheduler: Any) -> list[str]:
    return [str(listener.contact_address) for listener in dask_scheduler.listeners]


def _warn(addresses: Iterable[str]) -> bool:
    reached = next((address for address in addresses if exposed(address)), None)
    if reached is not None:
        logger.warning(
            "paramserver: data and parameters travel unencrypted, and whoever reaches %s can read them and run code "
            "there: start scheduler and workers with --tls-ca-file, --tls-cert and --tls-key (for paramserver fit's "
            "own jobs: --tls), and launch with require_tls=True to be sure of it",
            reached,
        )
    return reached is not None


def exposed(address: str) -> bool:
    """Plain TCP, or plain web sockets, on an address that other machines reach."""
    if not address.startswith(("tcp://", "ws://")):
        return False
    host: str = get_address_host(address)
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host != "localhost"
