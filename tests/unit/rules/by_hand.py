"""A rule driven without a server, one round after the other, beside which plain numpy can be put."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from paramserver.consensus.base import Pull, Setup
from paramserver.messages import Version
from paramserver.penalties import Bound, NoPenalty
from paramserver.workers.problems import Logistic


def logistic(n=1200, d=5, seed=0, sort=False):
    """Correlated columns, labels of 0 and 1."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)) / np.sqrt(d))
    y = (rng.random(n) < 1 / (1 + np.exp(-(X @ rng.standard_normal(d) / np.sqrt(d) - 0.7)))).astype(float)
    order = np.argsort(y, kind="stable") if sort else np.arange(n)
    return X[order], y[order]


class ByHand:
    """Logistic regression in equal chunks; `z`, `state` and `slots` as a server would have them."""

    def __init__(self, rule, X, y, chunks=1, penalty=None):
        problem, rows = Logistic(), np.array_split(np.arange(len(X)), chunks)
        self.rule, self.rows = rule, rows
        self.data = [problem.prepare(X[r], y[r]) for r in rows]
        survey = reduce(problem.merge, map(problem.survey, self.data))
        self.problem, start = problem.at(survey), problem.start(survey)
        p = len(start.z)
        self.bound = Bound(penalty or NoPenalty(), self.problem.penalised(p))
        self.setup = Setup(p, chunks, len(X), start, False, self.bound, start.z)
        self.state, self.slots, self.z, self.n = rule.init(self.setup), {}, start.z, 0

    def pull(self, i, whole=False) -> Pull:
        slot = self.slots.get(i)
        return Pull(self.z, Version(0, self.n), self.rule.plan(self.state, slot, self.z), whole or slot is None)

    def push(self, i, pull=None) -> dict[str, Any]:
        payload = self.rule.step(self.problem, self.data[i], pull or self.pull(i))
        return {**payload, "rows": float(len(self.rows[i]))}

    def absorb(self, i, payload) -> bool:
        self.state, self.slots[i], accepted = self.rule.absorb(self.state, i, self.slots.get(i), payload)
        self.slots[i] = {**self.slots[i], "rows": payload["rows"]}
        return accepted

    def consensus(self):
        self.z, self.state = self.rule.consensus(self.state, self.bound, self.z)
        self.n += 1
        return self.z

    def round(self, order=None):
        """Every chunk answers at this z; the next one."""
        order = range(len(self.data)) if order is None else order
        for i, payload in [(i, self.push(i)) for i in order]:
            self.absorb(i, payload)
        return self.consensus()


# -- plain numpy -----------------------------------------------------------------------------------


def gradient(X, y, z):
    """Of Σ log(1 + exp(m)) − ym in z = (w, b)."""
    off = 1 / (1 + np.exp(-(X @ z[:-1] + z[-1]))) - y
    return np.append(X.T @ off, off.sum())


def diagonal(X, y):
    """That of the Hessian at the null model of these labels, (p,), from the whole data's mean."""
    mean = y.mean()
    return mean * (1 - mean) * np.append((X**2).sum(axis=0), len(X))


def objective(X, y, z, l1=0.0, l2=0.0):
    m, w = X @ z[:-1] + z[-1], z[:-1]
    return float((np.logaddexp(0, m) - y * m).sum() + l1 * np.abs(w).sum() + 0.5 * l2 * w @ w)


def optimum(X, y, l2=0.0):
    """By Newton's method."""
    A = np.column_stack([X, np.ones(len(X))])
    ridge, z = np.append(np.full(X.shape[1], l2), 0.0), np.zeros(X.shape[1] + 1)
    for _ in range(30):
        mean = 1 / (1 + np.exp(-A @ z))
        H = (A * (mean * (1 - mean))[:, None]).T @ A + np.diag(ridge)
        z = z - np.linalg.solve(H, A.T @ (mean - y) + ridge * z)
    return z


def gap(X, y, z, l2=0.0):
    """(F(z) − F*)/F(null model)."""
    null = np.append(np.zeros(X.shape[1]), np.log(y.mean() / (1 - y.mean())))
    return (objective(X, y, z, l2=l2) - objective(X, y, optimum(X, y, l2), l2=l2)) / objective(X, y, null)
