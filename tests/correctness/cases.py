"""The table: models, penalties, storages and extras, each with its definition beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import scipy.sparse as sp

import paramserver as ps
from correctness import losses
from correctness.reference import Model, Net, optimum

D = 6
N = 300


@dataclass(frozen=True)
class Family:
    """The library's problem, its loss by definition, and targets for margins of about unit size."""

    problem: Any
    loss: losses.Loss
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    classes: int = 1


def _labels(rng: Any, m: np.ndarray) -> np.ndarray:
    return (rng.random(len(m)) < 1 / (1 + np.exp(-m))).astype(float)


def _compound(rng: Any, m: np.ndarray) -> np.ndarray:
    """A Poisson number of Gamma variables: exact zeros among positive values."""
    return np.array([rng.gamma(2.0, 0.5, count).sum() for count in rng.poisson(np.exp(m))])


def _heavy(rng: Any, m: np.ndarray) -> np.ndarray:
    return m + 0.5 * rng.standard_t(2.0, len(m))


def _classes(rng: Any, m: np.ndarray) -> np.ndarray:
    return (rng.gumbel(size=(len(m), 3)) + np.outer(m, [1.0, -0.5, 0.0]) + [0.5, 0.2, 0]).argmax(axis=1).astype(float)


FAMILIES = {
    "logistic": Family(ps.Logistic(), losses.logistic, _labels),
    "least squares": Family(ps.LeastSquares(), losses.least_squares, lambda rng, m: m + rng.standard_normal(len(m))),
    "poisson": Family(ps.Poisson(), losses.poisson, lambda rng, m: rng.poisson(np.exp(m)).astype(float)),
    "gamma": Family(ps.Gamma(), losses.gamma, lambda rng, m: rng.gamma(2.0, np.exp(m) / 2)),
    "tweedie": Family(ps.Tweedie(1.5), partial(losses.tweedie, power=1.5), _compound),
    "huber": Family(ps.Huber(0.7), partial(losses.huber, delta=0.7), _heavy),
    "quantile": Family(
        ps.Quantile(0.3, smoothing=0.2), partial(losses.quantile, level=0.3, smoothing=0.2), _heavy
    ),
    "squared hinge": Family(ps.SquaredHinge(), losses.squared_hinge, _labels),
    "multinomial": Family(ps.Multinomial(), losses.multinomial, _classes, 3),
}  # fmt: skip

FACTORS = (0.0, 1.0, 0.3, 2.0, 1.0, 0.0)
LOWER, UPPER = (-0.2, -np.inf, -0.1, 0.05, -0.3, -np.inf), (0.2, 0.3, 0.1, np.inf, 0.3, 0.4)
GROUPS, WEIGHTS = ((0, 1, 2), (3, 4)), (1.0, 1.5)  # column 5 is in none


def _factors(a: float) -> tuple[Any, Net]:
    half = 0.5 * a * np.array(FACTORS)
    return ps.ElasticNet(a, 0.5, factors=FACTORS), Net(l1=half, l2=half)


def _groups(a: float) -> tuple[Any, Net]:
    return ps.GroupL1(GROUPS, a, factors=WEIGHTS), Net(groups=_weighted(GROUPS, a * np.array(WEIGHTS)))


def _sized(a: float) -> tuple[Any, Net]:
    groups = tuple(tuple(range(start, start + 3)) for start in range(0, 3 * D, 3))
    return ps.GroupL1(3, a), Net(groups=_weighted(groups, [a * np.sqrt(3)] * 6))


def _above(a: float) -> tuple[Any, Net]:
    """Without a penalty, a constant added to all classes would lift every coefficient above zero."""
    return ps.NonNegative(a, 0.5), Net(0.5 * a, 0.5 * a, lower=0.0)


def _weighted(groups: Any, weights: Any) -> Any:
    return tuple((tuple(g), float(w)) for g, w in zip(groups, weights, strict=True))


#: For a strength: the library's penalty, and what it is.
PENALTIES: dict[str, Callable[[float], tuple[Any, Net]]] = {
    "none": lambda a: (ps.NoPenalty(), Net()),
    "l2": lambda a: (ps.L2(a), Net(l2=a)),
    "l1": lambda a: (ps.L1(a), Net(l1=a)),
    "elastic net": lambda a: (ps.ElasticNet(a, 0.6), Net(l1=0.6 * a, l2=0.4 * a)),
    "factors": _factors,
    "groups": _groups,
    "non-negative": lambda a: (ps.NonNegative(), Net(lower=0.0)),
    "box": lambda a: (ps.Box(LOWER, UPPER, 0.5 * a, 0.5), Net(0.25 * a, 0.25 * a, LOWER, UPPER)),
}
#: The same for several classes, where they need another.
OF_CLASSES = {"groups": _sized, "non-negative": _above}
STORAGES: dict[str, Callable[[np.ndarray], Any]] = {
    "dense": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "csr": sp.csr_array,
}
EXTRAS = ("plain", "weight", "offset")


@dataclass(frozen=True)
class Case:
    """One cell's data, penalty and optimum."""

    problem: Any
    penalty: Any
    X: np.ndarray
    y: np.ndarray
    extras: dict[str, np.ndarray]
    model: Model
    z: np.ndarray
    objective: Any
    null: Any

    def gap(self, z: np.ndarray) -> float:
        """F(z) − F*."""
        return float(self.model.value(z) - self.objective)


@cache
def data(family: str, extra: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """X of values that float32 holds too, half of them zeros; y; and the weight or offset."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((N, D)) @ (np.eye(D) + 0.2 * rng.standard_normal((D, D)))
    X = np.where(rng.random((N, D)) < 0.5, X, 0.0).astype(np.float32).astype(np.float64)
    margins = X @ np.array([0.8, -0.6, 0.4, 0.0, -0.3, 0.5]) - 0.2
    kind, extras = FAMILIES[family], {}
    if extra == "offset":
        extras["offset"] = rng.standard_normal((N, kind.classes) if kind.classes > 1 else N)
        margins = margins + np.reshape(extras["offset"], (N, -1))[:, 0]
    if extra == "weight":
        extras["sample_weight"] = np.where(np.arange(N) % 7, rng.exponential(size=N), 0.0)
    if extra == "counts":
        extras["sample_weight"] = rng.integers(0, 4, N).astype(float)
    return X, kind.draw(rng, margins), extras


@cache
def case(family: str, penalty: str, extra: str) -> Case:
    """The strength is a share of what the null model's gradient would need to leave nothing."""
    X, y, extras = data(family, extra)
    kind = FAMILIES[family]
    make = partial(
        Model, kind.loss, X, y, weight=extras.get("sample_weight"), offset=extras.get("offset"), classes=kind.classes
    )
    bare = make()
    strength = float(f"{0.25 * float(np.abs(bare.gradient(bare.start())[: bare.width]).max()):.2g}")
    makers = PENALTIES | OF_CLASSES if kind.classes > 1 else PENALTIES
    theirs, net = makers[penalty](strength)
    model = make(net=net)
    z = optimum(model)
    return Case(kind.problem, theirs, X, y, extras, model, z, model.value(z), model.null())
