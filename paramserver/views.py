"""What a user reads of a run: parameters, status, result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paramserver.messages import Array, Version

if TYPE_CHECKING:
    from paramserver.inference import Inference
    from paramserver.profile import Profile
    from paramserver.summary import Summary
    from paramserver.trace import Trace


class Residuals(NamedTuple):
    """A rule's own measure of how far it is, from server state alone.

    ``estimate`` is in units of the objective and only triggers a verification; ``primal`` and
    ``dual`` are the rule's residuals (Boyd et al. 2011, section 3.3), nan where it has none.
    ``relative`` is the larger of the two over its own scale: it ends a run whose objective nobody knows.
    """

    estimate: float
    primal: float = float("nan")
    dual: float = float("nan")
    relative: float = float("nan")


class Verified(NamedTuple):
    """The last version whose objective and gap were computed exactly."""

    version: Version
    objective: float
    gap: float  #: relative to the null model's objective
    gap_absolute: float
    certificate: str  #: "duality gap", "first-order" (a looser proof), "estimate" or "residual"


class Staleness(NamedTuple):
    """How old z was when the push computed with it arrived."""

    versions_median: float = float("nan")
    versions_p99: float = float("nan")
    ms_median: float = float("nan")
    ms_p99: float = float("nan")


class ChunkValue(NamedTuple):
    """One chunk's local variable or unscaled dual, and the version it belongs to."""

    chunk: int
    version: Version
    value: Array


@dataclass(frozen=True)
class Params:
    """The parameters of one version.

    Attributes
    ----------
    version : Version
    age_s : float
        Seconds since this version was made, when it was read.
    z : (p,) float64
        The consensus, flat; the intercept last where there is one.
    coef_ : ndarray, intercept_ : float or ndarray
        z as the problem unpacks it.
    feature_names : tuple of str, or None
    certified : bool
        Whether this version's gap was verified (published z is not monotone in the objective).
    """

    version: Version
    age_s: float
    z: Array
    coef_: Any
    intercept_: Any
    feature_names: tuple[str, ...] | None = None
    certified: bool = False

    def named(self) -> dict[str, float]:
        """Coefficients by feature name (``x0``, ``x1`` … where the data have none); "name[k]" for class k of K."""
        return _named(self.coef_, self.feature_names)


@dataclass(frozen=True)
class Status:
    """How a run is doing, at one moment.

    Times are in seconds, ages since the chunk's last accepted push. ``objective`` is an estimate
    from what the chunks last pushed; ``verified`` is exact, for the version it names.
    """

    name: str
    state: str
    doing: str
    version: Version
    objective: float
    verified: Verified | None
    residuals: Residuals
    n_chunks: int
    n_rows: int
    n_features: int
    pushes: int
    refused: dict[str, int]
    staleness: Staleness
    chunk_age: dict[int, float]
    runners: dict[str, int]
    server: str
    epoch: int
    seconds: float
    reason: str = ""
    consensus: str = ""  #: the rule
    notes: tuple[str, ...] = ()
    waiting_for: tuple[int, ...] = ()
    empty_chunks: tuple[int, ...] = ()
    replayed: int = 0  #: of the pushes, those sent again to a server that took over

    @property
    def oldest(self) -> tuple[int, float]:
        """The chunk that has waited longest, and for how long (seconds)."""
        return max(self.chunk_age.items(), key=lambda kv: kv[1], default=(-1, 0.0))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        out = asdict(self)
        for key in ("verified", "residuals", "staleness"):
            part = getattr(self, key)
            out[key] = None if part is None else part._asdict()
        out["chunk_age"] = {str(k): v for k, v in self.chunk_age.items()}
        return out


class History(NamedTuple):
    """A thinned record of a run; arrays of equal length, one entry a recorded version."""

    seconds: Array
    version: Array
    pushes: Array
    objective: Array  #: the estimate
    estimate: Array  #: Residuals.estimate
    gap: Array  #: certified absolute gap, nan where the version was not verified


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes
    ----------
    z : (p,) float64
    coef_, intercept_ :
        z as the problem unpacks it.
    objective : float
        F(z) = Σ weight·loss + R, exact where ``certificate`` is "duality gap" or "first-order".
    gap, gap_absolute : float
        Upper bound of F(z) − F*, over F(null model), and absolute. Where ``certificate`` is "residual",
        the larger of the relative residuals, and nan.
    certificate : str
        "duality gap" (a proof), "first-order" (a looser one), "estimate" (the rule's own), "residual" (of a problem
        without values).
    converged : bool
        The gap is certified to tol, whatever ended the run.
    reason : str
        "converged", "separation" (certified, but some coefficients have no finite value: ``notes`` names
        them), "stopped", "until", "max_seconds", "max_pushes", "stalled" (no progress any more: a rule that is
        not exact is at its floor), "diverged" (z is the best that was verified, or the null model).
    penalty : str
        R, and of what: with ``standardize`` of the coefficients times their columns' deviation.
    notes : tuple of str
        What else to know: columns without effect, dependent ones, refused chunks, and those left out.
    left_out : dict of int to int or None
        The chunks whose data were lost, and that the fit is therefore without (``on_chunk_loss="drop"``), and
        how many rows each had; None where it was never read.
    standard_errors : float
        √(2·gap_absolute), a bound of the error in standard errors.
    inference : Inference or None
        What `summary` is made of; ``no_inference`` says why there is none.
    profile : Profile or None
        Where the time went.
    trace : Trace or None
        What z and the workers did, in a run that `compare` made.
    """

    z: Array
    coef_: Any
    intercept_: Any
    objective: float
    gap: float
    gap_absolute: float
    certificate: str
    converged: bool
    reason: str
    n_pushes: int
    n_refused: int
    n_rows: int
    n_features: int
    n_chunks: int
    version: Version
    seconds: float
    consensus: str
    penalty: str
    history: History
    name: str = ""
    feature_names: tuple[str, ...] | None = None
    standard_errors: float = float("nan")
    notes: tuple[str, ...] = ()
    left_out: dict[int, int | None] = field(default_factory=dict)
    pushes_per_chunk: dict[int, int] = field(default_factory=dict)
    inference: Inference | None = field(default=None, repr=False)
    no_inference: str = ""
    profile: Profile | None = field(default=None, repr=False)
    trace: Trace | None = field(default=None, repr=False)

    def named(self) -> dict[str, float]:
        """Coefficients by feature name (``x0``, ``x1`` … where the data have none); "name[k]" for class k of K."""
        return _named(self.coef_, self.feature_names)

    def summary(
        self,
        *,
        covariance: str | None = None,
        information: str | None = None,
        weights: str = "frequency",
        dispersion: float | None = None,
        level: float = 0.95,
        reference: int | None = None,
    ) -> Summary:
        """Standard errors, z, p, intervals and the fit's statistics, for a fit without penalty.

        The defaults are those of statsmodels' ``GLM(...).fit()``.

        Parameters
        ----------
        covariance : "model" or "sandwich"
            φ·H⁻¹, or H⁻¹(Σ s sᵀ)H⁻¹ from the rows' scores s (HC0), which holds where the variance
            is not the family's. Default: "model", but "sandwich" for losses that belong to no
            distribution (Huber, Quantile, SquaredHinge).
        information : "expected" or "observed"
            Which H; they differ for Gamma and Tweedie. Default: "expected" for the model's
            covariance, "observed" for the sandwich.
        weights : "frequency" or "precision"
            What sample weights mean: w rows alike (statsmodels' ``freq_weights``), or one row of
            variance φ·V(µ)/w (``var_weights``). Coefficients are the same.
        dispersion : float
            φ; default: 1 (binomial, Poisson), else Pearson's statistic over ``df_resid``.
        level : float
            Of the intervals.
        reference : int
            Multinomial only: report contrasts to this class.

        Raises
        ------
        InvalidInput
            There was a penalty, ``inference`` was off, or the run ended early.
        """
        from paramserver.summary import summarise

        return summarise(self, covariance, information, weights, dispersion, level, reference)

    def __repr__(self) -> str:
        return (
            f"Result(objective={self.objective:.10g}, gap={self.gap:.2g} [{self.certificate}], "
            f"converged={self.converged}, reason={self.reason!r}, n_pushes={self.n_pushes}, "
            f"seconds={self.seconds:.3g})"
        )


def _named(coef: Any, names: tuple[str, ...] | None) -> dict[str, float]:
    if isinstance(coef, dict):
        return {f"{part}[{j}]": float(v) for part, values in coef.items() for j, v in enumerate(values)}
    coef = np.atleast_1d(coef)
    columns = names or tuple(f"x{j}" for j in range(coef.shape[-1]))
    if coef.ndim == 2:
        columns = tuple(f"{name}[{k}]" for k in range(len(coef)) for name in columns)
    return dict(zip(columns, coef.ravel().tolist(), strict=True))
