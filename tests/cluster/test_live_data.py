"""Chunks that come and go on a live run, on a cluster."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
import pytest

import paramserver as ps
from cluster.helpers import Slow, make_data, reference, until
from paramserver import errors

X, Y = make_data(n=8_000, d=6)
MORE, MORE_Y = make_data(n=2_400, d=6, seed=5)
PENALTY = ps.L1(5.0)
EXACT = reference(ps.Logistic(), X, Y, PENALTY)
ALL = reference(ps.Logistic(), np.vstack([X, MORE]), np.concatenate([Y, MORE_Y]), PENALTY)


def launch(client: Any, problem: Any = None, **options: Any) -> Any:
    options = {"penalty": PENALTY, "tol": 1e-8, "chunks": 8, "keep": True, **options}
    return ps.launch(problem or ps.Logistic(), X, Y, client=client, **options)


def assert_optimal(result: Any, exact: Any, rows: int) -> None:
    assert result.converged
    assert result.n_rows == rows
    assert -1e-14 <= exact.gap(result.z) <= result.gap + 1e-13 <= 1e-8 + 1e-13


def as_arrays() -> tuple[Any, Any]:
    return MORE, MORE_Y


def as_dask_arrays() -> tuple[Any, Any]:
    return da.from_array(MORE, chunks=(700, -1)), da.from_array(MORE_Y, chunks=700)


def as_delayed() -> tuple[Any, Any]:
    parts = np.array_split(np.arange(len(MORE)), 3)
    return [(dask.delayed(MORE[rows]), dask.delayed(MORE_Y[rows])) for rows in parts], None


@pytest.mark.parametrize("consensus", ["newton", "admm"])
@pytest.mark.parametrize(("made", "chunks"), [(as_arrays, 2), (as_dask_arrays, 4), (as_delayed, 3)])
def test_added_from_a_second_client_then_dropped(
    client: Any, cluster: Any, consensus: str, made: Any, chunks: int
) -> None:
    run = launch(client, consensus=consensus)
    assert_optimal(run.result(30), EXACT, 8_000)
    with distributed.Client(cluster, set_as_default=False) as other:
        guest = ps.connect(run.name, other)
        ids = guest.add(*made())
        assert ids == list(range(8, 8 + chunks))
        assert_optimal(guest.result(30), ALL, 10_400)
    result = run.result(30)
    assert_optimal(result, ALL, 10_400)
    assert result.n_chunks == 8 + chunks
    assert [value.chunk for value in run.duals()] == list(range(8 + chunks))
    run.drop(ids)
    result = run.result(30)
    assert_optimal(result, EXACT, 8_000)
    assert result.n_chunks == 8
    fresh = ps.fit(ps.Logistic(), X, Y, penalty=PENALTY, tol=1e-8, client=client)
    assert abs(result.objective - fresh.objective) <= 2e-8 * float(EXACT.null)
    with pytest.raises(errors.InvalidInput, match="dropped"):
        run.local(ids[0])
    held = lambda: client.run_on_scheduler(_held, run.name)  # noqa: E731
    until(lambda: held() == 16)  # the supervisor lets go of what was dropped
    assert run.add(MORE, MORE_Y, chunks=1) == [8 + chunks]
    assert_optimal(run.result(30), ALL, 10_400)


def _held(name: str, dask_scheduler: Any) -> int:
    record = dask_scheduler.plugins["paramserver"].runs[name]
    return len(dask_scheduler.clients[record.holder].wants_what)


def test_added_while_it_runs(client: Any) -> None:
    run = launch(client, Slow(delay=0.02), keep=False)
    ids = run.add(MORE, MORE_Y, chunks=2)  # the run has perhaps no server yet: it waits for one
    assert len(ids) == 2
    until(lambda: run.status().state != "surveying")
    more = run.add(MORE, MORE_Y, sample_weight=np.full(len(MORE), 9.0), offset=MORE[:, 0])
    run.drop(more)
    result = run.result(30)
    assert_optimal(result, ALL, 10_400)
    with pytest.raises(errors.InvalidInput, match="over"):
        run.add(MORE, MORE_Y)
    with pytest.raises(errors.InvalidInput, match="over"):
        run.drop([0])


def test_what_is_wrong_at_once_is_said_at_once(client: Any) -> None:
    run = launch(client)
    before = run.result(30)
    with pytest.raises(errors.InvalidInput, match="3 columns where the run's chunks have 6"):
        run.add(MORE[:, :3], MORE_Y)
    with pytest.raises((errors.InvalidInput, errors.BadData), match="label"):
        run.add(MORE, np.full(len(MORE), 7.0))
    with pytest.raises(errors.InvalidInput, match="rows"):
        run.add(MORE, MORE_Y[:-1])
    with pytest.raises(errors.InvalidInput, match="no chunk 12: the run has chunks 0 to 7"):
        run.drop([3, 12])
    with pytest.raises(errors.InvalidInput, match="at least one chunk"):
        run.drop(range(8))
    assert run.done()
    assert run.result(5).version == before.version
    until(lambda: client.run_on_scheduler(_held, run.name) == 16)


def _spoiled(value: float) -> Any:
    bad = MORE.copy()
    bad[17, 2] = value
    return bad


def _raising(rows: Any) -> Any:
    raise OSError("the file is not there")


BAD = {
    "nan in row 17, column 2": lambda: [(dask.delayed(_spoiled(np.nan)), dask.delayed(MORE_Y))],
    "it has 4 columns where the run has 6": lambda: [(dask.delayed(MORE[:, :4]), dask.delayed(MORE_Y))],
    "label": lambda: [(dask.delayed(MORE), dask.delayed(MORE_Y + 3.0))],
    "the file is not there": lambda: [(dask.delayed(_raising)(1), dask.delayed(MORE_Y))],
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_chunk_is_refused_and_the_run_lives(client: Any, why: str) -> None:
    run = launch(client)
    run.result(30)
    half = [(dask.delayed(MORE), dask.delayed(MORE_Y))]
    assert run.add(BAD[why]() + half) == [8, 9]
    result = run.result(30)
    assert_optimal(result, ALL, 10_400)
    assert result.n_chunks == 9
    (note,) = [note for note in result.notes if "refused" in note]
    assert note.startswith("chunk 8 was refused")
    assert why in note
    until(lambda: client.run_on_scheduler(_held, run.name) == 18)


def test_results_are_those_after_the_change(client: Any) -> None:
    """However often: never the result that was announced before."""
    run = launch(client, tol=1e-6)
    version = run.result(30).version
    for k in range(20):
        after = run.update(penalty=ps.L2(1.0 + k))
        result = run.result(30)
        assert result.penalty == f"L2(alpha={1.0 + k})"
        assert version.n < after.n <= result.version.n
        version = result.version


def test_chunks_that_take_their_time(client: Any) -> None:
    def late(block: Any) -> Any:
        time.sleep(1.0)
        return block

    run = launch(client)
    run.result(30)
    lazy = da.from_array(MORE, chunks=(1200, -1)).map_blocks(late, dtype=float, meta=np.empty((0, 0)))
    ids = run.add(lazy, da.from_array(MORE_Y, chunks=1200))
    assert not run.done()
    status = run.status()
    assert (status.state, status.n_chunks) == ("surveying", 10)
    run.drop(ids[:1])
    half = reference(ps.Logistic(), np.vstack([X, MORE[1200:]]), np.concatenate([Y, MORE_Y[1200:]]), PENALTY)
    assert_optimal(run.result(30), half, 9_200)


def test_an_asynchronous_client_adds_and_drops(cluster: Any, client: Any) -> None:
    async def work() -> None:
        address = cluster.scheduler_address
        async with distributed.Client(address, asynchronous=True, set_as_default=False) as own:
            run = await ps.launch(ps.Logistic(), X, Y, penalty=PENALTY, tol=1e-8, client=own, keep=True)
            await run
            ids = await run.add(MORE, MORE_Y)
            assert_optimal(await run, ALL, 10_400)
            await run.drop(ids)
            assert_optimal(await run, EXACT, 8_000)
            await run.stop()

    asyncio.run(work())
