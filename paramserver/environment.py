"""Before a launch: the same paramserver on client, scheduler and workers, and the plug-in in its place."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from paramserver._version import __version__
from paramserver.errors import CallTimeout, EnvironmentMismatch, NoScheduler
from paramserver.supervisor import Supervisor
from paramserver.transport import check_tls, check_transport, remove_keys_at_exit

CHECK_LIMIT = 30.0  #: seconds for every process to say what it imports


async def prepare(client: Any, require_tls: bool = False) -> int:
    """The same paramserver everywhere, reached as it should be, and its plug-in on the scheduler; how many threads."""
    if require_tls:
        check_tls([client.scheduler.address])  # before anything is sent
    remove_keys_at_exit(client.cluster)
    try:
        # Not client.scheduler_info(): inside the loop it answers from a cache that knows no workers.
        threads = await asyncio.wait_for(client.scheduler.ncores(workers=None), CHECK_LIMIT)
        await asyncio.wait_for(_check_environment(client, list(threads)), CHECK_LIMIT)
        await asyncio.wait_for(check_transport(client, threads, require_tls), CHECK_LIMIT)
        await asyncio.wait_for(client.register_plugin(Supervisor()), CHECK_LIMIT)
    except asyncio.TimeoutError:
        text = f"no answer within {CHECK_LIMIT:g} s from the scheduler or a worker, asked which paramserver it imports"
        raise CallTimeout(text) from None
    except OSError as error:
        raise NoScheduler(f"the scheduler cannot be reached: {error}") from error
    return sum(threads.values())


async def _check_environment(client: Any, addresses: list[str]) -> None:
    """Ask each process once what it imports."""
    probe = BySource(_version)
    known = client.__dict__.setdefault("_paramserver_checked", set())
    scheduler = client.scheduler.address
    known.intersection_update([scheduler, *addresses])  # who comes to the address of one that left may be another
    workers = [address for address in addresses if address not in known]
    found: dict[str, Any] = {}
    if scheduler not in known:
        try:
            found[f"the scheduler at {scheduler}"] = await client.run_on_scheduler(probe)
        except (ImportError, AttributeError) as error:
            found[f"the scheduler at {scheduler}"] = error
    if workers:
        answers = await client.run(probe, workers=workers, on_error="return")
        found.update({f"the worker at {address}": answer for address, answer in answers.items()})
    for where, version in found.items():
        if isinstance(version, OSError):
            continue  # it left just now
        if version != __version__:
            has = (
                f"imports paramserver {version}"
                if isinstance(version, str) and version
                else "cannot import paramserver"
            )
            raise EnvironmentMismatch(f"{where} {has}, this process has {__version__}: install the same one there")
    known.update([scheduler, *workers])


def _version() -> str:
    import importlib
    import importlib.util

    found = importlib.util.find_spec("paramserver") and importlib.import_module("paramserver._version")
    return str(getattr(found, "__version__", ""))


class BySource:
    """A function that travels as its text and is compiled where it arrives: hosts may lack paramserver, or have
    another Python. It imports all that it needs itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.source = "from __future__ import annotations\n" + inspect.getsource(function)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("exec(source, globals()) or globals()[name]", {"source": self.source, "name": self.name})
