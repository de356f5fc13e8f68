"""A scheduler a module, workers a test: processes that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster.helpers import Processes, processes, until


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: Any) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("own")) as own:
        yield own


@pytest.fixture
def own(scheduler: Processes) -> Iterator[Processes]:
    """The module's scheduler; each test has its own workers."""
    yield scheduler
    scheduler.stop_workers()


@pytest.fixture
def client(own: Processes) -> Iterator[Any]:
    with own.client(set_as_default=False) as made:
        until(lambda: not own.by_name(made))  # the last test's workers are gone
        yield made
