"""Dask clusters that suit runs: `settings` for dask-jobqueue's, `Adaptive` for those that scale by demand;
`SLURMRunner`, inside one allocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paramserver.cluster.adaptive import Adaptive
from paramserver.cluster.keywords import settings

if TYPE_CHECKING:
    from paramserver.cluster.allocation import SLURMRunner

__all__ = ["Adaptive", "SLURMRunner", "settings"]


def __getattr__(name: str) -> Any:
    """What needs dask-jobqueue is imported when it is asked for."""
    if name == "SLURMRunner":
        from paramserver.cluster.allocation import SLURMRunner

        return SLURMRunner
    raise AttributeError(f"module 'paramserver.cluster' has no attribute {name!r}")
