"""What Dask clusters need to know of runs: `Adaptive`, for clusters whose workers come and go by demand."""

from paramserver.cluster.adaptive import Adaptive

__all__ = ["Adaptive"]
