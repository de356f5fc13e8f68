"""A fit on a real cluster ends with its standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

import paramserver as ps
from cluster.helpers import make_data
from paramserver.errors import InvalidInput


def test_a_launched_run_has_a_summary(client: Any) -> None:
    X, y = make_data(kind="logistic")
    weight = np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    run = ps.launch(ps.Logistic(), X, y, sample_weight=weight, tol=1e-16, client=client, chunks=6, name="inferred")
    print(run.result().summary())
    theirs = sm.GLM(y, sm.add_constant(X, prepend=False), family=sm.families.Binomial(), freq_weights=weight)
    expected = theirs.fit(tol=1e-14)
    summary = ps.connect("inferred", client).result().summary()
    np.testing.assert_allclose(summary.std_err, expected.bse, rtol=1e-6)
    np.testing.assert_allclose(summary.p_value, expected.pvalues, rtol=1e-4, atol=1e-300)
    assert summary.aic == pytest.approx(expected.aic)


def test_asked_for_in_vain(client: Any) -> None:
    X, y = make_data(kind="squares")
    with pytest.raises(InvalidInput, match="penalised fit does not define standard errors"):
        ps.launch(ps.LeastSquares(), X, y, penalty=ps.L2(1.0), inference=True, client=client)
    result = ps.fit(ps.LeastSquares(), X, y, inference=False, client=client, chunks=4)
    with pytest.raises(InvalidInput, match="pass True"):
        result.summary()
