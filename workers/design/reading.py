"""What may be a chunk's X → a design."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from paramserver.errors import BadData
from paramserver.workers.design.base import Design
from paramserver.workers.design.dense import Dense
from paramserver.workers.design.sparse import Sparse

NUMBERS = "fiub"  #: kinds of dtype


def as_design(X: Any) -> Design:
    """An array, a scipy sparse matrix or array of any format, or a design as it is.

    Parameters
    ----------
    X : array_like (n, d) or (n,), sparse (n, d), or Design
        float32 and float64 stay what they are, ints and bools become float64. Never modified.

    Raises
    ------
    BadData
        It is none of these, or not of numbers.
    """
    if isinstance(X, Design):
        return X
    if issparse(X):
        return _from_sparse(X)
    try:
        array = np.asarray(X)
    except ValueError as error:  # rows of different lengths
        raise BadData(f"X must be an array (rows, columns) of numbers: {error}") from None
    _check(array.dtype, array.shape)
    return Dense(array[:, None] if array.ndim == 1 else array)


def _from_sparse(X: Any) -> Sparse:
    _check(X.dtype, X.shape)
    if len(X.shape) == 1:
        X = X.reshape(-1, 1)
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    own = csr_array(X)  # shares a CSR matrix's arrays, but not its flags: they are found out anew
    if not own.has_canonical_format:
        own = own.copy()
        own.sum_duplicates()
    return Sparse(own)


def _check(dtype: Any, shape: tuple[int, ...]) -> None:
    if dtype.kind not in NUMBERS:
        raise BadData(f"X must be numbers, got dtype {dtype}: encode it first")
    if len(shape) not in (1, 2):
        raise BadData(f"X must be (rows, columns), got shape {shape}: reshape it to two dimensions")
