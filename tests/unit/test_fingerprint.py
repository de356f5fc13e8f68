"""What tells a chunk from another, how large it is, and which value in it cannot be fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from paramserver.errors import BadData
from paramserver.workers.cache import Loaded
from paramserver.workers.design import Table, as_design
from paramserver.workers.fingerprint import fingerprint, nbytes

X = np.random.default_rng(0).normal(size=(300, 4)) * (np.random.default_rng(1).random((300, 4)) < 0.5)
CODES = np.random.default_rng(2).integers(0, 3, (300, 2)).astype(np.uint8)
KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "dense": np.asarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sp.csr_matrix,
    "csr array": sp.csr_array,
    "coo": sp.coo_array,
    "table": lambda X: Table(X, CODES, [3, 3]),
    "design": as_design,
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_have_another_fingerprint(kind: str) -> None:
    make = KINDS[kind]
    here = fingerprint((make(X), None, X[:, 0]))
    assert here == fingerprint((make(X.copy()), None, X[:, 0].copy()))
    moved = X.copy()
    moved[7, 2] += 0.5
    for other in (make(moved), make(X[::-1]), make(X[:, ::-1])):
        apart = fingerprint((other, None, X[:, 0]))
        assert apart is not None
        assert not np.allclose(here, apart, rtol=1e-9)


def test_other_codes_have_another_fingerprint() -> None:
    assert fingerprint((Table(X, CODES, [3, 3]),)) != fingerprint((Table(X, (CODES + 1) % 3, [3, 3]),))


def test_storage_makes_no_difference() -> None:
    np.testing.assert_allclose(fingerprint((X,)), fingerprint((sp.csr_matrix(X),)), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_values_are_found(kind: str, value: float) -> None:
    bad = X.copy()
    bad[123, 2] = value
    bad[200, 0] = np.nan
    with pytest.raises(BadData, match=f"{value} in row 123, column 2: impute"):
        fingerprint((KINDS[kind](bad), X[:, 0]))


@pytest.mark.parametrize(
    ("place", "words"),
    [(1, "nan in row 5 of y"), (2, "nan in row 5 of sample_weight"), (3, "nan in row 5 of the offset.*exposure")],
)
def test_the_part_is_named(place: int, words: str) -> None:
    parts: list[Any] = [X, None, None, None]
    parts[place] = np.where(np.arange(300) == 5, np.nan, 1.0)
    with pytest.raises(BadData, match=words):
        fingerprint(tuple(parts))


def test_what_is_not_ours_has_none() -> None:
    assert fingerprint((object(), X)) is None
    assert fingerprint((np.array(["a"]), X)) is None
    assert fingerprint((np.full((2, 2), 1e308),)) is not None  # the projection overflows, the values are finite


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_bytes_of_sparse_parts(format: str, kind: str) -> None:
    few = np.where(np.arange(60)[:, None] == np.arange(4), X[:60], 0.0)
    made = getattr(sp, f"{format}_{kind}")(few)
    assert 8 * made.nnz < nbytes(made) < 10 * few.nbytes


def test_bytes_of_the_others() -> None:
    table = KINDS["table"](X)
    assert nbytes(X) == X.nbytes
    assert nbytes(None) == 0
    assert nbytes(table) == X.nbytes + CODES.nbytes
    assert Loaded((X, None, (X, table)), None, None).nbytes == 3 * X.nbytes + CODES.nbytes
