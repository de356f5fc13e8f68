"""Data on which Newton's method alone fails or overflows: every run ends certified, and F never rises along anchors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import paramserver as ps
from correctness import losses
from correctness.reference import Model, Net, newton
from paramserver.consensus import AggregatedNewton
from paramserver.simulator import Network, simulate

CHUNKS = 16
WAYS = {
    "synchronous": (CHUNKS, Network(speeds=(1, 1, 1, 1))),
    "asynchronous": (1, Network(speeds=(1, 1, 1, 1))),
    "straggler": (1, Network(speeds=(1, 1, 1, 10))),
}


@dataclass(frozen=True)
class Hard:
    """Data in the order of their chunks, and what is to be fitted to them."""

    problem: Any
    loss: losses.Loss
    X: np.ndarray
    y: np.ndarray
    l2: float = 0.0

    def sorted(self) -> Hard:
        order = np.argsort(self.y, kind="stable")
        return Hard(self.problem, self.loss, self.X[order], self.y[order], self.l2)


def _plain(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """X of unequal columns and margins of about half a unit."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((1600, 8)) * rng.uniform(0.3, 2, 8)
    return rng, X, X @ (rng.standard_normal(8) * 0.15)


def _heavy(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Columns of Student's t with 1.5 degrees of freedom, times 1e3, and bounded margins."""
    rng = np.random.default_rng(seed)
    X = rng.standard_t(1.5, (4000, 29)) * 1e3
    return rng, X, X @ (3 * rng.standard_normal(29)) / (1 + np.abs(X).max(axis=1))


def poisson(mean: float) -> Hard:
    rng, X, m = _plain(0)
    return Hard(ps.Poisson(), losses.poisson, X, rng.poisson(mean * np.exp(m)).astype(float))


def huber() -> Hard:
    rng, X, m = _plain(1)
    return Hard(ps.Huber(1.35), partial(losses.huber, delta=1.35), X, 1000 + m + rng.standard_t(1.5, len(m)))


def clipped(problem: Any, loss: losses.Loss) -> Hard:
    """So sharp a kink that at the null model only a few rows bend the losses."""
    rng, X, m = _plain(4)
    return Hard(problem, loss, X[:400], (m + rng.standard_t(2.0, len(m)))[:400])


def gamma() -> Hard:
    rng, X, m = _plain(2)
    return Hard(ps.Gamma(), losses.gamma, X, rng.gamma(1.0, np.exp(m + 3)))


def tweedie() -> Hard:
    rng, X, m = _plain(3)
    y = np.array([rng.gamma(2.0, 0.5, count).sum() for count in rng.poisson(np.exp(m))])
    return Hard(ps.Tweedie(1.5), partial(losses.tweedie, power=1.5), X, y)


def heavy_logistic() -> Hard:
    rng, X, m = _heavy(3)
    p = 1 / (1 + np.exp(-np.clip(3 * m - 4, -50, 50)))
    return Hard(ps.Logistic(), losses.logistic, X, (rng.random(len(m)) < p).astype(float), 1e-6)


def heavy_poisson() -> Hard:
    rng, X, m = _heavy(3)
    return Hard(ps.Poisson(), losses.poisson, X, rng.poisson(np.exp(np.clip(m - 1, -5, 5))).astype(float), 1e-6)


HARD = {
    "poisson, mean 0.05": partial(poisson, 0.05),
    "poisson, mean 0.05, sorted": lambda: poisson(0.05).sorted(),
    "poisson, mean 50": partial(poisson, 50.0),
    "poisson, mean 1000": partial(poisson, 1000.0),
    "huber, y ≈ 1000": huber,
    "huber, y ≈ 1000, sorted": lambda: huber().sorted(),
    "huber, delta 0.01": lambda: clipped(ps.Huber(0.01), partial(losses.huber, delta=0.01)),
    "quantile, smoothing 0.01": lambda: clipped(
        ps.Quantile(0.9, smoothing=0.01), partial(losses.quantile, level=0.9, smoothing=0.01)
    ),
    "gamma, sorted": lambda: gamma().sorted(),
    "tweedie, sorted": lambda: tweedie().sorted(),
    "logistic, heavy tails, sorted": lambda: heavy_logistic().sorted(),
    "poisson, heavy tails, sorted": lambda: heavy_poisson().sorted(),
}


@cache
def solved(name: str) -> tuple[Hard, Model, Any, float]:
    """The data, their model, F* and F of the null model."""
    data = HARD[name]()
    model = Model(data.loss, data.X, data.y, Net(l2=data.l2))
    return data, model, model.value(newton(model, model.start())), float(model.null())


@dataclass(frozen=True)
class Watched(AggregatedNewton):
    """Notes every anchor and its objective."""

    seen: list[Any] = field(default_factory=list, compare=False)

    def judge(self, state: Any, model: Any) -> Any:
        after, line = super().judge(state, model)
        self.seen.append((after.anchor, after.anchor_objective))
        return after, line


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HARD)
def test_ends_certified_and_f_never_rises_along_anchors(name: str, way: str) -> None:
    data, model, least, null = solved(name)
    min_fresh, network = WAYS[way]
    rule = Watched(min_fresh=min_fresh)
    result = simulate(
        data.problem, data.X, data.y, chunks=CHUNKS, penalty=ps.L2(data.l2), consensus=rule, network=network, limit=5e4
    ).result
    assert result.converged, result
    assert result.certificate == "duality gap"
    gap = float(model.value(result.z) - least)
    assert -1e-16 * null <= gap <= 1e-8 * null
    assert gap <= result.gap_absolute + 1e-13 * null
    said = [objective for _, objective in rule.seen]
    exact = [float(model.value(anchor)) for anchor, _ in rule.seen]
    np.testing.assert_allclose(said, exact, rtol=2e-9)  # the null model's is rounded up by 1e-9
    for objectives in (said, [null, *exact]):
        assert all(after <= before * (1 + 1e-12) for before, after in pairwise(objectives)), objectives
