"""Every form of data gives the same answer; whatever cannot be fitted is refused by name."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client

import paramserver as ps
from cluster.helpers import Processes, Slow, make_data, processes, reference, until
from paramserver import errors
from paramserver.workers.problems.base import Evaluation, Start

X, Y = make_data(n=8_000, d=6)
N = len(X)
CUTS = [0, 1500, 3000, 5000, 8000]
PIECES = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(CUTS)]
NAMES = tuple("abcdef")
PENALTY = ps.L2(1.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)


def fit(client: Any, *data: Any, tol: float = 1e-8, **options: Any) -> Any:
    return ps.fit(ps.Logistic(), *data, penalty=PENALTY, tol=tol, client=client, **options)


def as_dask(*chunks: int) -> Any:
    return da.from_array(X, chunks=(tuple(chunks) or 2000, -1))


def unknown(array: Any) -> Any:
    """The same array without its chunk sizes."""
    blocks = [da.from_delayed(b, (np.nan, *array.shape[1:]), array.dtype) for b in array.to_delayed().reshape(-1)]
    return da.concatenate(blocks)


# -- the same data in every form -------------------------------------------------------------------

FORMS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "numpy": lambda c: (X, Y),
    "lists of rows": lambda c: (X.tolist(), Y.tolist()),
    "dask": lambda c: (as_dask(), da.from_array(Y, chunks=2000)),
    "dask, y in memory": lambda c: (as_dask(), Y),
    "dask, y cut elsewhere": lambda c: (as_dask(), da.from_array(Y, chunks=1700)),
    "dask, y a column": lambda c: (as_dask(), da.from_array(Y[:, None], chunks=(2000, 1))),
    "chunks of columns": lambda c: (da.from_array(X, chunks=(2000, 2)), da.from_array(Y, chunks=2000)),
    "uneven chunks": lambda c: (as_dask(10, 4990, 3000), da.from_array(Y, chunks=4000)),
    "unknown sizes": lambda c: (unknown(as_dask()), unknown(da.from_array(Y, chunks=2000))),
    "persisted": lambda c: tuple(c.persist([as_dask(), da.from_array(Y, chunks=2000)])),
    "pandas": lambda c: (pd.DataFrame(X, columns=list(NAMES)), pd.Series(Y)),
    "dask frame": lambda c: _frames(4),
    "dask frame, y in memory with known sizes": lambda c: (_frames(4)[0].to_dask_array(lengths=True), Y),
    "futures": lambda c: ([c.scatter(x) for x, _ in PIECES], [c.scatter(y) for _, y in PIECES]),
    "futures of pairs": lambda c: ([c.submit(_pair, i) for i in range(4)],),
    "pairs of futures": lambda c: ([(c.scatter(x), c.scatter(y)) for x, y in PIECES],),
    "delayed": lambda c: ([dask.delayed(_pair)(i)[0] for i in range(4)], [dask.delayed(_pair)(i)[1] for i in range(4)]),
    "delayed pairs": lambda c: ([dask.delayed(_pair)(i) for i in range(4)],),
    "pairs of arrays": lambda c: (PIECES,),
    "float32": lambda c: (da.from_array(X.astype(np.float32), chunks=(2000, -1)), Y.astype(np.float32)),
    "bool labels": lambda c: (X, Y > 0),
    "labels of -1 and 1": lambda c: (X, (2 * Y - 1).astype(int)),
}  # fmt: skip


def _frames(partitions: int) -> tuple[Any, Any]:
    frame = pd.DataFrame(X, columns=list(NAMES))
    frame["y"] = Y
    frame = dd.from_pandas(frame, npartitions=partitions)
    return frame[list(NAMES)], frame["y"]


def _pair(i: int) -> tuple[Any, Any]:
    rng_X, rng_y = make_data(n=8_000, d=6)
    return rng_X[CUTS[i] : CUTS[i + 1]], rng_y[CUTS[i] : CUTS[i + 1]]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_coefficients(client: Any, form: str) -> None:
    result = fit(client, *FORMS[form](client))
    assert result.converged
    assert result.n_rows == N
    assert EXACT.gap(result.z) <= (1e-8 if form != "float32" else 1e-7)
    if "frame" in form or form == "pandas":
        names = NAMES if "in memory" not in form else None
        assert result.feature_names == names
        assert list(result.named()) == list(names or [f"x{j}" for j in range(6)])


@pytest.mark.parametrize("kind", ["numpy", "dask", "frame", "mixed frame", "nullable frame"])
def test_whole_numbers_and_bools(client: Any, kind: str) -> None:
    Z = np.round(X * 3).astype(np.int64)
    flag = X[:, 0] > 0
    frame = pd.DataFrame(Z, columns=list(NAMES))
    if kind == "mixed frame":
        frame["a"] = flag
    if kind == "nullable frame":
        frame = frame.astype("Int64")
    data = {"numpy": Z, "dask": da.from_array(Z, chunks=(3000, -1))}.get(kind, frame)
    truth = np.column_stack([flag, Z[:, 1:]]) if kind == "mixed frame" else Z
    exact = reference(ps.Logistic(), truth, Y, PENALTY)
    assert exact.gap(fit(client, data, Y).z) <= 1e-8


def test_sample_weight_by_chunk(client: Any) -> None:
    weight = np.random.default_rng(1).uniform(0.5, 2.0, N)
    pieces = [client.scatter(weight[a:b]) for a, b in itertools.pairwise(CUTS)]
    columns = [client.scatter(x) for x, _ in PIECES], [client.scatter(y) for _, y in PIECES]
    result = fit(client, *columns, sample_weight=pieces)
    assert reference(ps.Logistic(), X, Y, PENALTY, weight).gap(result.z) <= 1e-8


@dataclass(frozen=True)
class Parabolas(ps.Problem):
    """Σ ½a(z − b)² over the (a, b) of one chunk: a problem that offers no certificate."""

    quadratic = True

    def prepare(self, *parts: Any) -> Any:
        return Pile(*parts)

    def survey(self, data: Any) -> np.ndarray:
        return np.array([data.rows, 2.0, sum(0.5 * a * b @ b for a, b in data.pile)])

    def start(self, survey: np.ndarray) -> Start:
        return Start(np.zeros(2), float(survey[2]))

    def evaluate(self, data: Any, z: np.ndarray) -> Evaluation:
        value = sum(0.5 * a * (z - b) @ (z - b) for a, b in data.pile)
        return Evaluation(float(value), np.sum([a * (z - b) for a, b in data.pile], axis=0), np.array([0.0]))

    def curvature(self, data: Any, z: np.ndarray) -> np.ndarray:
        return np.array([0.0])

    def hessian(self, data: Any, curvature: np.ndarray) -> np.ndarray:
        return np.eye(2) * sum(a for a, _ in data.pile)


@dataclass
class Pile:
    pile: list[tuple[float, np.ndarray]]
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.pile)


def test_objects_go_to_the_users_own_problem(client: Any) -> None:
    rng = np.random.default_rng(3)
    piles = [[(float(a), rng.standard_normal(2)) for a in rng.uniform(1, 2, k + 1)] for k in range(5)]
    flat = [pair for pile in piles for pair in pile]
    best = sum(a * b for a, b in flat) / sum(a for a, _ in flat)
    result = ps.fit(Parabolas(), piles, client=client)
    np.testing.assert_allclose(result.coef_, best, rtol=1e-9)
    assert result.converged
    assert result.certificate in ("residual", "estimate")
    assert result.n_rows == 15


# -- refused before anything is sent -----------------------------------------------------------------


def refused(client: Any, problem: Any, *data: Any, error: type = errors.InvalidInput, **options: Any) -> str:
    before = len(ps.list(client))
    with pytest.raises(error) as caught:
        ps.launch(problem, *data, client=client, **options)
    assert len(ps.list(client)) == before
    return str(caught.value)


def test_refused_for_what_the_data_are(client: Any) -> None:
    L = ps.Logistic()
    lazy = as_dask()
    assert "7999 rows" in refused(client, L, X, Y[:-1])
    assert "7999 rows" in refused(client, L, lazy, da.from_array(Y[:-1], chunks=2000))
    assert "compute_chunk_sizes" in refused(client, L, unknown(lazy), Y)
    assert "repartition" in refused(client, L, unknown(lazy), unknown(da.from_array(Y, chunks=1000)))
    assert "as many of each" in refused(client, L, [x for x, _ in PIECES], [y for _, y in PIECES][:-1])
    assert "0, 1, 2" in refused(client, L, X, np.arange(N) % 3).replace(".0", "")
    assert "0, 1, 2" in refused(client, L, X, pd.Series(np.arange(N) % 3)).replace(".0", "")
    assert "0/1" in refused(client, L, X, np.where(np.arange(N) % 2, np.where(np.arange(N) % 3, 0, 1), -1))
    frame = pd.DataFrame({"a": X[:, 0], "town": "x"})
    assert "town" in refused(client, L, frame, Y)
    assert "encode" in refused(client, L, frame, Y)
    assert "encode" in refused(client, L, dd.from_pandas(frame, npartitions=2), da.from_array(Y, chunks=4000))
    assert "object" in refused(client, L, X.astype(object), Y)
    assert "encode" in refused(client, L, X, pd.Series(np.where(Y > 0, "yes", "no")))
    assert "object" in refused(client, L, X, np.where(Y > 0, "yes", "no").astype(object))
    assert "dimensions" in refused(client, L, X[:, :, None], Y)
    assert "one column" in refused(client, L, X, np.column_stack([Y, Y]))
    refused(client, L, X[:0], Y[:0])
    refused(client, L, [])
    refused(client, L, 3.0, Y)
    refused(client, L, None, Y)


def test_refused_for_what_the_settings_are(client: Any) -> None:
    L = ps.Logistic()
    for alpha in (-1.0, float("nan"), float("inf")):
        with pytest.raises(errors.InvalidInput, match="alpha"):
            ps.L2(alpha)
    with pytest.raises(errors.InvalidInput, match="l1_ratio"):
        ps.ElasticNet(1.0, 1.5)
    assert "Problem" in refused(client, "logistic", X, Y)
    assert "newton" in refused(client, L, X, Y, consensus="newtn")
    assert "tol" in refused(client, L, X, Y, tol=-1.0)
    assert "max_seconds" in refused(client, L, X, Y, max_seconds=0)
    assert "until" in refused(client, L, X, Y, until=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tol": "1e-3"}, "tol must be None or a number > 0"),
        ({"chunks": 0}, "chunks must be None or a whole number"),
        ({"chunks": -1}, "chunks must be None or a whole number"),
        ({"name": ""}, "name must be None or text"),
        ({"name": 3}, "name must be None or text"),
        ({"z0": np.full(7, np.nan)}, "z0 must be None or finite"),
        ({"penalty": ps.L2}, r"pass L2\(\.\.\.\)"),
        ({"sample_weight": 2.0}, "one column, a value a row, got 2.0"),
    ],
)
def test_slips_are_refused_before_a_run_begins(client: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidInput, match=said):
        ps.launch(ps.Logistic(), X, Y, client=client, **options)
    assert not [run for run in ps.list(client) if run["state"] != "finished"]


@pytest.mark.parametrize("files", ["one.csv", "*.csv"])
def test_files_with_codes_give_what_expanded_columns_give(client: Any, tmp_path: Any, files: str) -> None:
    frame = pd.DataFrame(X[:, :2], columns=["a", "b"]).assign(g=np.where(X[:, 2] > 0, "u", "v"), y=Y)
    for name in ("one", "two"):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    codes, columns = (
        fit(client, *ps.datasets.from_files(str(tmp_path / files), "y", expand=expand), tol=1e-11)
        for expand in (False, True)
    )
    np.testing.assert_allclose(codes.z, columns.z, atol=1e-4)
    assert codes.feature_names == columns.feature_names == ("a", "b", "g=u", "g=v")


def test_a_penalty_that_lacks_a_method(client: Any) -> None:
    class Half:
        def value(self, w: Any) -> float:
            return 0.0

    said = refused(client, ps.Logistic(), X, Y, penalty=Half())
    assert "prox(v, steps)" in said
    assert "subgradient(w, near)" in said
    assert "value(w)" not in said


def test_a_rule_that_needs_what_the_problem_lacks(client: Any) -> None:
    said = refused(
        client, Parabolas(), [[(1.0, np.ones(2))]], consensus=ps.ADMM(metric="diagonal"), error=errors.MissingMethod
    )
    assert "ADMM" in said
    assert "Parabolas" in said
    assert "hessian_diagonal(data, curvature)" in said


def test_no_client() -> None:
    with pytest.raises(errors.InvalidInput, match="client"):
        ps.launch(ps.Logistic(), X, Y)


def test_a_name_twice(client: Any) -> None:
    run = ps.launch(Slow(delay=0.3), X, Y, name="twice", tol=1e-8, client=client, chunks=4)
    until(lambda: run.status().pushes >= 4)
    with pytest.raises(errors.NameTaken, match="twice"):
        ps.launch(ps.Logistic(), X, Y, name="twice", client=client)
    other = ps.connect("twice", client)
    run.stop()
    again = ps.launch(ps.Logistic(), X, Y, name="twice", client=client)
    assert again.result(30).converged
    assert run.result().reason == run.status().reason == "stopped"  # what it knows, it still says
    for ask in (other.result, other.done):
        with pytest.raises(errors.UnknownRun, match="another of its name"):
            ask()

    def refers_to_nothing(ask: Any) -> bool:  # a server answers for a moment after its run's end
        try:
            ask()
        except errors.UnknownRun:
            return True
        return False

    for ask in (other.status, other.params):
        until(lambda ask=ask: refers_to_nothing(ask), 10)


def test_an_unknown_name(client: Any) -> None:
    fit(client, X, Y, name="there")
    with pytest.raises(errors.UnknownRun, match="'there'"):
        ps.connect("elsewhere", client)
    with pytest.raises(errors.UnknownRun, match="'there'"):
        ps.forget("elsewhere", client)


# -- found by the workers --------------------------------------------------------------------------


def failing(client: Any, *data: Any, problem: Any = None, error: type = errors.BadData, **options: Any) -> str:
    run = ps.launch(problem or ps.Logistic(), *data, client=client, **options)
    with pytest.raises(error) as caught:
        run.result(timeout=30)
    assert isinstance(caught.value, errors.RunFailed)
    assert run.status().state == "failed"
    assert run.done()
    with pytest.raises(errors.RunFailed):
        run.params()
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["numpy", "unknown sizes"])
def test_a_bad_value_is_named_by_chunk_and_row(client: Any, value: float, form: str) -> None:
    Z = X.copy()
    Z[3 * 1000 + 17, 2] = value
    data = da.from_array(Z, chunks=(1000, -1)), da.from_array(Y, chunks=1000)
    said = failing(client, *(map(unknown, data) if form == "unknown sizes" else data))
    assert "chunk 3" in said
    assert "row 17" in said
    assert "column 2" in said


def test_a_bad_target_is_named_by_chunk_and_row(client: Any) -> None:
    y = Y.copy()
    y[3 * 1000 + 17] = np.nan
    said = failing(client, da.from_array(X, chunks=(1000, -1)), da.from_array(y, chunks=1000))
    assert "chunk 3" in said
    assert "row 17" in said


def test_labels_that_only_the_workers_see(client: Any) -> None:
    lazy = da.from_array(X, chunks=(1000, -1))
    y = np.arange(N) % 3
    said = failing(client, lazy, da.from_array(y, chunks=1000))
    assert "label 2" in said
    assert "chunk" in said
    half = np.where(np.arange(N) < 4000, Y, 2 * Y - 1)
    assert "0/1 in some rows" in failing(client, lazy, da.from_array(half, chunks=1000))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class(client: Any, label: float) -> None:
    y = np.full(N, label)
    assert "all labels" in failing(client, X, y)
    # Without an intercept and with a penalty there is an optimum
    problem = ps.Logistic(fit_intercept=False)
    result = ps.fit(problem, X, y, penalty=PENALTY, tol=1e-8, client=client)
    assert reference(problem, X, y, PENALTY).gap(result.z) <= 1e-8


def test_z0_of_the_wrong_shape(client: Any) -> None:
    pieces = [x for x, _ in PIECES], [y for _, y in PIECES]  # of lists nothing is known before they are read
    assert "(7,)" in failing(client, *pieces, z0=np.zeros(6), error=errors.ParamServerError)


def test_no_target(client: Any) -> None:
    assert "pass y" in failing(client, [x for x, _ in PIECES])


def test_zero_weights(client: Any) -> None:
    assert "weights are zero" in failing(client, X, Y, sample_weight=np.zeros(N))
    weight = np.ones(N)
    weight[2] = -1.0
    with pytest.raises(errors.InvalidInput, match="row 2"):  # at hand: before anything is sent
        ps.launch(ps.Logistic(), X, Y, sample_weight=weight, client=client)
    lazy = da.from_array(weight, chunks=2000)
    assert "negative" in failing(client, as_dask(), da.from_array(Y, chunks=2000), sample_weight=lazy)


def test_empty_chunks_are_skipped_and_shown(client: Any) -> None:
    pieces = [*PIECES[:2], (X[:0], Y[:0]), *PIECES[2:]]
    run = ps.launch(
        ps.Logistic(), [x for x, _ in pieces], [y for _, y in pieces], penalty=PENALTY, tol=1e-8, client=client
    )
    result = run.result(30)
    assert EXACT.gap(result.z) <= 1e-8
    assert run.status().empty_chunks == (2,)
    assert result.n_chunks == 5
    filtered = _frames(8)
    first = filtered[0].partitions[0].compute()
    mask = ~filtered[0]["a"].isin(first["a"].tolist())
    result = fit(client, filtered[0][mask], filtered[1][mask])
    assert result.n_rows == N - len(first)


def test_chunks_of_different_widths(client: Any) -> None:
    said = failing(client, [PIECES[0][0], PIECES[1][0][:, :4]], [PIECES[0][1], PIECES[1][1]])
    assert "columns" in said


def test_a_target_of_another_length_in_one_chunk(client: Any) -> None:
    said = failing(client, [x for x, _ in PIECES], [PIECES[0][1], PIECES[1][1][:-1], *(y for _, y in PIECES[2:])])
    assert "chunk 1" in said


def _raises(block: Any) -> Any:
    raise RuntimeError("the file is not there")


def test_a_chunk_whose_task_raises(client: Any) -> None:
    lazy = as_dask().map_blocks(_raises, dtype=float, meta=np.empty((0, 0)))
    said = failing(client, lazy, da.from_array(Y, chunks=2000), error=errors.ChunkLost)
    assert "the file is not there" in said


# -- chunks and the workers that hold them ---------------------------------------------------------


@pytest.fixture
def own(tmp_path: Any) -> Any:
    with processes(tmp_path) as cluster:
        cluster.add("a", "b")
        yield cluster


def _victim(own: Processes, client: Client, run: Any) -> Any:
    """The worker that does not hold the server."""
    server = until(lambda: run.status().server)
    (name,) = set(own.wait_for(client, "a", "b")) - {own.named(client, server)}
    return own.workers[name]


def test_scattered_chunks_lost_by_a_kill(own: Processes) -> None:
    with own.client() as client:
        own.wait_for(client, "a", "b")
        columns = [client.scatter(x) for x, _ in PIECES], [client.scatter(y) for _, y in PIECES]
        run = ps.launch(Slow(delay=0.3), *columns, tol=1e-8, client=client)
        until(lambda: run.status().pushes > 4)
        _victim(own, client, run).kill()
        with pytest.raises(errors.ChunkLost, match="chunk"):
            run.result(timeout=30)


def _random(i: int) -> Any:
    return np.random.default_rng(time.time_ns()).standard_normal((2000, 6))


def test_chunks_that_come_back_with_other_values(own: Processes) -> None:
    with own.client() as client:
        own.wait_for(client, "a", "b")
        blocks = [da.from_delayed(dask.delayed(_random)(i), (2000, 6), float) for i in range(4)]
        lazy = client.persist(da.concatenate(blocks))
        until(lambda: all(f.status == "finished" for f in client.futures_of(lazy)))
        run = ps.launch(Slow(delay=0.3), lazy, da.from_array(Y, chunks=2000), tol=1e-8, client=client)
        until(lambda: run.status().pushes > 8)
        os.kill(_victim(own, client, run).process.pid, signal.SIGKILL)
        with pytest.raises(errors.ChunkChanged, match="other values"):
            run.result(timeout=60)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"penalty": ps.L1(1.0, factors=[1, 1])}, "2 numbers"),
        ({"penalty": ps.GroupL1([[0], [99]])}, "99"),
        ({"penalty": ps.Box([0, 0], [1, 1])}, "2 numbers"),
        ({"z0": np.zeros(99)}, r"z0 has shape \(99,\)"),
        ({"y": None}, "needs a target"),
        ({"y": np.array(["yes", "no"] * (N // 2))}, 'y == "yes"'),
    ],
    ids=["factors", "groups", "box", "z0", "no target", "strings"],
)
def test_sizes_are_checked_before_anything_is_sent(client: Any, given: dict[str, Any], match: str) -> None:
    before = len(ps.list(client))
    with pytest.raises(errors.InvalidInput, match=match):
        ps.launch(ps.Logistic(), X, given.pop("y", Y), client=client, **given)
    assert len(ps.list(client)) == before
