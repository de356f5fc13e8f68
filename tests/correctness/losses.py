"""The losses as textbooks write them, with two derivatives, in the precision of the margins; nothing of the library's.

Each takes margins (n, K) and targets (n,) and gives values (n,), slopes (n, K) and curvatures (n, K, K); K = 1 but
for `multinomial`. Half unit deviances where there are such, so that all are ≥ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Loss, first and second derivatives of each row."""

    value: np.ndarray
    first: np.ndarray
    second: np.ndarray


Loss = Callable[[np.ndarray, np.ndarray], Rows]


def _one(value: np.ndarray, first: np.ndarray, second: np.ndarray) -> Rows:
    return Rows(value, first[:, None], second[:, None, None])


def logistic(m: np.ndarray, y: np.ndarray) -> Rows:
    """log(1 + exp(m)) − y·m, y > 0 or not."""
    up, down = np.logaddexp(0, m[:, 0]), np.logaddexp(0, -m[:, 0])
    p, q = np.exp(-down), np.exp(-up)
    return _one(np.where(y > 0, down, up), np.where(y > 0, -q, p), p * q)


def least_squares(m: np.ndarray, y: np.ndarray) -> Rows:
    """½(y − m)²."""
    t = m[:, 0] - y
    return _one(t * t / 2, t, np.ones_like(t))


def tweedie(m: np.ndarray, y: np.ndarray, power: float) -> Rows:
    """Half the unit deviance (Jørgensen 1987, eq. 2.27) of a mean exp(m)."""
    p, m = power, m[:, 0]
    mu = np.exp(m)
    if power == 1:
        value = np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - m), 0) - y + mu
    elif power == 2:
        value = y / mu - 1 - np.log(y) + m
    else:
        value = y ** (2 - p) / ((1 - p) * (2 - p)) - y * np.exp((1 - p) * m) / (1 - p) + np.exp((2 - p) * m) / (2 - p)
    fitted, seen = np.exp((2 - p) * m), y * np.exp((1 - p) * m)
    return _one(value, fitted - seen, (2 - p) * fitted - (1 - p) * seen)


def huber(m: np.ndarray, y: np.ndarray, delta: float) -> Rows:
    """½t² near, delta·|t| − ½delta² beyond (Huber 1964)."""
    t = m[:, 0] - y
    near = np.abs(t) <= delta
    value = np.where(near, t * t / 2, delta * np.abs(t) - delta * delta / 2)
    return _one(value, np.where(near, t, delta * np.sign(t)), near.astype(t.dtype))


def quantile(m: np.ndarray, y: np.ndarray, level: float, smoothing: float) -> Rows:
    """min_u pinball(y − u) + (u − m)²/(2·smoothing): the pinball loss's Moreau envelope."""
    r = y - m[:, 0]
    tau, eps = level, smoothing
    # The minimiser moves r towards 0: by eps·tau from above, eps·(1 − tau) from below, and not past it.
    moved = np.where(r > eps * tau, r - eps * tau, np.where(r < -eps * (1 - tau), r + eps * (1 - tau), 0))
    value = np.where(moved > 0, tau * moved, (tau - 1) * moved) + (r - moved) ** 2 / (2 * eps)
    return _one(value, -(r - moved) / eps, (moved == 0).astype(r.dtype) / eps)


def squared_hinge(m: np.ndarray, y: np.ndarray) -> Rows:
    """½·max(0, 1 − y·m)², y in {−1, 1}; 0 stands for −1."""
    sign = np.where(y > 0, 1.0, -1.0)
    short = np.maximum(1 - sign * m[:, 0], 0)
    return _one(short * short / 2, -sign * short, (short > 0).astype(m.dtype))


def multinomial(m: np.ndarray, y: np.ndarray) -> Rows:
    """log Σ exp(m_k) − m_y."""
    label = np.eye(m.shape[1], dtype=m.dtype)[y.astype(int)]
    top = m - m.max(axis=1, keepdims=True)
    total = np.log(np.exp(top).sum(axis=1, keepdims=True))
    p = np.exp(top - total)
    second = p[:, :, None] * np.eye(m.shape[1], dtype=m.dtype) - p[:, :, None] * p[:, None, :]
    return Rows((total[:, 0] - (top * label).sum(axis=1)), p - label, second)


poisson, gamma = partial(tweedie, power=1), partial(tweedie, power=2)
