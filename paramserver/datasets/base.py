"""What the loaders return, and their optional packages."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    import dask.dataframe as dd

    from paramserver.workers.blocks import Encoded


class Dataset(NamedTuple):
    """Features and target with the same partitions: ``X, y = flights()``."""

    X: dd.DataFrame | Encoded  #: float64 columns with names; each partition one row-major block, or one `Table`
    y: dd.Series  #: float64


def need(module: str, extra: str) -> Any:
    """Import an optional package, or say which extra of paramserver installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidInput(
            f'{module} cannot be imported ({error}); to install it: pip install "paramserver[{extra}]"'
        ) from error
