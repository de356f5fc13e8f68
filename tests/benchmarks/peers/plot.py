"""Gap against time, one panel a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(file: Path, rows: dict[Any, Any]) -> None:
    """later."""
