"""Calls from a client to the supervisor on its scheduler: always a limit, always one of our errors."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from paramserver.errors import CallTimeout, NoScheduler, UnknownRun


def scheduler_of(client: Any) -> Any:
    """The client's way to the scheduler, if it still has one."""
    if client.scheduler is None or client.status in ("closing", "closed"):
        raise NoScheduler(f"the client is {client.status}: connect a new one")
    return client.scheduler


async def ask_supervisor(client: Any, do: str, *, timeout: float = 15.0, **arguments: Any) -> Any:
    """One call to the scheduler's handler, with a limit."""
    return await ask(scheduler_of(client), do, timeout=timeout, **arguments)


async def ask(scheduler: Any, do: str, *, timeout: float, **arguments: Any) -> Any:
    """The same over a connection to the scheduler."""
    try:
        reply = await asyncio.wait_for(scheduler.paramserver(do=do, **arguments), timeout)
    except asyncio.TimeoutError:
        raise CallTimeout(f"the scheduler did not answer {do!r} within {timeout:g} s") from None
    except (AttributeError, ValueError, KeyError) as error:
        if do in ("find", "list", "wait", "needs"):  # no plug-in yet: nothing was ever launched here
            raise UnknownRun("no runs on this scheduler: nothing has been launched there yet") from None
        raise NoScheduler(f"the scheduler does not know paramserver: {error!r}") from error
    except OSError as error:
        raise NoScheduler(f"the scheduler cannot be reached: {error}") from error
    if reply is None:  # what Dask answers to a call that it does not know
        raise UnknownRun("no runs on this scheduler: nothing has been launched there yet")
    if reply["status"] != "OK":
        raise pickle.loads(reply["exception"])
    return reply["result"]
