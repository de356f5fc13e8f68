"""argmin_w ½(w − ref)ᵀB(w − ref) − cᵀ(w − ref) + R(w): the consensus step of matrix-metric rules.

Not the elementwise prox of B⁻¹c. Everything is Jacobi-scaled first, so that a column times 1e±6
costs no digits, and carries a ridge of 1e-11·diag(B) recentred at ``start``, never a trace ridge.
"""

from __future__ import annotations

from paramserver.quadratic.factor import Factor, scale_of
from paramserver.quadratic.solve import minimise

__all__ = ["Factor", "minimise", "scale_of"]
