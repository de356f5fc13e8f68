"""What `simulate` takes beside dense arrays; offsets and exposures at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from paramserver.errors import InvalidInput
from paramserver.penalties import L2
from paramserver.simulator import simulate
from paramserver.workers import at_hand
from paramserver.workers.design import Table
from paramserver.workers.problems import Logistic

N = 600
RNG = np.random.default_rng(8)
CODES = RNG.integers(0, 4, (N, 1))
NUMBERS = RNG.normal(size=(N, 2)) * (RNG.random((N, 2)) < 0.5)
X = np.hstack([NUMBERS, np.eye(4)[CODES[:, 0]]])
Y = (RNG.random(N) < 0.4).astype(float)
OFFSET = RNG.normal(size=N)
WEIGHT = RNG.uniform(0.5, 2.0, N)


def z_of(X: Any, **options: Any) -> Any:
    return simulate(Logistic(), X, Y, penalty=L2(1.0), chunks=5, tol=1e-18, **options).result.z


@pytest.mark.parametrize(
    "given",
    [sp.csr_matrix(X), sp.coo_array(X), sp.csc_matrix(X), X.tolist(), Table(NUMBERS, CODES, [4])],
    ids=["csr", "coo", "csc", "list", "table"],
)
def test_every_storage_simulates_alike(given: Any) -> None:
    for beside in ({}, {"offset": OFFSET}, {"offset": OFFSET, "sample_weight": WEIGHT}):
        np.testing.assert_allclose(z_of(given, **beside), z_of(X, **beside), rtol=1e-8, atol=1e-8)


def test_an_exposure_is_the_log_of_an_offset() -> None:
    np.testing.assert_allclose(z_of(X, exposure=np.exp(OFFSET)), z_of(X, offset=OFFSET), rtol=1e-8, atol=1e-8)
    assert abs(z_of(X, offset=OFFSET) - z_of(X)).max() > 0.01


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"offset": OFFSET, "exposure": OFFSET}, "not both"),
        ({"offset": OFFSET[:-1]}, "differ in length"),
        ({"offset": np.where(np.arange(N) == 4, np.inf, 0.0)}, "offset must be finite, got inf in row 4"),
        ({"exposure": np.where(np.arange(N) == 4, -2.0, 1.0)}, "exposure must be finite and > 0, got -2.0 in row 4"),
        ({"exposure": np.where(np.arange(N) == 4, np.nan, 1.0)}, "got nan in row 4"),
        ({"exposure": ["a"] * N}, "exposure must be numbers"),
    ],
    ids=str,
)
def test_what_cannot_be_an_offset_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        z_of(X, **given)


def test_a_lazy_exposure_is_quiet_until_it_is_read() -> None:
    np.testing.assert_array_equal(at_hand.log(np.array([1, 0, -1], np.int8)), [0.0, -np.inf, np.nan])
