"""The eleventh of tests/correctness/test_wrong_answers.py: CSR chunks, unknown chunk sizes and frames are data too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from correctness.test_wrong_answers import data
from sklearn.linear_model import LogisticRegression

import paramserver as ps


def _frame(X: np.ndarray, y: np.ndarray) -> Any:
    return pd.DataFrame(X, columns=list("abcdef")).assign(y=y)


def _unknown(X: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """A selection: Dask cannot tell how many rows each chunk has."""
    lazy, target = da.from_array(X, chunks=(1000, 6)), da.from_array(y, chunks=1000)
    some = target >= 0
    return lazy[some], target[some]


def _partitions(X: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    frame = dd.from_pandas(_frame(X, y), npartitions=4)
    return frame.drop(columns="y"), frame["y"]


def _blocks(X: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return da.from_array(X, chunks=(1000, 6)).map_blocks(sp.csr_matrix), da.from_array(y, chunks=1000)


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]] = {
    "arrays": lambda X, y: (X, y),
    "csr chunks": _blocks,
    "csr in memory": lambda X, y: (sp.csr_matrix(X), y),
    "unknown chunk sizes": _unknown,
    "frame": lambda X, y: (_frame(X, y).drop(columns="y"), pd.Series(y)),
    "dask frame": _partitions,
    "labels −1/1": lambda X, y: (X, 2 * y - 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_11_all_of_these_are_data(client: Any, kind: str) -> None:
    X, targets = data()
    y = targets["logistic"]
    peer = LogisticRegression(C=1 / 30, solver="newton-cholesky", tol=1e-12).fit(X, y)
    result = ps.fit(ps.Logistic(), *KINDS[kind](X, y), penalty=ps.L2(30.0), tol=1e-13, client=client)
    assert result.converged
    np.testing.assert_allclose(result.coef_, peer.coef_[0], atol=1e-6)
    assert result.intercept_ == pytest.approx(float(peer.intercept_[0]), abs=1e-5)
    if "frame" in kind:
        assert tuple(result.named()) == tuple("abcdef")
