"""Rules by name on a real cluster: exact ones end at the optimum, the others above their floor or say so."""

from __future__ import annotations

from typing import Any

import pytest

import paramserver as ps

from .helpers import make_data, reference

X, Y = make_data(4000, 6)


@pytest.mark.parametrize("rule", ["prox_gradient", ps.ADMM(rho=100.0, balance=True)], ids=str)
def test_exact_rules(client: Any, rule: Any) -> None:
    result = ps.fit(ps.Logistic(), X, Y, penalty=ps.L1(3.0), consensus=rule, tol=1e-8, chunks=4, client=client)
    assert result.reason == "converged"
    assert reference(ps.Logistic(), X, Y, ps.L1(3.0)).gap(result.z) <= min(result.gap, 1e-8) + 1e-13


@pytest.mark.parametrize(("rule", "near"), [("fedavg", 2e-4), ("easgd", 1e-3), ("sgd", 5e-3)])
def test_others_come_near_and_say_so(client: Any, rule: str, near: float) -> None:
    result = ps.fit(ps.Logistic(), X, Y, penalty=ps.L2(1.0), consensus=rule, tol=near, chunks=4, client=client)
    assert result.converged
    assert not any("not exact" in note for note in result.notes)
    assert reference(ps.Logistic(), X, Y, ps.L2(1.0)).gap(result.z) <= result.gap <= near

    run = ps.launch(
        ps.Logistic(), X, Y, penalty=ps.L2(1.0), consensus=rule, tol=1e-9, chunks=4, client=client, max_seconds=20.0
    )
    result = run.result(60)
    assert result.reason in ("stalled", "max_seconds")
    assert result.certificate == "duality gap"
    assert 1e-9 < result.gap < 10 * near
    assert any("is not exact" in note for note in result.notes)


def test_a_run_that_diverges_ends_with_the_best_there_was(client: Any) -> None:
    rule = ps.AsyncSGD(batch=16, rate=50.0)
    run = ps.launch(ps.Logistic(), X, Y, penalty=ps.L2(1.0), consensus=rule, chunks=4, client=client, max_seconds=30.0)
    result = run.result(60)
    assert result.reason == "diverged"
    assert not result.converged
    assert result.objective <= reference(ps.Logistic(), X, Y, ps.L2(1.0)).null * (1 + 1e-9)
    assert any(note.startswith("diverged") for note in result.notes)
