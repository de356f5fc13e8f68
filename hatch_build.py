"""Refuse to build where the symlink ``paramserver/workers`` was checked out as a file."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckLayout(BuildHookInterface):
    """The worker side lives in ``workers/`` and is imported as ``paramserver.workers``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a target is built."""
        if not (Path(self.root) / "paramserver" / "workers" / "__init__.py").is_file():
            raise RuntimeError(
                "paramserver/workers is not a folder: the checkout lost a symbolic link. On Windows turn on "
                "developer mode, run 'git config core.symlinks true' and 'git checkout -- paramserver/workers'."
            )
