"""Dask clusters that suit runs: `settings` for dask-jobqueue's, `Adaptive` for those that scale by demand."""

from paramserver.cluster.adaptive import Adaptive
from paramserver.cluster.keywords import settings

__all__ = ["Adaptive", "settings"]
