"""Where a run's server and its runners are to be."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Client

from paramserver.supervisor.record import RunRecord

SHARED_UP_TO = 4  #: workers up to which the server's worker gets runners too
ASK_LIMIT = 2.0  #: seconds for the workers to say how long they live


class Places:
    """The scheduler's workers, as homes."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.leaving: set[str] = set()  #: addresses of workers that are about to end
        self._mortal: dict[str, bool | None] = {}  #: address → whether it has a lifetime; None: it did not say

    def here(self) -> list[str]:
        """Workers that stay, for all that is known."""
        there = ((address, ws.status.name) for address, ws in self.scheduler.workers.items())
        return [address for address, status in there if status in ("running", "paused") and address not in self.leaving]

    def ending(self) -> bool:
        """Whether every worker that there is is about to end."""
        return bool(self.leaving) and self.leaving.issuperset(self.scheduler.workers)

    def reserved(self) -> list[str]:
        """Workers that are there for servers."""
        return [address for address, ws in self.scheduler.workers.items() if "paramserver" in ws.resources]

    def runners(self, record: RunRecord) -> list[str]:
        """Workers that should run the run's steps."""
        assert record.handle is not None
        everyone = self.here()
        apart = set(self.reserved())
        if len(everyone) > SHARED_UP_TO:
            apart.add(record.handle.address)
        return [address for address in everyone if address not in apart] or everyone

    async def server(self, record: RunRecord, client: Client) -> dict[str, Any]:
        """Options of `Client.submit`: a reserved worker, else one that lives long, else whichever there is."""
        here = [address for address in self.here() if address not in record.avoid]
        if record.prefer in here:
            return {"workers": [record.prefer], "allow_other_workers": True}
        reserved = [address for address in self.reserved() if address in here]
        if reserved:
            return {"resources": {"paramserver": 1}, "workers": reserved}
        await self._ask(client, here)
        steady = [address for address in here if self._mortal.get(address) is False] or here
        if not steady or len(steady) == len(self.scheduler.workers):
            return {}
        return {"workers": steady, "allow_other_workers": True}

    async def _ask(self, client: Client, addresses: list[str]) -> None:
        """Who has a lifetime; whoever does not answer soon is asked again another time, and avoided meanwhile."""
        there = self.scheduler.workers
        self._mortal = {address: mortal for address, mortal in self._mortal.items() if address in there}
        unknown = [address for address in addresses if self._mortal.get(address) is None]
        if not unknown:
            return
        asked = {address: asyncio.ensure_future(_lifetime(client, address)) for address in unknown}
        await asyncio.wait(asked.values())
        self._mortal.update({address: future.result() for address, future in asked.items()})

    def fragile(self, record: RunRecord) -> str:
        """What threatens the server where it is, in words."""
        assert record.handle is not None
        if self._mortal.get(record.handle.address):
            return (
                f"the server's worker {record.handle.address} was started with a lifetime: start one without, or one "
                "with --resources paramserver=1, and the next server goes there"
            )
        return ""


async def _lifetime(client: Client, address: str) -> bool | None:
    try:
        answer = await asyncio.wait_for(client.run(_has_lifetime, workers=[address], on_error="return"), ASK_LIMIT)
    except (OSError, asyncio.TimeoutError):
        return None
    said = answer.get(address)
    return said if isinstance(said, bool) else None


def _has_lifetime(dask_worker: Any) -> bool:
    return getattr(dask_worker, "lifetime", None) is not None
