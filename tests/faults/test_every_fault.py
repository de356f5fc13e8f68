"""Each fault, in mid-run: the same optimum, certified."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from cluster.helpers import Processes, Slow

from .faults import Fault, Scene, inject
from .helpers import check, launch, under_way


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_the_run_ends_where_it_should(own: Processes, client: Any, fault: Fault) -> None:
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    run = launch(client, Slow(delay=0.12))
    under_way(run, 24)
    numbers = itertools.count()
    inject(fault, Scene(own, client, run, lambda: f"new{next(numbers)}"))
    check(run)
