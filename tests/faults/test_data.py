"""Chunks whose workers are gone: computed again, or said to be lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster.helpers import Processes
from dask import delayed

import paramserver as ps
from paramserver import errors

from .helpers import CHUNKS, PENALTY, X, Y, check


def deadly(path: str, k: int, deaths: int) -> tuple[np.ndarray, np.ndarray]:
    """A chunk whose first so many workers die while they read it."""
    if k == 0 and len(list(Path(path).iterdir())) < deaths:
        (Path(path) / str(os.getpid())).touch()
        os._exit(1)
    return X[k::CHUNKS], Y[k::CHUNKS]


def test_deaths_of_workers_are_not_held_against_what_they_computed(own: Processes, client: Any, tmp_path: Any) -> None:
    """Dask gives a task up after four; a run computes it again, twice."""
    names = [f"w{k}" for k in range(7)]
    own.add(*names)
    own.wait_for(client, *names)
    parts = [delayed(deadly)(str(tmp_path), k, 5) for k in range(CHUNKS)]
    check(ps.launch(ps.Logistic(), parts, penalty=PENALTY, tol=1e-8, client=client))
    assert len(list(tmp_path.iterdir())) == 5


def test_a_chunk_that_kills_every_worker_ends_the_run(own: Processes, client: Any, tmp_path: Any) -> None:
    names = [f"w{k}" for k in range(14)]
    own.add(*names)
    own.wait_for(client, *names)
    parts = [delayed(deadly)(str(tmp_path), k, 99) for k in range(CHUNKS)]
    run = ps.launch(ps.Logistic(), parts, penalty=PENALTY, tol=1e-8, client=client)
    with pytest.raises(errors.ChunkLost, match=r"chunk 0 cannot be computed.*died while running it"):
        run.result(timeout=90)
