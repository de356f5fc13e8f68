"""When to verify, and when that is enough."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from paramserver.views import Residuals

DEFAULT_TOL = 1e-6
STANDARD_ERRORS = 0.1  #: √(2·gap) allowed when the user gave no tol
STALL_SWEEPS = 5.0  #: sweeps in which the estimate did not halve
STALL_FAILURES = 6  #: verifications in a row without a smaller gap
PESSIMISM = 100.0  #: promised over true gap of a Newton step, at most, on ordinary data
AHEAD = 1e3  #: a Newton rule verifies so much before it would pass: its next step does
FIRST_RATIO = 30.0  #: estimate over gap, until one was measured


@dataclass
class Stopping:
    """Tolerance and triggers. Gaps are relative to ``scale``, the null model's objective."""

    tol: float | None
    scale: float = 1.0
    ratio: float = FIRST_RATIO
    best: float = np.inf
    best_at: float = 0.0
    best_gap: float = np.inf
    best_objective: float = np.inf
    failures: int = 0
    superlinear: bool = False  #: the rule's steps are Newton's
    _trail: deque[tuple[float, float]] = field(default_factory=deque)

    def restart(self) -> None:
        """Another objective or tolerance: forget how far the old one had come."""
        self.best = self.best_gap = self.best_objective = np.inf
        self.failures = 0

    def passes(self, gap_absolute: float) -> bool:
        """Whether a certified gap ends the run."""
        if gap_absolute > self.allowed():
            return False
        return self.tol is not None or np.sqrt(2 * max(gap_absolute, 0.0)) <= STANDARD_ERRORS

    def allowed(self) -> float:
        """The gap that tol allows."""
        return (DEFAULT_TOL if self.tol is None else self.tol) * self.scale

    def due(self, estimate: float, sweeps: float) -> bool:
        """Whether to verify now, given the rule's estimate and the sweeps done so far."""
        if estimate <= 0.5 * self.best:  # a rule without an estimate (nan) is verified every few sweeps
            self.best, self.best_at = estimate, sweeps
        if self._predicted(estimate, sweeps) <= (AHEAD if self.superlinear else self.ratio) * self.allowed():
            return True
        return sweeps - self.best_at >= STALL_SWEEPS

    def _predicted(self, estimate: float, sweeps: float) -> float:
        """The estimate; for Newton rules what it will have shown a sweep from now.

        Newton's estimate is the step that led to z, so it lags: the gap at z is smaller by at
        least the factor by which the estimate fell in the sweep before (superlinear convergence).
        """
        if not self.superlinear:
            return estimate
        while len(self._trail) > 1 and self._trail[1][0] <= sweeps - 1.0:
            self._trail.popleft()
        self._trail.append((sweeps, estimate))
        began, before = self._trail[0]
        fell = estimate / before if sweeps - began >= 1.0 and np.isfinite(before) and before > 0 else 1.0
        return estimate * min(fell, 1.0)

    def settled(self, residuals: Residuals, measured: bool) -> bool:
        """Whether a run that cannot be certified ends: by the rule's estimate, or by residuals where F is unknown."""
        if measured:
            return residuals.estimate <= self.allowed()
        return residuals.relative <= (DEFAULT_TOL if self.tol is None else self.tol)

    def worth(self, promise: float) -> bool:
        """Whether a light pass at the next z may well pass; the promise is a pessimist's."""
        return promise <= PESSIMISM * self.allowed()

    def failed(self, estimate: float, gap_absolute: float, objective: float, sweeps: float) -> bool:
        """A verification did not pass: recalibrate; True if the run makes no progress any more."""
        if np.isfinite(gap_absolute) and gap_absolute > 0 and np.isfinite(estimate) and estimate > 0:
            self.ratio = float(np.clip(estimate / gap_absolute, 1e-6, 1e6))
        self.best, self.best_at = np.inf, sweeps
        if gap_absolute < 0.9 * self.best_gap or objective < self.best_objective - 0.01 * self.allowed():
            self.failures = 0
            self.best_gap, self.best_objective = min(self.best_gap, gap_absolute), min(self.best_objective, objective)
        else:
            self.failures += 1
        return self.failures >= STALL_FAILURES
