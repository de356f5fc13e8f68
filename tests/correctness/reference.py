"""The optimum of a regularised model, found without the library and in extended precision.

Accelerated proximal gradient finds which coefficients are zero or at a bound; Newton on the others then ends at
the optimum of that smooth manifold; the optimality condition of the rest shows that it is the optimum of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from correctness.losses import Loss, Rows

LONG = np.longdouble


@dataclass(frozen=True)
class Net:
    """Σ l1|w| + l2/2·w² + Σ_g weight_g·‖w_g‖ within bounds; numbers, or one each of the K·d coefficients."""

    l1: Any = 0.0
    l2: Any = 0.0
    lower: Any = -np.inf
    upper: Any = np.inf
    groups: tuple[tuple[tuple[int, ...], float], ...] = ()

    def over(self, width: int, p: int, dtype: Any) -> Net:
        """With vectors over z (p,), whose first ``width`` are coefficients."""
        free = (0.0, 0.0, -np.inf, np.inf)
        parts = []
        for value, none in zip((self.l1, self.l2, self.lower, self.upper), free, strict=True):
            part = np.full(p, none, dtype)
            part[:width] = np.resize(np.atleast_1d(value), width)
            parts.append(part)
        return Net(*parts, self.groups)

    @property
    def smooth(self) -> bool:
        """No kink and no bound anywhere."""
        bounds = np.append(np.ravel(self.lower), -np.ravel(self.upper))
        return not (np.any(self.l1) or self.groups or (bounds > -np.inf).any())

    def value(self, z: np.ndarray) -> Any:
        inside = (z >= self.lower).all() and (z <= self.upper).all()
        norms = sum(weight * np.sqrt((z[list(g)] ** 2).sum()) for g, weight in self.groups)
        return (self.l1 * np.abs(z)).sum() + (self.l2 * z * z).sum() / 2 + norms if inside else np.inf

    def prox(self, v: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Steps are equal within a group."""
        out = np.sign(v) * np.maximum(np.abs(v) - self.l1 * steps, 0) / (1 + self.l2 * steps)
        for g, weight in self.groups:
            on = list(g)
            length = np.sqrt((out[on] ** 2).sum())
            out[on] *= max(1 - weight * steps[g[0]] / length, 0) if length > 0 else 0
        return np.clip(out, self.lower, self.upper)

    def held(self, z: np.ndarray) -> np.ndarray:
        """Mask of the coordinates at a kink or a bound."""
        out = ((z == 0) & (self.l1 > 0)) | (z == self.lower) | (z == self.upper)
        for g, _ in self.groups:
            out[list(g)] |= not z[list(g)].any()
        return out

    def smooth_part(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian along the coordinates that are not held."""
        slope, bend = self.l1 * np.sign(z) + self.l2 * z, np.diag(self.l2 + 0 * z)
        for g, weight in self.groups:
            on = list(g)
            length = np.sqrt((z[on] ** 2).sum())
            if length > 0:
                unit = z[on] / length
                slope[on] += weight * unit
                bend[np.ix_(on, on)] += weight / length * (np.eye(len(on)) - np.outer(unit, unit))
        return slope, bend

    def violation(self, z: np.ndarray, gradient: np.ndarray) -> Any:
        """The largest distance of −gradient of the losses from ∂R(z) among the held coordinates."""
        g = gradient + self.l2 * z + self.l1 * np.sign(z)
        worst = -np.inf
        for j in np.flatnonzero(self.held(z) & ~self._grouped(len(z))):
            kink = self.l1[j] if z[j] == 0 else 0
            low = -np.inf if z[j] == self.lower[j] else g[j] - kink  # must be ≤ 0; nothing at a lower bound
            high = -np.inf if z[j] == self.upper[j] else -g[j] - kink
            worst = max(worst, low, high)
        for group, weight in self.groups:
            if not z[list(group)].any():
                worst = max(worst, np.sqrt((gradient[list(group)] ** 2).sum()) - weight)
        return worst

    def _grouped(self, p: int) -> np.ndarray:
        return np.isin(np.arange(p), [j for g, _ in self.groups for j in g])


@dataclass
class Model:
    """F(z) = Σ weight·loss + R; z is the (K, d) coefficients row by row, then the K intercepts."""

    loss: Loss
    X: np.ndarray
    y: np.ndarray
    net: Net = field(default_factory=Net)
    weight: Any = None
    offset: Any = None
    intercept: bool = True
    classes: int = 1
    dtype: Any = LONG

    def __post_init__(self) -> None:
        n, d = self.X.shape
        X = self.X.astype(self.dtype)
        self.A = np.column_stack([X, np.ones(n, self.dtype)]) if self.intercept else X
        self.width, self.p = self.classes * d, self.classes * (d + self.intercept)
        self.bound = self.net.over(self.width, self.p, self.dtype)
        self.target = self.y.astype(self.dtype)
        self.w = np.ones(n, self.dtype) if self.weight is None else np.asarray(self.weight).astype(self.dtype)
        zero = np.zeros((n, self.classes))
        self.o = (zero if self.offset is None else np.reshape(self.offset, (n, -1)) + zero).astype(self.dtype)
        places = np.arange(self.p)
        coef, intercepts = places[: self.width].reshape(self.classes, d), places[self.width :]
        self.order = np.column_stack([coef, intercepts]) if self.intercept else coef

    def rows(self, z: np.ndarray) -> Rows:
        return self.loss(self.A @ np.asarray(z).astype(self.dtype)[self.order].T + self.o, self.target)

    def value(self, z: np.ndarray) -> Any:
        """F(z)."""
        with np.errstate(over="ignore"):
            out = (self.w * self.rows(z).value).sum() + self.bound.value(np.asarray(z).astype(self.dtype))
        return out if np.isfinite(out) else np.inf

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """Of the losses, (p,)."""
        out = np.empty(self.p, self.dtype)
        out[self.order] = (self.rows(z).first.T * self.w) @ self.A
        return out

    def hessian(self, z: np.ndarray) -> np.ndarray:
        """Of the losses, (p, p)."""
        second = self.rows(z).second
        out = np.empty((self.p, self.p), self.dtype)
        for k in range(self.classes):
            for other in range(self.classes):
                block = (self.A.T * (self.w * second[:, k, other])) @ self.A
                out[np.ix_(self.order[k], self.order[other])] = block
        return out

    def null(self) -> Any:
        """F of the model without coefficients."""
        if not self.intercept:
            return (self.w * self.rows(np.zeros(self.p, self.dtype)).value).sum()
        bare = Model(self.loss, self.X[:, :0], self.y, Net(), self.weight, self.offset, True, self.classes)
        return bare.value(newton(bare, bare.start()))

    def start(self) -> np.ndarray:
        """Zeros, and an intercept for targets far from them."""
        z = np.zeros(self.p, self.dtype)
        if self.intercept and self.classes == 1:
            tries = np.append(0, [np.median(self.y), np.log(max(self.y.mean(), 1e-3))])
            z[-1] = min(tries, key=lambda b: self.value(np.append(z[:-1], b)))
        return z


def optimum(model: Model) -> np.ndarray:
    """argmin F, (p,) in extended precision; that it is one was checked."""
    z = model.start()
    if model.bound.smooth:
        return newton(model, z)
    rough = replace(model, dtype=np.float64)
    z = rough.bound.prox(z.astype(np.float64), np.zeros(model.p))
    for sweeps in (50, 100, 200, 400, 800, 1600, 3200):
        z = _proximal_gradient(rough, z, sweeps)
        polished = newton(model, z)
        gradient = model.gradient(polished)
        size = np.sqrt(2 * model.value(polished) * np.abs(np.diag(model.hessian(polished))).max())
        same = (model.bound.held(polished) == model.bound.held(z)).all()
        if same and model.bound.violation(polished, gradient) <= 1e-16 * size:
            return polished
    raise AssertionError("the reference did not find which coefficients are zero or at a bound")


def newton(model: Model, z: np.ndarray) -> np.ndarray:
    """Levenberg and Marquardt's on the coordinates that are not held."""
    z = z.astype(model.dtype)
    on = np.flatnonzero(~model.bound.held(z))
    gram = np.diag(((model.A**2).T @ model.w)[np.argsort(np.ravel(model.order)) % model.A.shape[1]])
    gram = gram + np.diag(np.where(np.diag(gram) > 0, 0, 1))
    best, damping = model.value(z), LONG(1e-18)
    for _ in range(500):
        slope, bend = model.bound.smooth_part(z)
        g, H = (model.gradient(z) + slope)[on], (model.hessian(z) + bend)[np.ix_(on, on)]
        step = -solve(H + damping * gram[np.ix_(on, on)], g)
        new = z.copy()
        new[on] += step
        now = model.value(new)
        crossed = (np.sign(new) * np.sign(z) < 0)[on] & (model.bound.l1[on] > 0)
        fell = now <= best and not crossed.any()
        if fell:
            z, best, damping = new, now, max(damping / 30, LONG(1e-18))
        elif damping > 1e6:
            return z
        else:
            damping *= 10
        if -(g @ step) <= (1e-21 if fell else 1e-18) * best:  # twice what F may still fall
            return z
    raise AssertionError("the reference did not converge")


def solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A⁻¹b for a positive definite A, in its own precision (LAPACK has none such)."""
    scale = 1 / np.sqrt(np.diag(A))
    M = np.column_stack([A * scale * scale[:, None], b * scale])
    n = len(b)
    for k in range(n):
        M[k] /= M[k, k] if M[k, k] > 0 else LONG(1e-18)
        M[k + 1 :] -= np.outer(M[k + 1 :, k], M[k])
    out = M[:, -1].copy()
    for k in range(n - 2, -1, -1):
        out[k] -= M[k, k + 1 : n] @ out[k + 1 :]
    return out * scale


def _proximal_gradient(model: Model, z: np.ndarray, sweeps: int) -> np.ndarray:
    """Beck & Teboulle 2009 with backtracking and restarts, in the metric of the columns' sums of squares."""
    sizes = ((model.A**2).T @ model.w)[np.argsort(np.ravel(model.order)) % model.A.shape[1]]
    for g, _ in model.bound.groups:
        sizes[list(g)] = sizes[list(g)].max()
    steps = 1 / np.where(sizes > 0, sizes, 1)
    smooth = lambda at: (model.w * model.rows(at).value).sum()  # noqa: E731
    w, y, momentum = z, z, 1.0
    for _ in range(sweeps):
        gradient, here = model.gradient(y), smooth(y)
        while True:
            new = model.bound.prox(y - steps * gradient, steps)
            move = new - y
            if smooth(new) <= here + gradient @ move + (move * move / steps).sum() / 2 + 1e-14 * abs(here):
                break
            steps = steps / 2
        if ((y - new) / steps) @ (new - w) > 0:
            momentum, y = 1.0, new
        else:
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            y = new + (momentum - 1) / following * (new - w)
            momentum = following
        w = new
    return w
