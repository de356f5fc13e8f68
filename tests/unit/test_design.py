"""Every storage of a design matrix gives what the float64 dense formula gives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.errors import BadData
from paramserver.workers.design import Dense, Design, Sparse, Table, as_design
from paramserver.workers.design import dense as dense_room
from paramserver.workers.design import sparse as sparse_room
from paramserver.workers.design import table as table_room

Pair = tuple[Design, np.ndarray]
SHAPES = [(0, 3), (1, 3), (7, 1), (5, 9), (40, 6), (700, 12)]


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def dense(n: int, d: int, dtype: str = "float64", order: str = "C") -> Pair:
    X = np.random.default_rng(n + d).normal(size=(n, d)).astype(dtype)
    X[:, d // 2] = 0.0
    return as_design(frozen(np.asarray(X, order=order))), X.astype(float)  # type: ignore[call-overload]


def fortran(n: int, d: int) -> Pair:
    return dense(n, d, order="F")


def single(n: int, d: int) -> Pair:
    return dense(n, d, "float32")


def sparse(n: int, d: int, density: float = 0.3, dtype: str = "float64") -> Pair:
    rng = np.random.default_rng(n * d)
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < density)
    X[:, d // 2] = 0.0
    X[:, 0] = 1.0 + rng.random(n)  # stored in full
    csr = sp.csr_matrix(X.astype(dtype))
    for array in (csr.data, csr.indices, csr.indptr):
        frozen(array)
    return as_design(csr), X.astype(dtype).astype(float)


def thin(n: int, d: int) -> Pair:
    return sparse(n, d, density=0.02)


def full(n: int, d: int) -> Pair:
    return sparse(n, d, density=1.0)


def sparse_single(n: int, d: int) -> Pair:
    return sparse(n, d, dtype="float32")


def messy(n: int, d: int) -> Pair:
    """Explicit zeros, unsorted indices and duplicates, in read-only arrays."""
    rng = np.random.default_rng(n * d)
    count = 3 * n
    indices = rng.integers(0, d, count).astype(np.int32)
    data = rng.normal(size=count)
    data[::4] = 0.0
    csr = sp.csr_array((frozen(data), frozen(indices), frozen(np.arange(0, count + 1, 3, dtype=np.int32))), (n, d))
    X = np.zeros((n, d))
    np.add.at(X, (np.repeat(np.arange(n), 3), indices), data)
    return as_design(csr), X


def expanded(numeric: np.ndarray, codes: np.ndarray, levels: list[int], order: np.ndarray) -> np.ndarray:
    ones = [np.eye(count)[codes[:, c]] for c, count in enumerate(levels)]
    return np.hstack([numeric.astype(float), *ones])[:, order]


def table(n: int, d: int, dtype: str = "float64") -> Pair:
    rng = np.random.default_rng(n + d)
    numeric = rng.normal(size=(n, d)).astype(dtype)
    levels = [4, 1, d]
    codes = np.stack([rng.integers(0, max(count - 1, 1), n) for count in levels], axis=1).astype(np.int16)
    order = rng.permutation(d + sum(levels))
    return Table(frozen(numeric), frozen(codes), levels, order), expanded(numeric, codes, levels, order)


def codes_only(n: int, d: int) -> Pair:
    codes = np.random.default_rng(n).integers(0, d, (n, 1)).astype(np.uint64)
    return Table(np.zeros((n, 0)), frozen(codes), [d]), np.eye(d)[codes[:, 0]]


def numbers_only(n: int, d: int) -> Pair:
    X = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    return Table(frozen(X), np.zeros((n, 0), int), []), X.astype(float)


MAKERS = [dense, fortran, single, sparse, thin, full, sparse_single, messy, table, codes_only, numbers_only]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[int, int], Pair]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[False, True], ids=["whole", "pieces"])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with blocks so small that there are several."""
    if request.param:
        monkeypatch.setattr(dense_room, "BLOCK_BYTES", 1)
        monkeypatch.setattr(sparse_room, "PIECE", 16)
        monkeypatch.setattr(sparse_room, "PER_COLUMN", 1)
        monkeypatch.setattr(table_room, "PIECE", 16)


def weights(n: int) -> np.ndarray:
    weight = np.random.default_rng(n).uniform(0.0, 3.0, n)
    weight[1::5] = 0.0
    return weight


def near(got: Any, want: Any) -> None:
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def check(design: Design, X: np.ndarray) -> None:
    """Every method against its formula."""
    n, d = X.shape
    assert design.shape == (n, d)
    rng = np.random.default_rng(1)
    weight = weights(n)
    W, V = rng.normal(size=(d, 2)), rng.normal(size=(n, 2))
    seen = 0
    for rows, block in design.blocks():
        assert rows.start == seen
        seen = rows.stop
        near(block.dot(W[:, 0]), X[rows] @ W[:, 0])
        near(block.dot(W), X[rows] @ W)
        near(block.tdot(V[rows, 0]), X[rows].T @ V[rows, 0])
        near(block.tdot(V[rows]), X[rows].T @ V[rows])
    assert seen == n
    G = X.T @ (weight[:, None] * X)
    gram = design.gram(weight)
    near(gram, G)
    assert (gram == gram.T).all()
    near(design.sums(weight), X.T @ weight)
    for one, both in zip((gram, design.sums(weight)), design.gram_and_sums(weight), strict=True):
        near(one, both)
    for columns in (np.arange(d)[::-2], np.array([d - 1, 0, d - 1]), np.zeros(0, int)):
        near(design.gram_of(columns, weight), G[np.ix_(columns, columns)])
    near(design.squares(weight), weight @ (X * X))
    check_columns(design, X, weight)


def check_columns(design: Design, X: np.ndarray, weight: np.ndarray) -> None:
    low, high = design.extent()
    near(low, X.min(axis=0, initial=np.inf))
    near(high, X.max(axis=0, initial=-np.inf))
    mean, m2 = design.moments(weight)
    total = weight.sum()
    want = weight @ X / total if total else np.zeros(X.shape[1])
    near(mean, want)
    near(m2, weight @ (X - want) ** 2)
    for column in design.moments(np.zeros(len(X))):
        assert (column == 0).all()
        assert column.shape == (X.shape[1],)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("shape", SHAPES)
def test_every_method_is_its_dense_formula(make: Callable[[int, int], Pair], shape: tuple[int, int]) -> None:
    design, X = make(*shape)
    check(design, X)


def test_a_design_travels(make: Callable[[int, int], Pair]) -> None:
    design, X = make(40, 6)
    back = pickle.loads(pickle.dumps(design))
    check(back, X)
    assert back.nbytes == design.nbytes > 0
    assert back.__sizeof__() > design.nbytes  # Dask asks so


@pytest.mark.parametrize("rows", [slice(3, 30), slice(0, 0), slice(35, 60), slice(None)], ids=str)
def test_some_rows_are_a_design(make: Callable[[int, int], Pair], rows: slice) -> None:
    design, X = make(40, 6)
    check(design.take(rows), X[rows])
    assert design.take(rows).nbytes <= design.nbytes + 8


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (40, 6)])
def test_shifted_columns(make: Callable[[int, int], Pair], shape: tuple[int, int]) -> None:
    design, X = make(*shape)
    shift = np.where((X != 0).all(axis=0), 0.75, 0.0)
    if isinstance(design, Table):
        shift[design.place[design.numeric.shape[1] :]] = 0.0
    moved = design.shifted(shift)
    check(moved, X - shift)
    check(moved.shifted(-2 * shift), X + shift)
    check(moved.take(slice(0, 3)), (X - shift)[:3])
    check(pickle.loads(pickle.dumps(moved)), X - shift)
    check(design, X)


@pytest.mark.parametrize("make", [sparse, messy], ids=lambda make: make.__name__)
def test_a_shift_that_would_fill_zeros_is_refused(make: Callable[[int, int], Pair]) -> None:
    design, X = make(40, 6)
    shift = np.zeros(6)
    shift[3] = 1.0
    assert (X[:, 3] == 0).any()
    with pytest.raises(ValueError, match="column 3 has zeros that are not stored"):
        design.shifted(shift)


def test_a_categorical_column_cannot_be_shifted() -> None:
    codes = np.array([[0], [1]])
    with pytest.raises(ValueError, match="column 1 is a level"):
        Table(np.ones((2, 1)), codes, [2], [1, 2, 0]).shifted(np.array([0.0, 1.0, 5.0]))


FAR = 1.5e9


def far(n: int, d: int) -> np.ndarray:
    X = np.random.default_rng(3).normal(size=(n, d))
    X[:, 0] += FAR
    X[:, 1] = 0.1
    X[:, 2] *= 1e8
    X[:, 3] = np.where(np.arange(n) % 2, FAR, -1.0)
    return X


@pytest.mark.parametrize(
    "build",
    [as_design, lambda X: as_design(sp.csr_matrix(X)), lambda X: Table(X, np.zeros((len(X), 1), int), [1])],
    ids=["dense", "sparse", "table"],
)
def test_moments_keep_their_digits(build: Callable[[np.ndarray], Design]) -> None:
    X, weight = far(2000, 5), weights(2000)
    mean, m2 = build(X).moments(weight)
    exact = X[:, 0] - FAR
    at = weight @ exact / weight.sum()
    assert abs(mean[0] - FAR - at) < 5e-7  # one place of 1.5e9 is 2.4e-7
    np.testing.assert_allclose(m2[0], weight @ (exact - at) ** 2, rtol=1e-9)
    assert mean[1] == 0.1
    assert m2[1] == 0.0
    big = weight @ X / weight.sum()
    np.testing.assert_allclose(m2[2:5], (weight @ (X - big) ** 2)[2:5], rtol=1e-9)


def test_the_shift_comes_before_every_product() -> None:
    X, weight = far(500, 5), weights(500)
    shift = np.array([FAR, 0, 0, 0, 0])
    small = X - shift
    for design in (as_design(X), as_design(sp.csr_array(X)), Table(X, np.zeros((500, 0), int), [])):
        moved = design.shifted(shift)
        np.testing.assert_allclose(moved.gram(weight), small.T @ (weight[:, None] * small), rtol=1e-10)
        np.testing.assert_allclose(moved.squares(weight), weight @ small**2, rtol=1e-12)


def test_zero_weight_rows_leave_a_sparse_column_full() -> None:
    """A row of no weight that lacks an entry of 1.5e9 adds no rounding error times 1.5e9²."""
    X = np.array([[FAR], [FAR + 1], [0.0], [FAR + 2]] * 50)
    weight = np.where(X[:, 0] > 0, 0.1, 0.0)
    mean, m2 = as_design(sp.csr_matrix(X)).moments(weight)
    np.testing.assert_allclose(mean, FAR + 1, rtol=1e-15)
    np.testing.assert_allclose(m2, 0.1 * 100, rtol=1e-9)


def test_float32_sums_are_float64() -> None:
    X = np.full((200_000, 2), np.float32(0.1))
    X[:, 1] = 1e4
    want = 200_000 * float(np.float32(0.1)) ** 2
    for design in (as_design(X), as_design(sp.csr_matrix(X)), Table(X, np.zeros((len(X), 0), int), [])):
        assert design.gram(np.ones(200_000))[0, 0] == pytest.approx(want, rel=1e-11)
        assert sum(b.tdot(np.ones(r.stop - r.start))[1] for r, b in design.blocks()) == 2e9


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "bool"])
def test_every_scipy_format(format: str, kind: str, dtype: str) -> None:
    X = np.arange(20).reshape(5, 4) % 3
    given = getattr(sp, f"{format}_{kind}")(X.astype(dtype))
    before = given.copy()
    design = as_design(given)
    assert isinstance(design, Sparse)
    assert design.X.dtype == (dtype if dtype.startswith("float") else "float64")
    check(design, X.astype(dtype).astype(float))
    assert (given != before).nnz == 0


def test_a_users_matrix_is_not_touched() -> None:
    csr = sp.csr_matrix((np.ones(4), np.array([2, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 3))
    flags = dict(vars(csr))
    as_design(csr)
    assert csr.indices.tolist() == [2, 0, 1, 1]
    assert vars(csr).keys() == flags.keys()
    wrong = sp.csr_matrix((np.ones(4), np.array([2, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 3))
    wrong.has_sorted_indices = wrong.has_canonical_format = True  # a flag that lies
    check(as_design(wrong), np.array([[1.0, 0, 1], [0, 2, 0]]))


def test_what_is_at_hand_is_not_copied() -> None:
    X = np.ones((4, 3))
    assert np.shares_memory(as_design(X).X, X)  # type: ignore[attr-defined]
    csr = sp.csr_matrix(X)
    assert np.shares_memory(as_design(csr).X.data, csr.data)  # type: ignore[attr-defined]
    design = Dense(X)
    assert as_design(design) is design


@pytest.mark.parametrize("X", [np.arange(4), [1, 2, 3, 4], np.arange(4.0)[:, None], [[1], [2], [3], [4]]])
def test_a_vector_is_a_column(X: Any) -> None:
    check(as_design(X), np.asarray(X, float).reshape(4, 1))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ("text", "dtype"),
        (None, "dtype object"),
        (object(), "dtype object"),
        (np.array([["a", "b"]]), "encode it first"),
        (np.array([[1 + 2j]]), "dtype complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "dtype datetime64"),
        (sp.csr_matrix(np.array([[1j]])), "dtype complex128"),
        (3.0, r"shape \(\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ([[1, 2], [3]], "array"),
    ],
    ids=lambda v: repr(v).split(" at 0x")[0],
)
def test_what_is_no_design_is_refused_in_words(X: Any, words: str) -> None:
    with pytest.raises(BadData, match=words):
        as_design(X)


@pytest.mark.parametrize(
    ("codes", "order", "words"),
    [
        ([[0], [2]], None, "row 1 has code 2 in categorical column 0, which has 2 levels"),
        ([[0], [-1]], None, "row 1 has code -1"),
        ([[0.0], [1.0]], None, "whole numbers"),
        ([[0]], None, "codes have shape"),
        ([[0, 0], [0, 0]], None, "codes have shape"),
        ([[0], [1]], [0, 1, 1], "order must hold"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(codes: Any, order: Any, words: str) -> None:
    with pytest.raises(BadData, match=words):
        Table(np.zeros((2, 1)), np.array(codes), [2], order)


def test_the_cheaper_gram_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    densified: list[Any] = []
    real = sparse_room._densified
    monkeypatch.setattr(sparse_room, "_densified", lambda S: densified.append(S) or real(S))
    thin(700, 50)[0].gram(np.ones(700))
    assert not densified
    full(700, 50)[0].gram(np.ones(700))
    assert densified


@st.composite
def cases(draw: st.DrawFn) -> Pair:
    n, d = draw(st.integers(0, 12)), draw(st.integers(1, 5))
    values = st.sampled_from([0.0, 0.0, 1.0, -2.5, 1e6, 1e-6])
    X = np.array(draw(st.lists(values, min_size=n * d, max_size=n * d))).reshape(n, d)
    kind = draw(st.sampled_from(["dense", "csr", "coo", "table"]))
    if kind == "table":
        levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        codes = np.array([[draw(st.integers(0, m - 1)) for m in levels] for _ in range(n)], int).reshape(n, len(levels))
        order = np.array(draw(st.permutations(range(d + sum(levels)))))
        return Table(X, codes, levels, order), expanded(X, codes, levels, order)
    return as_design(X if kind == "dense" else getattr(sp, f"{kind}_array")(X)), X


@settings(max_examples=150, deadline=None)
@given(cases())
def test_any_small_matrix(case: Pair) -> None:
    design, X = case
    n, d = X.shape
    weight = weights(n)
    for got, want in [
        (design.gram(weight), X.T @ (weight[:, None] * X)),
        (design.squares(weight), weight @ (X * X)),
        (sum((b.tdot(weight[r]) for r, b in design.blocks()), np.zeros(d)), X.T @ weight),
    ]:
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(want).max(initial=0.0)))
    low, high = design.extent()
    np.testing.assert_array_equal(low, X.min(axis=0, initial=np.inf))
    np.testing.assert_array_equal(high, X.max(axis=0, initial=-np.inf))
    mean, m2 = design.moments(weight)
    assert (m2 >= 0).all()
    if weight.sum():
        want = weight @ X / weight.sum()
        np.testing.assert_allclose(mean, want, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(m2, weight @ (X - want) ** 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("columns", [[4, 0, 2], [4, 2, 4], []], ids=str)
def test_products_with_few_coefficients_after_some_columns_were_chosen(columns: list[int]) -> None:
    design, X = sparse(50, 6)
    design.gram_of(np.array(columns, int), np.ones(50))
    for on in ([], [2], [0, 4], [0, 5], [0, 1, 2, 3, 4, 5]):
        w = np.zeros(6)
        w[on] = 1.0 + np.arange(len(on))
        ((_, block),) = design.blocks()
        near(block.dot(w), X @ w)
