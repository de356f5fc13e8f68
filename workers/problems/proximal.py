"""A function known by its proximal operator alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paramserver.errors import BadData
from paramserver.messages import Array
from paramserver.workers.problems.base import Start
from paramserver.workers.problems.parts import OfParts, Parts, callables, first_z, scalar, vector


class Proximal(OfParts):
    """f(x) = Σ over chunks of closed convex functions of which a user can say the prox; for `ADMM(metric="identity")`.

    Parameters
    ----------
    prox : callable (v, rho, *parts) → (p,)
        argmin_x f_i(x) + rho/2·‖x − v‖². ``parts`` are what was launched and not None (X, y, …), or the
        chunk's one object.
    size : int
        p, the length of x and z.
    value : callable (x, *parts) → float, optional
        f_i(x), for the objective that is shown; without it that is nan.
    z0 : (p,) array
        Where the fit starts; zeros if not given.

    Notes
    -----
    Nothing but residuals can end such a run (Boyd et al. 2011, section 3.3.1): `Result.certificate`
    is "residual", and ``tol`` bounds the primal and the dual residual relative to x, z and the duals.
    ``rho`` must suit the data within a factor of about 3 to 10 for the run to be fast.
    """

    def __init__(
        self, prox: Callable[..., Any], size: int, *, value: Callable[..., float] | None = None, z0: Any = None
    ) -> None:
        callables(prox=prox, **({} if value is None else {"value": value}))
        self.of, self.value, self.z0 = prox, value, first_z(size, z0)

    def __repr__(self) -> str:
        return f"Proximal({getattr(self.of, '__name__', self.of)!s}, size={len(self.z0)})"

    def prox(self, data: Parts, centre: Array, rho: float) -> tuple[Array, float]:
        """argmin_x f(x) + rho/2·‖x − centre‖², and f there (0 where no value is known)."""
        x = vector(self.of(centre, rho, *data.parts), centre.shape, "prox")
        value = 0.0 if self.value is None else scalar(self.value(x, *data.parts), "value")
        if not np.isfinite(value):
            raise BadData(f"value is {value} where prox led: it must be finite there")
        return x, value

    def _value_at_z0(self, data: Parts) -> float:
        return 0.0 if self.value is None else scalar(self.value(self.z0, *data.parts), "value")

    def start(self, survey: Array) -> Start:
        return Start(self.z0, np.nan if self.value is None else float(survey[2]))
