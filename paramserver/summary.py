"""`Result.summary`: coefficients with their errors, and the fit's statistics."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from paramserver.errors import InvalidInput
from paramserver.inference import Inference, chosen, combinations
from paramserver.messages import Array
from paramserver.views import Result

SHOWN = 12  #: coefficients named in one note
UNSURE = 0.1  #: certified distance to the optimum, in standard errors, above which a summary says so


@dataclass(frozen=True)
class Summary:
    """A table of q coefficients, the intercept last, and the fit's statistics.

    Attributes
    ----------
    names : (q,) of str
    coef, std_err, z, p_value, low, high : (q,)
        z = coef/std_err and its two-sided p by the normal distribution; low and high bound the
        interval of confidence ``level``. nan where the data do not determine a coefficient.
    covariance_matrix : (q, q)
    covariance, information, weights : str
        How the errors were made, as asked for.
    dispersion : float
        φ: 1 (binomial, Poisson), Pearson's statistic over ``df_resid`` otherwise, or as asked for.
    deviance, null_deviance : float
        2·Σ weight·loss, here and for the model without coefficients (the offset included; the
        intercept where the fit has one); nan where the losses belong to no distribution.
    pearson_chi2, log_likelihood, aic : float
        The likelihood at the estimated dispersion (Gaussian: at its own maximum);
        aic = −2·log_likelihood + 2·rank.
    df_model, df_resid, n : float
        Rank of the information, less one for an intercept; n less the rank; Σ weight where weights
        are frequencies, else the rows that have one.
    notes : tuple of str
    """

    names: tuple[str, ...]
    coef: Array
    std_err: Array
    z: Array
    p_value: Array
    low: Array
    high: Array
    covariance_matrix: Array
    family: str
    covariance: str
    information: str
    weights: str
    level: float
    dispersion: float
    deviance: float
    null_deviance: float
    pearson_chi2: float
    log_likelihood: float
    aic: float
    df_model: float
    df_resid: float
    n: float
    notes: tuple[str, ...] = ()

    def to_frame(self) -> Any:
        """The table as a pandas DataFrame, names as its index."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS}, index=list(self.names))

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__


COLUMNS = ("coef", "std_err", "z", "p_value", "low", "high")
SCALARS = tuple(field.name for field in fields(Summary) if field.type == "float" and field.name != "level")


def summarise(
    result: Result,
    covariance: str | None,
    information: str | None,
    weights: str,
    dispersion: float | None,
    level: float,
    reference: int | None,
) -> Summary:
    """See `Result.summary`."""
    if result.inference is None:
        raise InvalidInput(f"this result has no standard errors: {result.no_inference}")
    if not 0 < level < 1:
        raise InvalidInput(f"level must lie between 0 and 1, got {level!r}")
    if dispersion is not None and not dispersion > 0:
        raise InvalidInput(f"dispersion must be > 0, got {dispersion!r}")
    inference = result.inference
    how = chosen(inference, covariance, information, weights)
    names, combine = combinations(inference, result.feature_names, reference)
    found = inference.covariance(combine, *how)
    statistics = _statistics(inference, how[2], found.rank, dispersion)
    phi = statistics["dispersion"]
    matrix = found.matrix * phi if how[0] == "model" else found.matrix
    coef, error = combine @ result.z, np.sqrt(np.diag(matrix))
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect fit has errors of zero
        ratio = coef / error
    width = error * float(ndtri(0.5 + level / 2))
    notes = _notes(result, [name for name, good in zip(names, found.estimable, strict=True) if not good], statistics)
    table = (names, coef, error, ratio, 2 * ndtr(-np.abs(ratio)), coef - width, coef + width, matrix)
    return Summary(*table, inference.family, *how, level, **statistics, notes=notes)  # type: ignore[arg-type]


def _statistics(inference: Inference, weights: str, rank: int, given: float | None) -> dict[str, float]:
    n = inference.size(weights)
    df = n - rank
    phi = inference.dispersion
    if phi is None:
        phi = float("nan")
    elif np.isnan(phi):
        phi = inference.pearson / df if df > 0 else float("nan")
    twice = 2.0 if inference.dispersion is not None else float("nan")
    likelihood = inference.log_likelihood[weights == "precision"]
    return {
        "dispersion": phi if given is None else float(given),
        "deviance": twice * inference.loss,
        "null_deviance": twice * inference.null_loss,
        "pearson_chi2": inference.pearson,
        "log_likelihood": likelihood,
        "aic": -2 * likelihood + 2 * rank,
        "df_model": float(rank - inference.intercept * max(inference.margins - 1, 1)),
        "df_resid": float(df),
        "n": n,
    }


def _notes(result: Result, lost: list[str], statistics: dict[str, float]) -> tuple[str, ...]:
    notes = []
    if result.reason == "separation":
        notes.append(
            "no finite optimum (separation): coefficients that the run's notes name, and their errors, mean nothing"
        )
    if lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        shown = ", ".join(lost[:SHOWN]) + more
        notes.append(f"the data do not determine {shown}: dependent on other columns, or without effect")
    if not statistics["df_resid"] > 0:
        notes.append(f"{statistics['n']:g} observations leave no degrees of freedom for errors")
    phi = statistics["dispersion"]
    far = result.standard_errors / np.sqrt(phi) if phi > 0 else result.standard_errors
    if not far <= UNSURE:
        notes.append(f"the coefficients may be {far:.2g} standard errors from the optimum: fit to a smaller tol")
    return tuple(notes)


def _text(s: Summary) -> str:
    width = max(9, *(len(name) for name in s.names))
    head = ("coef", "std err", "z", "P>|z|", f"[{0.5 - s.level / 2:.4g}", f"{0.5 + s.level / 2:.4g}]")
    lines = [
        f"{s.family}: n = {s.n:g}, {s.covariance} covariance, {s.information} information, weights as {s.weights}",
        " " * width + "".join(f"{name:>12}" for name in head),
    ]
    for name, *row in zip(s.names, *(getattr(s, column) for column in COLUMNS), strict=True):
        cells = [f"{value:>12.3f}" if column in ("z", "p_value") else f"{value:>12.5g}" for column, value in
                 zip(COLUMNS, row, strict=True)]  # fmt: skip
        lines.append(f"{name:<{width}}" + "".join(cells))
    pairs = [(name.replace("_", " "), getattr(s, name)) for name in SCALARS if name != "n"]
    for i in range(0, len(pairs), 2):
        lines.append("   ".join(f"{name:<15}{value:>14.8g}" for name, value in pairs[i : i + 2]))
    return "\n".join([*lines, *(f"note: {note}" for note in s.notes)])
