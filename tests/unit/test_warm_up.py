"""The first steps on a sample of the rows: when, of which rows, and that nothing of it is left at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paramserver as ps
from paramserver.consensus import warm_up
from paramserver.consensus.base import Setup
from paramserver.messages import Task
from paramserver.penalties import Bound
from paramserver.server.intake import Intake
from paramserver.simulator import Network, simulate
from paramserver.workers.problems.base import Start

N, D = 16_000, 8
RNG = np.random.default_rng(3)
X = RNG.standard_normal((N, D))
M = X @ RNG.standard_normal(D) - 0.5
Y = (RNG.random(N) < 1 / (1 + np.exp(-M))).astype(float)
COUNTS = RNG.poisson(np.exp(0.3 * M)).astype(float)
LAYOUTS = {"mixed": np.arange(N), "sorted": np.argsort(Y, kind="stable")}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks this small are sampled too."""
    monkeypatch.setattr(warm_up, "LARGE", 0.0)
    monkeypatch.setattr(warm_up, "DENSEST", 8)
    monkeypatch.setattr(warm_up, "PER_CHUNK", 16)


def setup(rows: float, p: int, chunks: int = 16, quadratic: bool = False, away: float = 0.0) -> Setup:
    start = np.zeros(p)
    bound = Bound(ps.NoPenalty(), np.ones(p, bool))
    return Setup(p, chunks, int(rows), Start(start, 1.0), quadratic, bound, start + away)


@pytest.mark.parametrize(
    ("given", "every"),
    [
        (setup(1e6, 101), 64),
        (setup(327_346, 165), 1),  # one row in 13 would do: no saving
        (setup(1e6, 301), 22),
        (setup(1e6, 101, quadratic=True), 1),  # one Hessian is all it takes
        (setup(1e6, 101, away=0.1), 1),  # a start of the user's own may be near already
        (setup(1e5, 101), 1),  # the sample would be most of it
        (setup(1e6, 4), 1),  # a Hessian costs next to nothing
    ],
)
def test_where_it_pays(given: Setup, every: int) -> None:
    assert warm_up.sampled(given) == every


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
def test_the_sample_is_one_row_of_every_so_many(rows: int) -> None:
    problem = ps.Poisson()
    parts = X[:rows], COUNTS[:rows], np.arange(1.0, rows + 1), M[:rows]
    data = problem.prepare(*parts)
    some, again = problem.sample(data, 64), problem.sample(problem.prepare(*parts), 64)
    drawn = some.weight.astype(int) - 1
    assert some.rows == len(drawn) == -(-rows // 64)
    assert (drawn // 64 == np.arange(len(drawn))).all()
    np.testing.assert_array_equal(again.weight, some.weight)
    np.testing.assert_array_equal(some.y, COUNTS[drawn])
    np.testing.assert_array_equal(some.offset, M[drawn])
    np.testing.assert_array_equal(
        some.X.gram(np.ones(some.rows)), problem.prepare(X[drawn], some.y).X.gram(np.ones(len(drawn)))
    )


def run(problem: Any, y: np.ndarray, layout: str = "mixed", network: Network | None = None, tol: float = 1e-8) -> Any:
    order = LAYOUTS[layout]
    return simulate(problem, X[order], y[order], chunks=16, penalty=ps.L2(1.0), network=network, tol=tol)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("network", [
    None,
    Network(speeds=(1, 1, 8)),
    Network(speeds=(1, 1, 1), lost=0.1, late=0.2, doubled=0.2, deaths=[(0, 1.0, 9.0), (1, 4.0, 20.0)]),
], ids=["even", "straggler", "bad"])  # fmt: skip
def test_the_same_optimum(layout: str, network: Network | None) -> None:
    exact = simulate(ps.Logistic(), X, Y, chunks=1, penalty=ps.L2(1.0), tol=1e-14, consensus=Whole()).result
    result = run(ps.Logistic(), Y, layout, network).result
    assert result.converged
    assert result.certificate == "duality gap"
    assert result.profile.steps["solve on a sample"] >= 16
    slack = 1e-13 * exact.objective
    assert -slack <= result.objective - exact.objective <= result.gap_absolute + slack


class Whole(ps.AggregatedNewton):
    """Never samples."""

    def init(self, setup: Setup) -> Any:
        state = super().init(setup)
        state.every = 1
        return state


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(("problem", "y"), [(ps.Logistic(), Y), (ps.Poisson(), COUNTS)], ids=["logistic", "poisson"])
def test_sorted_chunks_are_passed_over_no_more_often(problem: Any, y: np.ndarray) -> None:
    warm = run(problem, y, "sorted")
    order = LAYOUTS["sorted"]
    cold = simulate(problem, X[order], y[order], chunks=16, penalty=ps.L2(1.0), consensus=Whole())
    assert warm.result.converged
    assert warm.time <= 1.05 * cold.time


@pytest.mark.usefixtures("_small")
def test_a_lease_is_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step on a sample is short: the next, on all rows, must not be given away as if it should be too."""
    seen: list[tuple[float, float]] = []
    take = Intake.take

    def watched(self: Intake, push: Any, now: float, over: bool) -> Any:
        outcome = take(self, push, now, over)
        if push.task is Task.SOLVE and push.payload.get("every", 1) > 1:
            seen.append((push.seconds, self.params.slots[push.chunk].times[Task.SOLVE]))
        return outcome

    monkeypatch.setattr(Intake, "take", watched)
    assert run(ps.Logistic(), Y).result.converged
    assert seen
    assert all(expected >= 3 * seconds for seconds, expected in seen)
