"""Sparse rows, tables of codes, offsets and exposures: the same answer as from dense arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import paramserver as ps
from paramserver import errors
from paramserver.workers.design import Table

N = 3_000
CUTS = list(itertools.pairwise([0, 700, 1500, 3000]))
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, 8)) * (RNG.random((N, 8)) < 0.2)
Y = (RNG.random(N) < 1 / (1 + np.exp(0.3 - X @ RNG.normal(size=8)))).astype(np.float64)
WEIGHT = RNG.uniform(0.0, 2.0, N)
OFFSET = RNG.normal(size=N)
PENALTY = ps.L2(1.0)
TOL = 1e-20  #: relative: of 2,000 in all, so that coefficients agree to 1e-9
CSR = sp.csr_matrix(X)


def fit(client: Any, *data: Any, **options: Any) -> Any:
    result = ps.fit(ps.Logistic(), *data, penalty=PENALTY, tol=TOL, client=client, **options)
    assert result.converged
    assert result.n_rows == N
    return result


def same(result: Any, exact: Any) -> None:
    np.testing.assert_allclose(result.z, exact.z, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def dense(_client: Any) -> Any:
    """The fit of the dense array."""
    return fit(_client, X, Y)


def in_chunks(values: Any, blocks: Any = None) -> Any:
    out = da.from_array(np.asarray(values), chunks=((700, 800, 1500), *(-1,) * (np.ndim(values) - 1)))
    return out if blocks is None else out.map_blocks(blocks)


def unknown(array: Any) -> Any:
    """The same array without its chunk sizes."""
    blocks = [da.from_delayed(b, (np.nan, *array.shape[1:]), array.dtype) for b in array.to_delayed().reshape(-1)]
    return da.concatenate(blocks)


def by_columns() -> Any:
    """Sparse blocks that are to be joined sideways."""
    return da.from_array(X, chunks=(1000, 3)).map_blocks(sp.csr_array)


SPARSE: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "csr matrix": lambda c: (CSR, Y),
    "csr array": lambda c: (sp.csr_array(X), Y),
    "csc": lambda c: (CSR.tocsc(), Y),
    "coo": lambda c: (CSR.tocoo(), Y),
    "dask of csr": lambda c: (in_chunks(X, sp.csr_matrix), in_chunks(Y)),
    "dask of csr arrays, y in memory": lambda c: (in_chunks(X, sp.csr_array), Y),
    "dask of csc": lambda c: (in_chunks(X, sp.csc_matrix), in_chunks(Y)),
    "dask of blocks of columns": lambda c: (by_columns(), Y),
    "unknown sizes": lambda c: (unknown(in_chunks(X, sp.csr_matrix)), unknown(in_chunks(Y))),
    "list": lambda c: ([CSR[a:b] for a, b in CUTS], [Y[a:b] for a, b in CUTS]),
    "pairs": lambda c: ([(CSR[a:b], Y[a:b]) for a, b in CUTS],),
    "futures": lambda c: ([c.scatter(CSR[a:b]) for a, b in CUTS], [c.scatter(Y[a:b]) for a, b in CUTS]),
    "delayed pairs": lambda c: ([dask.delayed((sp.csr_array(X[a:b]), Y[a:b])) for a, b in CUTS],),
}


@pytest.mark.parametrize("form", SPARSE)
def test_sparse_rows_in_every_form(client: Any, dense: Any, form: str) -> None:
    same(fit(client, *SPARSE[form](client)), dense)


def test_sparse_float32_and_whole_numbers(client: Any) -> None:
    whole = np.round(X * 4)
    exact = fit(client, whole, Y)
    for dtype in (np.float32, np.int8, np.int64):
        same(fit(client, sp.csr_matrix(whole.astype(dtype)), Y), exact)
        same(fit(client, in_chunks(whole.astype(dtype), sp.csr_array), Y), exact)


# -- offset, exposure, weights ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside(_client: Any) -> Any:
    """The dense fit with weights and an offset."""
    return fit(_client, X, Y, sample_weight=WEIGHT, offset=OFFSET)


BESIDE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "dask": lambda c: {"X": in_chunks(X), "sample_weight": in_chunks(WEIGHT), "offset": in_chunks(OFFSET)},
    "sparse": lambda c: {"X": CSR, "sample_weight": WEIGHT, "offset": OFFSET},
    "cut elsewhere": lambda c: {"X": in_chunks(X), "sample_weight": WEIGHT, "offset": in_chunks(OFFSET).rechunk(999)},
    "a column": lambda c: {"X": X, "sample_weight": WEIGHT, "offset": pd.Series(OFFSET).to_frame()},
    "exposure": lambda c: {"X": X, "sample_weight": WEIGHT, "exposure": np.exp(OFFSET)},
    "exposure, dask": lambda c: {"X": in_chunks(X), "sample_weight": WEIGHT, "exposure": in_chunks(np.exp(OFFSET))},
    "futures": lambda c: {
        "X": [c.scatter(X[a:b]) for a, b in CUTS],
        "y": [Y[a:b] for a, b in CUTS],
        "sample_weight": [c.scatter(WEIGHT[a:b]) for a, b in CUTS],
        "offset": [OFFSET[a:b] for a, b in CUTS],
    },
    "exposures of futures": lambda c: {
        "X": [CSR[a:b] for a, b in CUTS],
        "y": [Y[a:b] for a, b in CUTS],
        "sample_weight": [WEIGHT[a:b] for a, b in CUTS],
        "exposure": [c.scatter(np.exp(OFFSET[a:b])) for a, b in CUTS],
    },
    "tuples": lambda c: {"X": [(X[a:b], Y[a:b], WEIGHT[a:b], OFFSET[a:b]) for a, b in CUTS], "y": None},
}  # fmt: skip


@pytest.mark.parametrize("form", BESIDE)
def test_an_offset_in_every_form(client: Any, beside: Any, form: str) -> None:
    given = BESIDE[form](client)
    same(fit(client, given.pop("X"), given.pop("y", Y), **given), beside)


def test_an_offset_of_a_margin_a_class(client: Any) -> None:
    labels = np.arange(N) % 3
    offset = np.random.default_rng(7).normal(size=(N, 3))
    results = [
        ps.fit(ps.Multinomial(), data, labels, offset=beside, penalty=PENALTY, tol=1e-16, client=client)
        for data, beside in [(X, offset), (CSR, in_chunks(offset).rechunk((500, 2))), (in_chunks(X), in_chunks(offset))]
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result.z, results[0].z, rtol=1e-7, atol=1e-7)
    assert abs(results[0].z).max() > 0.01


@pytest.mark.parametrize("kind", ["memory", "dask", "futures", "tuples"])
def test_an_offset_without_weights(client: Any, kind: str) -> None:
    exact = fit(client, X, Y, offset=OFFSET, sample_weight=np.ones(N))
    plain = fit(client, X, Y)
    assert abs(exact.z - plain.z).max() > 0.01  # the offset counts
    if kind == "memory":
        result = fit(client, X, Y, offset=OFFSET)
    elif kind == "dask":
        result = fit(client, in_chunks(X), in_chunks(Y), offset=in_chunks(OFFSET))
    elif kind == "futures":
        parts = [[c[a:b] for a, b in CUTS] for c in (X, Y, OFFSET)]
        result = fit(client, client.scatter(parts[0]), parts[1], offset=parts[2])
    else:
        result = fit(client, [(X[a:b], client.scatter(Y[a:b]), None, OFFSET[a:b]) for a, b in CUTS])
    same(result, exact)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"offset": OFFSET, "exposure": np.exp(OFFSET)}, "not both"),
        ({"offset": OFFSET[:-1]}, "offset has 2999 rows where X has 3000"),
        ({"offset": da.from_array(OFFSET[:-1], chunks=999)}, "offset has 2999 rows"),
        ({"offset": np.where(np.arange(N) == 7, np.nan, OFFSET)}, "offset must be finite, got nan in row 7"),
        ({"exposure": np.where(np.arange(N) == 7, 0.0, 1.0)}, "exposure must be finite and > 0, got 0.0 in row 7"),
        ({"exposure": np.where(np.arange(N) == 7, np.inf, 1.0)}, "got inf in row 7"),
        ({"exposure": np.ones((N, 2))}, "exposure must be one column"),
        ({"offset": np.full(N, "a")}, "offset must be numbers"),
        ({"sample_weight": sp.csr_matrix(np.ones((N, 1)))}, "sample_weight must be a dense column"),
        ({"offset": 3.0}, "offset must be one column"),
    ],
    ids=str,
)
def test_what_cannot_be_an_offset_is_refused_at_once(client: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=words):
        ps.launch(ps.Logistic(), X, Y, client=client, **given)


def test_lists_that_do_not_fit_are_refused(client: Any) -> None:
    pairs = [(X[a:b], Y[a:b]) for a, b in CUTS]
    with pytest.raises(errors.InvalidInput, match="put each one's sample_weight and offset there"):
        ps.launch(ps.Logistic(), pairs, offset=[OFFSET[a:b] for a, b in CUTS], client=client)
    with pytest.raises(errors.InvalidInput, match="X is a list of 3 chunks beside lists of"):
        ps.launch(ps.Logistic(), [x for x, _ in pairs], [y for _, y in pairs], offset=[OFFSET], client=client)
    exposure = [np.where(np.arange(a, b) == 800, -1.0, 1.0) for a, b in CUTS]
    with pytest.raises(errors.InvalidInput, match="chunk 1: exposure must be finite and > 0, got -1"):
        ps.launch(ps.Logistic(), [x for x, _ in pairs], [y for _, y in pairs], exposure=exposure, client=client)


BAD = np.where(np.arange(N) == 707, -1.0, 1.0)


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        ((in_chunks(X), Y), {"exposure": in_chunks(BAD)}, "chunk 1: nan in row 7 of the offset: .* an exposure"),
        ((in_chunks(X), Y), {"offset": in_chunks(np.where(BAD < 0, np.inf, 1.0))}, "inf in row 7"),
        ((in_chunks(np.where(BAD[:, None] < 0, np.nan, X), sp.csr_array), Y), {}, "chunk 1: nan in row 7, column 0"),
        ((sp.csr_matrix(np.where(BAD[:, None] < 0, np.inf, 0.0)), Y), {}, "inf in row 707, column 0"),
        (([(X[a:b], Y[a:b], None, OFFSET[a:b][:-1]) for a, b in CUTS],), {}, "offset has shape"),
    ],
    ids=["exposure", "offset", "dask of csr", "csr", "shape"],
)
def test_bad_values_on_a_worker_name_the_row(client: Any, data: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.BadData, match=words):
        ps.fit(ps.Logistic(), *data, penalty=PENALTY, client=client, chunks=1, **given)


# -- categorical columns that are not expanded -----------------------------------------------------


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    town = pd.Categorical.from_codes(rng.integers(0, 5, N), list("abcde"))
    return pd.DataFrame({"x": X[:, 0], "town": town, "z": X[:, 1], "kind": rng.choice(["u", "v"], N), "y": Y})


@pytest.mark.parametrize("kind", ["pandas", "dask"])
def test_a_frame_that_is_not_expanded(client: Any, kind: str) -> None:
    data = frame() if kind == "pandas" else dd.from_pandas(frame(), npartitions=3)
    features, y = data[["x", "town", "z", "kind"]], data["y"]
    exact = fit(client, ps.datasets.encode(features), y)
    result = fit(client, ps.datasets.encode(features, expand=False), y)
    same(result, exact)
    assert result.feature_names == exact.feature_names
    assert result.feature_names[:3] == ("x", "town=a", "town=b")
    weighted = {"sample_weight": dd.from_pandas(pd.Series(WEIGHT), npartitions=3) if kind == "dask" else WEIGHT}
    same(
        fit(client, ps.datasets.encode(features, expand=False), y, **weighted),
        fit(client, ps.datasets.encode(features), y, **weighted),
    )


def test_futures_of_tables(client: Any) -> None:
    table = ps.datasets.encode(frame().drop(columns="y"), expand=False)
    assert isinstance(table, Table)
    chunks = [client.scatter(table.take(slice(a, b))) for a, b in CUTS]
    exact = fit(client, ps.datasets.encode(frame().drop(columns="y")), Y)
    same(fit(client, chunks, [Y[a:b] for a, b in CUTS]), exact)


def test_an_unseen_level_ends_the_run(client: Any) -> None:
    data = dd.from_pandas(frame(), npartitions=3)
    table = ps.datasets.encode(data[["x", "kind"]], categories={"kind": ["u"]}, expand=False)
    with pytest.raises(errors.RunFailed, match="column 'kind' has the level 'v', which is not among"):
        ps.fit(ps.Logistic(), table, data["y"], client=client)
