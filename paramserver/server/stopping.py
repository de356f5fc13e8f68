"""When to verify, and when that is enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEFAULT_TOL = 1e-6
STANDARD_ERRORS = 0.1  #: √(2·gap) allowed when the user gave no tol
STALL_SWEEPS = 5.0  #: sweeps in which the estimate did not halve
STALL_FAILURES = 6  #: verifications in a row without a smaller gap
FIRST_RATIO = 8.0  #: estimate over gap, until one was measured


@dataclass
class Stopping:
    """Tolerance and triggers. Gaps are relative to ``scale``, the null model's objective."""

    tol: float | None
    scale: float = 1.0
    ratio: float = FIRST_RATIO
    best: float = np.inf
    best_at: float = 0.0
    best_gap: float = np.inf
    failures: int = 0
    promised: float = np.inf  #: the absolute gap that the last model promises for the next z

    def passes(self, gap_absolute: float) -> bool:
        """Whether a certified gap ends the run."""
        if gap_absolute > self._allowed():
            return False
        return self.tol is not None or np.sqrt(2 * max(gap_absolute, 0.0)) <= STANDARD_ERRORS

    def _allowed(self) -> float:
        return (DEFAULT_TOL if self.tol is None else self.tol) * self.scale

    def due(self, estimate: float, sweeps: float) -> bool:
        """Whether to verify now, given the rule's estimate and the sweeps done so far."""
        if self.promised <= 0.3 * self._allowed():
            return True
        if estimate <= 0.5 * self.best:  # a rule without an estimate (nan) is verified every few sweeps
            self.best, self.best_at = estimate, sweeps
        if estimate <= self.ratio * self._allowed():
            return True
        return sweeps - self.best_at >= STALL_SWEEPS

    def failed(self, estimate: float, gap_absolute: float, promised: float, sweeps: float) -> bool:
        """A verification did not pass: recalibrate; True if the run makes no progress any more."""
        if np.isfinite(gap_absolute) and gap_absolute > 0 and np.isfinite(estimate) and estimate > 0:
            self.ratio = float(np.clip(estimate / gap_absolute, 1e-6, 1e6))
        self.promised = promised
        self.best, self.best_at = np.inf, sweeps
        if gap_absolute < 0.9 * self.best_gap:
            self.best_gap, self.failures = gap_absolute, 0
        else:
            self.failures += 1
        return self.failures >= STALL_FAILURES

    def released(self) -> None:
        """The next z was made and verified, or the freeze lifted: the promise is spent."""
        self.promised = np.inf
