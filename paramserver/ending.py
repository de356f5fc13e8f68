"""How a run ended, as it travels from its server to whoever asks."""

from __future__ import annotations

from typing import NamedTuple

from paramserver.profile import Profile
from paramserver.views import Result, Status


class Ending(NamedTuple):
    """What stays of a run; status and profile are of its server, and None where it was lost or never was."""

    value: Result | Exception
    status: Status | None = None
    profile: Profile | None = None

    def result(self) -> Result:
        """The Result, or its error raised."""
        if isinstance(self.value, Exception):
            raise self.value
        return self.value
