"""What a local problem is: the losses of one chunk as functions of z.

Subclass `Problem` and define `prepare`, `survey`, `start` and whichever of `CAPABILITIES` you can;
a rule that needs one you lack says so, with its signature. Nothing here imports Dask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from paramserver.errors import MissingMethod
from paramserver.messages import Array

#: What a problem may offer over one chunk's data, by name, and the call it must answer.
CAPABILITIES = {
    "evaluate": "evaluate(data, z) -> Evaluation(value, gradient (p,), curvature)",
    "curvature": "curvature(data, z) -> (rows, ...) what `hessian` needs of the weighted losses at z",
    "hessian": "hessian(data, curvature) -> (p, p), from Evaluation.curvature",
    "hessian_of": "hessian_of(data, curvature, coordinates) -> (k, k), the Hessian of these coordinates of z alone",
    "hessian_diagonal": "hessian_diagonal(data, curvature) -> (p,)",
    "prox": "prox(data, centre, rho) -> argmin_x f(x) + rho/2·‖x − centre‖², (p,), and f there (0 if not known)",
    "knows": "knows(data) -> Share(coordinates (k,), weight (k,)): those of z that the chunk's f depends on, and how "
    "much it counts in the mean of each; prox is then called with rho·weight, (p,)",
    "null": "null(data, z) -> Null(value, gradient, hessian) in the free coordinates, the others of z being 0",
    "line": "line(data, z, step, ts) -> (len(ts),) values at z + t·step",
    "fenchel": "fenchel(data, z, step, move=None, kept=None) -> (Σ ℓ(m) + ℓ*(θ) − θm, Σ ℓ(m)) at z + move, "
    "θ = ℓ' + ℓ''xᵀstep, or with the curvatures ``kept`` for ℓ'' (if `bending`); "
    "any c ≥ ℓ*(θ) will do in its place, the same for every move",
    "batch": "batch(data, rows, seed) -> data of so many of its rows, drawn by the seed (a tuple of int)",
    "sample": "sample(data, every) -> data of one row in so many, the same at every call",
    "dual": "dual(data, z, step, kept=None) -> Xᵀθ, (p,), for fenchel's θ: the gradient plus the Hessian times step",
    "fenchel_bound": "fenchel_bound(bend, reach) -> a bound of fenchel from stepᵀH step and max|xᵀstep|, or None",
    "without": "without(data, z, step, small) -> data less the rows that step moves far, or whose loss is small",
    "reach": "reach(data) -> (p,) largest |X_jk| of each column",
    "moments": "moments(data, z) -> Moments: what standard errors are made of, summed over the rows",
    "log_likelihood": "log_likelihood(data, z, dispersions) -> (2,), by both meanings of weights",
}


class Evaluation(NamedTuple):
    """Value, gradient (p,) and the rows' curvatures at one z; f is the *sum* of the losses.

    ``margins``, the offset among them, where the problem has such and the value is finite: at z + t·step
    they are these + t·`linear(data, step)`, without another pass.
    """

    value: float
    gradient: Array
    curvature: Array
    margins: Array | None = None


class Null(NamedTuple):
    """The losses as functions of the k free coordinates alone: value, gradient (k,), hessian (k, k)."""

    value: float
    gradient: Array
    hessian: Array


class Share(NamedTuple):
    """Which coordinates of z a chunk knows, (k,) distinct, and how much each counts, (k,) > 0."""

    coordinates: np.ndarray
    weight: Array


class Start(NamedTuple):
    """The null model: where every fit starts, and what relative gaps are relative to.

    Where the surveys cannot tell it exactly, ``exact`` is False and `null` is asked of every chunk,
    a few times over.
    """

    z: Array
    objective: float
    exact: bool = True


class Problem(ABC):
    """The losses of one chunk; frozen settings only, so that it travels."""

    #: The Hessian is the same at every z.
    quadratic: ClassVar[bool] = False
    #: Losses bend everywhere: along a null direction of the Hessian, at any one z, they are constant.
    curved: ClassVar[bool] = False
    #: ℓ'' > 0 at every margin: a Hessian made at another z certifies too (`fenchel` with ``kept``).
    bending: ClassVar[bool] = False
    #: Offers `sample`: rows are alike enough for some of them to stand for all.
    samples: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, *parts: Any) -> Any:
        """A chunk's parts, as launched (X, y, sample_weight, offset or one object), → data to work on.

        Parts that were not passed are None or missing. The data need a ``rows`` (int) and a
        ``memo`` (dict, for what is worth keeping). Raise `BadData` naming the row for values that
        cannot be fitted.
        """

    @abstractmethod
    def survey(self, data: Any) -> Array:
        """One chunk's statistics for `at` and `start`: a float vector, [0] the rows, [1] the columns."""

    def merge(self, a: Array, b: Array) -> Array:
        """Two chunks' surveys as one; the default adds all but the columns."""
        out = a + b
        out[1] = a[1]
        return out

    def at(self, survey: Array) -> Problem:
        """The problem with what only the merged survey tells (units, number of classes); the default: itself."""
        return self

    @abstractmethod
    def start(self, survey: Array) -> Start:
        """The null model's z (p,) and objective, from the merged survey; called on what `at` returned."""

    def size(self, n_columns: int) -> int | None:
        """p for so many columns, where that is known before the data are read."""
        return None

    def penalised(self, p: int) -> np.ndarray:
        """Mask (p,) of the coordinates that the penalty acts on."""
        return np.ones(p, bool)

    def redundant(self, p: int) -> list[tuple[int, ...]]:
        """Groups of coordinates to which a constant may be added, whatever the data: nothing to report."""
        return []

    def unpack(self, z: Array) -> tuple[Any, Any]:
        """z → (coef_, intercept_)."""
        return z, 0.0

    def outward(self, z: Array) -> Array:
        """z in the user's units, (p,), where the problem works in others."""
        return z

    def inward(self, z: Array) -> Array:
        """The inverse of `outward`."""
        return z

    def outward_dual(self, y: Array) -> Array:
        """A gradient with respect to z, (p,), as one with respect to ``outward(z)``."""
        return y

    def check_target(self, y: Any) -> None:  # noqa: B027
        """Refuse what can be seen to be wrong with a target that is at hand, before it is sent."""

    def check_list(self, chunks: Sequence[Any]) -> None:  # noqa: B027
        """Refuse what can be seen to be wrong with a list of chunks that is at hand, before it is sent."""

    def check_given(self, y: Any) -> None:  # noqa: B027
        """Refuse to be launched with arrays without a target, where there must be one."""


def require(needs: Iterable[str], problem: Problem, who: str, instead: str = "") -> None:
    """Raise `MissingMethod` where ``problem`` lacks something that ``who`` needs; ``instead`` would do for it all."""
    lacking = [name for name in needs if not callable(getattr(problem, name, None))]
    if lacking:
        lines = "\n".join(f"    def {CAPABILITIES.get(name, name)}" for name in lacking)
        if instead:
            lines += f"\nor, in place of all this,\n    def {CAPABILITIES[instead]}"
        elif callable(getattr(problem, "prox", None)):
            lines += '\nor fit it by ProgressiveHedging() or ADMM(metric="identity"): its prox is enough for that'
        raise MissingMethod(f"{who} needs of a problem what {type(problem).__name__} lacks; define on it\n{lines}")
