"""A host that lacks paramserver, or has another one, is named before anything is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paramserver as ps
from cluster.helpers import processes
from paramserver.errors import EnvironmentMismatch

X = np.arange(64.0)[:, None] % 7

BLOCK = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "paramserver":
            raise ModuleNotFoundError("No module named 'paramserver'", name="paramserver")
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def environ(tmp_path: Any, request: Any) -> dict[str, str]:
    """The environment of a host with "no" paramserver, or with an "old" one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if request.param == "no":
        (folder / "sitecustomize.py").write_text(BLOCK)
    else:
        package = folder / "paramserver"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "_version.py").write_text('__version__ = "0.0.1.dev7"\n')
    return {"PYTHONPATH": str(folder)}


def check(client: Any, *says: str) -> None:
    with pytest.raises(EnvironmentMismatch) as caught:
        ps.launch(ps.LeastSquares(), X, X[:, 0], client=client)
    for text in (*says, ps.__version__):
        assert text in str(caught.value)


@pytest.mark.parametrize("environ", ["no", "old"], indirect=True)
def test_a_worker_that_differs_is_named(tmp_path: Any, environ: dict[str, str]) -> None:
    what = "0.0.1.dev7" if (tmp_path / "elsewhere" / "paramserver").exists() else "cannot import"
    with processes(tmp_path) as own, own.client(set_as_default=False) as client:
        own.add("good")
        own.wait_for(client, "good")
        assert ps.fit(ps.LeastSquares(), X, X[:, 0], client=client).converged
        own.add("odd", env=environ)  # joins after the first launch: checked all the same
        address = own.wait_for(client, "good", "odd")["odd"]
        check(client, address, what)


@pytest.mark.parametrize("environ", ["no", "old"], indirect=True)
def test_a_scheduler_that_differs_is_named(tmp_path: Any, environ: dict[str, str]) -> None:
    what = "0.0.1.dev7" if (tmp_path / "elsewhere" / "paramserver").exists() else "cannot import"
    with processes(tmp_path, env=environ) as own, own.client(set_as_default=False) as client:
        check(client, client.scheduler.address, "scheduler", what)
