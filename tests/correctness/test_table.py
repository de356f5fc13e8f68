"""Every problem × penalty × storage, and × weights or offset: the optimum, and a certificate that holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from correctness.cases import EXTRAS, FAMILIES, OF_CLASSES, PENALTIES, STORAGES, Case, case
from paramserver.server import hessians
from paramserver.simulator import Network, simulate

TOL = 1e-8
SLACK = 1e-13  #: of F(null model): what rounding may do to the sums behind a certificate
CUTS = [range(40), range(40, 140), range(140, 290), range(290, 300)]

#: Each storage with an extra of its own; the plain dense matrix with all of them.
CELLS = [
    pytest.param(family, penalty, storage, extra, id=f"{family}, {penalty}, {storage}, {extra}")
    for family in FAMILIES
    for penalty in PENALTIES
    for storage, extra in [("dense", extra) for extra in EXTRAS] + [("float32", "weight"), ("csr", "offset")]
]


def fit(made: Case, storage: str = "dense", tol: float = TOL) -> Any:
    return simulated(made, storage, tol).result


def simulated(made: Case, storage: str = "dense", tol: float = TOL) -> Any:
    return simulate(
        made.problem, STORAGES[storage](made.X), made.y, **made.extras, penalty=made.penalty,
        chunks=[np.asarray(cut) for cut in CUTS], network=Network(speeds=(1.0, 1.0)), tol=tol,
    )  # fmt: skip


def check(made: Case, result: Any, tol: float, within: float = 10) -> None:
    null = float(made.null)
    gap = made.gap(result.z)
    assert result.converged, result
    assert result.certificate == "duality gap"
    assert -1e-16 * null <= gap <= tol * null
    assert result.gap <= tol
    assert gap <= result.gap_absolute + SLACK * null
    assert result.gap_absolute <= within * gap + SLACK * null
    assert result.gap_absolute == pytest.approx(result.gap * null, rel=1e-9)
    assert result.objective == pytest.approx(float(made.model.value(result.z)), rel=1e-12)


@pytest.mark.parametrize(("family", "penalty", "storage", "extra"), CELLS)
def test_the_optimum_is_reached_and_certified(family: str, penalty: str, storage: str, extra: str) -> None:
    made = case(family, penalty, extra)
    check(made, fit(made, storage), TOL)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_certificate_well_above_rounding_holds_too(family: str, penalty: str) -> None:
    """So far from the optimum it may be less close: half a step further on than the dual it comes from."""
    made = case(family, penalty, "plain")
    check(made, fit(made, tol=1e-4), 1e-4, within=1e3)


BENDING = [family for family in FAMILIES if FAMILIES[family].problem.bending]


@pytest.mark.parametrize(("penalty", "extra"), [(p, EXTRAS[k % 3]) for k, p in enumerate(PENALTIES)])
@pytest.mark.parametrize("family", BENDING)
@pytest.mark.parametrize("tol", [1e-8, 1e-12])
def test_hessians_that_were_kept_certify_too(
    family: str, penalty: str, extra: str, tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for many columns, where no verification near by makes a Hessian again."""
    made = case(family, penalty, extra)
    own = simulated(made, tol=tol)
    monkeypatch.setattr(hessians, "WORTH", 1)
    kept = simulated(made, tol=tol)
    check(made, kept.result, tol)
    assert kept.hessians < own.hessians


@pytest.mark.parametrize("penalty", sorted(set(PENALTIES) - {"none", "l2"}))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_penalties_bind(family: str, penalty: str) -> None:
    """Some coefficients at zero or a bound and some not, or the table says little."""
    bound = [case(family, penalty, extra) for extra in EXTRAS]
    held = [int(made.model.bound.held(made.z).sum()) for made in bound]
    assert max(held) > 0
    assert all(count < made.model.width for count, made in zip(held, bound, strict=True))


def test_the_table_has_every_cell_it_should() -> None:
    assert len(CELLS) == len(FAMILIES) * len(PENALTIES) * 5
    assert set(OF_CLASSES) <= set(PENALTIES)
