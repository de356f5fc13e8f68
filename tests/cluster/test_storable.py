"""A checkpoint that could not be written is refused at launch, or said with the field that is in its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.consensus.newton import NewtonState
from paramserver.examples.hessian_average import HessianAverage

from .helpers import make_data

X, Y = make_data(600, 4)
PLAIN = "a checkpoint holds numpy arrays, numbers, text, None, and lists and dicts of them"


@dataclass
class Seen(NewtonState):
    seen: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Remembering(ps.AggregatedNewton):
    """Its state has a set."""

    def init(self, setup: Any) -> Seen:
        return Seen(**vars(super().init(setup)))


@dataclass(frozen=True)
class Late(Remembering):
    """What its state is made of is known only where the data are."""

    def init(self, setup: Any) -> Seen:
        assert setup.p == 5
        return super().init(setup)


@dataclass(frozen=True, kw_only=True)
class Called(ps.AggregatedNewton):
    """A setting is of type function."""

    schedule: Callable[[int], float] = lambda n: 1.0 / n


@dataclass(frozen=True)
class Odd(HessianAverage):
    """Its slots have what no checkpoint can hold."""

    def absorb(self, state: Any, chunk: int, old: Any, new: Any) -> Any:
        out = super().absorb(state, chunk, old, new)
        return out._replace(slot={**out.slot, "who": {1, 2}})


@dataclass(frozen=True)
class Weighted(ps.L1):
    """A penalty with an object for a setting."""

    by: Any = field(default_factory=object)


@pytest.mark.parametrize(
    ("plugins", "says"),
    [
        ({"consensus": Remembering()}, f"Remembering's state: its seen is of type set: {PLAIN}"),
        ({"consensus": Called()}, f"Called's setting schedule is of type function: {PLAIN}"),
        ({"penalty": Weighted()}, f"Weighted's setting by is of type object: {PLAIN}"),
    ],
    ids=["state", "setting", "penalty"],
)
def test_it_is_refused_before_anything_is_sent(client: Any, tmp_path: Path, plugins: Any, says: str) -> None:
    with pytest.raises(ps.errors.InvalidInput, match=says):
        ps.launch(ps.Logistic(), X, Y, checkpoint=tmp_path / "run", name="refused", client=client, **plugins)
    assert "refused" not in [run["name"] for run in ps.list(client)]
    assert ps.fit(ps.Logistic(), X, Y, client=client, **plugins).converged  # without checkpoints it may run


def test_what_only_the_server_can_tell_ends_the_run_at_once(client: Any, tmp_path: Path) -> None:
    run = ps.launch(ps.Logistic(), X, Y, consensus=Late(), checkpoint=tmp_path / "run", client=client)
    with pytest.raises(ps.errors.RunFailed, match="Late's state: its seen is of type set"):
        run.result(30)


def test_a_slot_that_cannot_be_stored_is_named(client: Any, tmp_path: Path) -> None:
    options = {"consensus": Odd(), "checkpoint": tmp_path / "run", "penalty": ps.L2(1.0)}
    result = ps.fit(ps.Logistic(), X, Y, client=client, **options)
    assert result.converged
    assert any(
        f"no checkpoint was written: chunk 0's slot: its who is of type set: {PLAIN}" in note for note in result.notes
    )


def test_a_frozen_state_is_taken_up_again(client: Any, tmp_path: Path) -> None:
    options = {"consensus": HessianAverage(batch=50), "penalty": ps.L2(1.0), "client": client, "chunks": 6}
    first = ps.fit(ps.Logistic(), X, Y, checkpoint=tmp_path / "run", tol=1e-3, **options)
    again = ps.resume(tmp_path / "run", ps.Logistic(), X, Y, tol=1e-10, **options).result(60)
    assert again.converged
    assert again.objective <= first.objective * (1 + 1e-9)
    np.testing.assert_allclose(again.z, ps.fit(ps.Logistic(), X, Y, tol=1e-10, **options).z, atol=1e-3)
