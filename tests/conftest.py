"""Fixtures for the tests that need a cluster; those that do not never start one."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter().format(record))


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "logs_errors: this test makes paramserver log errors on purpose")


ONE_CLUSTER = ("batch", "cluster", "faults", "docs")  #: rooms whose tests run one after the other: they measure time


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Two processes: one for the tests that need a cluster, and all others beside them."""
    for item in items:
        if item.path.parent.name in ONE_CLUSTER:
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(autouse=True)
def _no_errors_logged(request: Any) -> Iterator[None]:
    """The supervisor of a LocalCluster lives in this process: what it logs as an error is a bug."""
    handler = _Errors()
    logger = logging.getLogger("paramserver")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    if request.node.get_closest_marker("logs_errors") is None:
        assert not handler.records, "\n".join(handler.records)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two workers of one thread, shared by every test that leaves it as it was."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL) as made:
        yield made
    gc.collect()  # here: finalisers that run while pytest parses a module upset Python 3.11's parser


@pytest.fixture(scope="session")
def _client(cluster: Any) -> Iterator[Any]:
    import numpy as np
    from distributed import Client

    import paramserver as ps

    with Client(cluster, set_as_default=False) as made:
        X = np.arange(64.0)[:, None] % 7  # whatever is imported late is imported now
        ps.fit(ps.LeastSquares(), X, X[:, 0], name="warm-up", client=made)
        yield made


@pytest.fixture
def client(_client: Any) -> Iterator[Any]:
    """The shared cluster's client; no run outlives its test."""
    import paramserver as ps

    yield _client
    for run in ps.list(_client):
        if run["state"] in ("waiting", "live", "converged"):
            with contextlib.suppress(ps.errors.RunFailed):  # stopped before it had parameters
                ps.connect(run["name"], _client).stop()
        ps.forget(run["name"], _client)
