"""The article's experiment, small: its formulas against a few straight lines, and ours beside them."""

from __future__ import annotations

import numpy as np
import pytest

from paramserver.comparison.article import experiment
from paramserver.comparison.article.data import cached, generate
from paramserver.comparison.article.ours import observations, optimum
from paramserver.comparison.article.variants import LAMBDA, RHO, Local, _Pool, asynchronous, residual, synchronous
from paramserver.errors import InvalidInput

N, K = 12, 5


@pytest.fixture(scope="module")
def grams():
    return generate(2400, K, N, 3, lambda text: None)


@pytest.fixture(scope="module")
def local(grams):
    return Local(grams)


def shrinkage(beta, t):
    return np.maximum(0, beta - t) - np.maximum(0, -beta - t)


def solved(grams, i, z, u):
    return np.linalg.solve(
        2 * grams.gram[i] + RHO * np.eye(K), 2 * grams.product[i] + RHO * (z - u)
    )  # grad of the article's local_f is zero here


def test_the_data(grams) -> None:
    """Sums of standard normals: XᵀX near m·I; y's noise of deviation 2 is what is left."""
    m = grams.rows / N
    assert np.abs(grams.gram.sum(axis=0) / grams.rows - np.eye(K)).max() < 0.1
    beta = np.linalg.solve(grams.gram.sum(axis=0), grams.product.sum(axis=0))
    left = grams.square.sum() - beta @ grams.product.sum(axis=0)
    assert left / grams.rows == pytest.approx(4.0, rel=0.1)
    assert ((beta > -0.15) & (beta < 1.15)).all()
    again = generate(2400, K, N, 3, lambda text: None)
    assert np.array_equal(again.gram, grams.gram)
    assert m == 200


def test_synchronous(grams, local) -> None:
    z, u, best = np.zeros(K), np.zeros((N, K)), optimum(grams)
    for mark in synchronous(local, best, 4):
        x = np.array([solved(grams, i, z, u[i]) for i in range(N)])
        z = shrinkage((x + u).mean(axis=0), LAMBDA / (RHO * N))
        u = u + x - z
        assert mark.residual == pytest.approx(np.sqrt(((x - z) ** 2).sum()))
        assert mark.error == pytest.approx(np.abs(z - best).max())
    assert mark.tasks == 4 * N


def test_asynchronous(grams, local) -> None:
    """The article's loop, task by task, on the same draws."""
    marks, best, cores, seed = [5, N, 3 * N, 6 * N], optimum(grams), 2, 7
    draw = np.random.default_rng(seed)
    z, betas, u, found = np.zeros(K), np.zeros((N, K)), np.zeros((N, K)), []
    pool = _Pool(draw, cores)
    for i in draw.integers(N, size=2 * cores):
        pool.submit(int(i), z, u[i].copy())
    for count, ((i, then, dual),) in enumerate(pool.batches(0.0), 1):
        betas[i] = solved(grams, i, then, dual)
        ztilde = np.mean(betas + u, axis=0)
        if count < N:
            ztilde = ztilde * N / (count + 1)
        z = shrinkage(ztilde, LAMBDA / (RHO * N))
        if count in marks:
            found.append((count, residual(betas, z), np.abs(z - best).max()))
        if count == marks[-1]:
            break
        i = int(draw.integers(N))  # the next chunk's dual, not the reporter's
        u[i] += betas[i] - z
        pool.submit(i, z, u[i].copy())
    assert np.allclose(asynchronous(local, best, marks, seed, cores=cores), found, rtol=1e-9)


def test_batches_take_all_that_came_in() -> None:
    pool = _Pool(np.random.default_rng(0), 4)
    for i in range(8):
        pool.submit(i, np.zeros(1), np.zeros(1))
    sizes, order = [], []
    for batch in pool.batches(1.0):
        sizes.append(len(batch))
        order += [i for i, *_ in batch]
    assert sorted(order) == list(range(8))
    assert max(sizes) > 1
    assert set(order[:4]) == {0, 1, 2, 3}


def test_the_optimum_is_one(grams) -> None:
    """0 ∈ 2(Gz − c) + λ∂‖z‖₁."""
    z = optimum(grams)
    slope = 2 * (grams.gram.sum(axis=0) @ z - grams.product.sum(axis=0))
    on = z != 0
    assert np.abs(slope[on] + LAMBDA * np.sign(z[on])).max() < 1e-8 * np.abs(grams.product).sum()
    assert (np.abs(slope[~on]) <= LAMBDA).all()


def test_observations_have_the_chunks_losses(grams) -> None:
    X, y = observations(grams)
    z, rows = np.linspace(-1, 1, K), slice(3 * (K + 1), 4 * (K + 1))
    loss = grams.square[3] - 2 * grams.product[3] @ z + z @ grams.gram[3] @ z
    assert ((y[rows] - X[rows] @ z) ** 2).sum() == pytest.approx(loss)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    cache = tmp_path_factory.mktemp("article") / "grams.npz"
    return experiment(6000, 3, str(cache), columns=6, n_chunks=40), cache


def test_ours_takes_two_passes_and_fewer_than_theirs(found) -> None:
    article, _ = found
    ours = article.ours["AggregatedNewton"]
    assert ours.until(1e-6) <= 2 * 40
    assert ours.at(10**6) < 1e-9
    theirs = article.published["asynchronous"].until(1e-2)
    assert theirs is None or ours.until(1e-6) < theirs
    assert article.ours["ADMM(hessian), barrier"].until(1e-6) is not None


def test_table_json_and_plots(found, tmp_path) -> None:
    article, _ = found
    plainly = article.to_dict()
    at = next(mark for mark in plainly["marks"] if (mark["variant"], mark["tasks"]) == ("asynchronous", 200))
    runs = article.published["asynchronous"].runs
    middle = np.median([mark.residual for run in runs for mark in run if mark.tasks == 200])
    assert at["residual"] == pytest.approx(middle)
    assert f"{middle:.4g}" in str(article)
    assert sum(mark["variant"] == "synchronous" for mark in plainly["marks"]) == 10
    (file,) = article.plot(tmp_path)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_cache_is_used_again_and_only_for_the_same_data(found) -> None:
    _, cache = found
    before = cache.stat().st_mtime_ns
    again = experiment(6000, 1, str(cache), columns=6, n_chunks=40)
    assert cache.stat().st_mtime_ns == before
    assert again.what["rows"] == 6000
    with pytest.raises(InvalidInput, match="other rows, columns, chunks and seed"):
        experiment(8000, 1, str(cache), columns=6, n_chunks=40)
    cache.write_bytes(b"something else")
    with pytest.raises(InvalidInput, match="is no cache of the article's data"):
        cached(str(cache), 6000, 6, 40, 0, lambda text: None)


@pytest.mark.parametrize(
    ("options", "match"), [({"rows": 0}, "rows must be"), ({"seeds": 0}, "seeds must be"), ({"rows": 1000}, "at least")]
)
def test_bad_input(options, match) -> None:
    with pytest.raises(InvalidInput, match=match):
        experiment(**options)
