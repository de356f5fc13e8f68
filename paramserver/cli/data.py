"""The data of ``paramserver fit``: the flights, or files and the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from paramserver.errors import InvalidInput

BESIDE = ("sample_weight", "offset", "exposure")  #: keywords that name a column beside the target
COLUMNS = ("y", *BESIDE)


def load(data: Sequence[str], given: Mapping[str, Any], chunks: int, expand: bool) -> tuple[dict[str, Any], str]:
    """`launch`'s keywords for these data, and a name for the run; ``given`` names the columns."""
    columns = {what: given[what] for what in BESIDE if what in given}
    if list(data) == ["flights"]:
        return _flights(given, columns, chunks, expand), "flights"
    target, what = given.get("y"), " ".join(data)
    if target is None:
        raise InvalidInput(f"say which column of {what} to predict: --target COL, or y: in the job file")
    if target in columns.values():
        raise InvalidInput(f"{target!r} is the target: it cannot be a weight, offset or exposure as well")
    from paramserver.datasets.files import split

    X, (y, *beside) = split(data, [target, *columns.values()], expand=expand)
    stem = "".join(c if c.isalnum() or c in "-_" else "" for c in PurePath(data[0]).stem)
    return {"X": X, "y": y, **dict(zip(columns, beside, strict=True))}, stem or "fit"


def _flights(given: Mapping[str, Any], columns: Mapping[str, Any], chunks: int, expand: bool) -> dict[str, Any]:
    from paramserver import datasets

    if "y" in given:
        raise InvalidInput("flights have their own target, arr_delay > 15: leave --target out")
    if columns:
        raise InvalidInput(f"flights have no such column: leave --{min(columns).replace('_', '-')} out")
    X, y = datasets.flights(chunks=chunks, expand=expand)
    return {"X": X, "y": y}
