"""Chunks whose workers are gone: computed again, to the same values or to others, left out, or said to be lost."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from cluster.helpers import Endless, Processes, Slow, reference, until
from dask import delayed
from distributed import Client, LocalCluster

import paramserver as ps
from paramserver import errors

from .helpers import CHUNKS, PENALTY, X, Y, assert_nothing_left, check, launch, names, under_way


def deadly(path: str, k: int, deaths: int) -> tuple[np.ndarray, np.ndarray]:
    """A chunk whose first so many workers die while they read it."""
    if k == 0 and len(list(Path(path).iterdir())) < deaths:
        (Path(path) / str(os.getpid())).touch()
        os._exit(1)
    return X[k::CHUNKS], Y[k::CHUNKS]


def test_deaths_of_workers_are_not_held_against_what_they_computed(own: Processes, client: Any, tmp_path: Any) -> None:
    """Dask gives a task up after four; a run computes it again, twice."""
    names = [f"w{k}" for k in range(7)]
    own.add(*names)
    own.wait_for(client, *names)
    parts = [delayed(deadly)(str(tmp_path), k, 5) for k in range(CHUNKS)]
    check(ps.launch(ps.Logistic(), parts, penalty=PENALTY, tol=1e-8, client=client))
    assert len(list(tmp_path.iterdir())) == 5


def test_a_chunk_that_kills_every_worker_ends_the_run(own: Processes, client: Any, tmp_path: Any) -> None:
    names = [f"w{k}" for k in range(14)]
    own.add(*names)
    own.wait_for(client, *names)
    parts = [delayed(deadly)(str(tmp_path), k, 99) for k in range(CHUNKS)]
    run = ps.launch(ps.Logistic(), parts, penalty=PENALTY, tol=1e-8, client=client)
    with pytest.raises(errors.ChunkLost, match=r"chunk 0 cannot be computed.*died while running it"):
        run.result(timeout=90)


# -- scattered: nothing computes them again ----------------------------------------------------------


def scattered(client: Any, *where: str) -> list[Any]:
    """The chunks, those of each worker named by its address in turn."""
    parts = [(X[k::CHUNKS], Y[k::CHUNKS]) for k in range(CHUNKS)]
    return [client.scatter(part, workers=[where[k % len(where)]], hash=False) for k, part in enumerate(parts)]


def optimum(rows: np.ndarray) -> Any:
    return reference(ps.Logistic(), X[rows], Y[rows], PENALTY)


def assert_optimal(result: Any, best: Any) -> None:
    assert (result.converged, result.certificate) == (True, "duality gap")
    assert -1e-15 <= best.gap(result.z) <= result.gap + 1e-13 <= 1e-8 + 1e-13


def test_a_scattered_chunk_is_lost_and_the_run_ends(own: Processes, client: Any) -> None:
    own.add("a", "b")
    there = own.wait_for(client, "a", "b")
    run = ps.launch(Slow(delay=0.05), scattered(client, *there.values()), penalty=PENALTY, tol=1e-8, client=client)
    _, (other,) = names(own, client, under_way(run))
    own.workers[other].kill()
    with pytest.raises(errors.ChunkLost, match=r"chunk \d+ is gone.*pass lazy or persisted collections"):
        run.result(timeout=30)
    assert_nothing_left(client)


@pytest.mark.parametrize("victim", ["the server's", "another"])
@pytest.mark.parametrize("pushes", [1, 20])
def test_scattered_chunks_are_lost_and_left_out(own: Processes, client: Any, victim: str, pushes: int) -> None:
    own.add("a", "b", "c")
    there = own.wait_for(client, "a", "b", "c")
    data = scattered(client, there["a"], there["b"], there["b"], there["c"])
    run = ps.launch(Slow(delay=0.05), data, penalty=PENALTY, tol=1e-8, client=client, on_chunk_loss="drop")
    mine, others = names(own, client, under_way(run, pushes))
    killed = mine if victim == "the server's" else others[0]
    gone = [k for k in range(CHUNKS) if "abbc"[k % 4] == killed]
    own.workers[killed].kill()
    result = run.result(timeout=60)
    assert sorted(result.left_out) == gone
    assert result.n_chunks == CHUNKS - len(gone)
    assert_optimal(result, optimum(np.flatnonzero(~np.isin(np.arange(len(X)) % CHUNKS, gone))))
    notes = [note for note in result.notes if note.startswith("left out: chunk")]
    assert notes
    assert set(notes) <= set(run.status().notes)
    if pushes > CHUNKS:
        assert set(result.left_out.values()) == {len(X) // CHUNKS}
    assert_nothing_left(client)


def test_what_was_left_out_stays_so_for_the_next_server(own: Processes, client: Any) -> None:
    own.add("a", "b", "c")
    there = own.wait_for(client, "a", "b", "c")
    data = [*scattered(client, there["a"])[:1], *(delayed(part)(k) for k in range(1, CHUNKS))]
    run = ps.launch(Slow(delay=0.05), data, penalty=PENALTY, tol=1e-8, client=client, on_chunk_loss="drop", keep=True)
    run.result(timeout=60)
    own.workers["a"].kill()
    until(lambda: "left out: chunk 0" in " ".join(run.status().notes), 30)
    mine, _ = names(own, client, run.status().server)
    own.workers[mine].kill()
    until(lambda: run.status().epoch >= 2 and run.done(), 60)
    result = run.result(timeout=60)
    assert result.left_out == {0: len(X) // CHUNKS}
    assert sum("left out" in note for note in result.notes) == 1
    assert_optimal(result, optimum(np.flatnonzero(np.arange(len(X)) % CHUNKS)))
    run.stop()


def part(k: int) -> tuple[np.ndarray, np.ndarray]:
    return X[k::CHUNKS], Y[k::CHUNKS]


def test_with_all_chunks_lost_there_is_nothing_to_go_on_with(own: Processes, client: Any) -> None:
    own.add("a")
    there = own.wait_for(client, "a")
    run = ps.launch(
        Slow(delay=0.05), scattered(client, there["a"]), penalty=PENALTY, tol=1e-8, client=client, on_chunk_loss="drop"
    )
    under_way(run, 5)
    own.workers["a"].kill()
    with pytest.raises(errors.ChunkLost, match=r"chunk 0 is gone"):
        run.result(timeout=30)


def raising(k: int) -> Any:
    if k in (2, 5):
        raise OSError("the file is not there")
    return part(k)


def test_chunks_whose_tasks_raise_are_left_out(own: Processes, client: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    data = [delayed(raising)(k) for k in range(CHUNKS)]
    result = ps.fit(ps.Logistic(), data, penalty=PENALTY, tol=1e-8, client=client, on_chunk_loss="drop")
    assert result.left_out == {2: None, 5: None}
    assert_optimal(result, optimum(np.flatnonzero(~np.isin(np.arange(len(X)) % CHUNKS, (2, 5)))))
    assert any("the file is not there" in note for note in result.notes)


# -- warned ------------------------------------------------------------------------------------------


def warned(caplog: Any) -> list[str]:
    """Of data; that the cluster is in the clear is another warning."""
    ours = (entry for entry in caplog.records if entry.name == "paramserver" and entry.levelname == "WARNING")
    return [entry.message for entry in ours if "chunks" in entry.message]


def test_a_launch_warns_of_data_that_cannot_be_computed_again(own: Processes, client: Any, caplog: Any) -> None:
    own.add("a")
    there = own.wait_for(client, "a")
    some, lazy = scattered(client, there["a"])[:3], [delayed(part)(k) for k in range(3, CHUNKS)]
    derived = [delayed(tuple)(some[0]), *some[1:], *lazy]
    run = ps.launch(ps.Logistic(), derived, penalty=PENALTY, client=client, name="warned")
    (text,) = warned(caplog)
    assert text.startswith("paramserver: run warned: 3 of 16 chunks were put on workers as they are")
    assert 'on_chunk_loss="drop"' in text
    assert "lazy or persisted" in text
    assert any(note in text for note in run.result(timeout=60).notes)
    caplog.clear()
    ps.fit(ps.Logistic(), derived, penalty=PENALTY, client=client, on_chunk_loss="drop")  # who knows is not told
    ps.fit(ps.Logistic(), lazy, penalty=PENALTY, client=client)
    ps.fit(ps.Logistic(), X, Y, penalty=PENALTY, client=client)  # the scheduler has the arrays in the graph
    ps.fit(
        ps.Logistic(), client.persist(da.from_array(X, chunks=(1000, -1))), da.from_array(Y, chunks=1000), client=client
    )
    assert not warned(caplog)


def test_nobody_is_warned_of_what_ends_with_the_process(caplog: Any) -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0", silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        parts = client.scatter([(X[k::4], Y[k::4]) for k in range(4)], hash=False)
        result = ps.fit(ps.Logistic(), parts, penalty=PENALTY, client=client)
    assert not warned(caplog)
    assert not any("scattered" in note for note in result.notes)


# -- computed again, to other values -----------------------------------------------------------------


def rewritten(path: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """From a file, as it is now."""
    return X[k::CHUNKS] * float(Path(path).read_text()), Y[k::CHUNKS]


def rewrite(own: Processes, client: Any, path: Path, **options: Any) -> tuple[Any, str]:
    """A run whose source is rewritten, and whose worker without a server is killed then; that worker."""
    path.write_text("1.0")
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    data = [delayed(rewritten)(str(path), k) for k in range(CHUNKS)]
    run = ps.launch(Slow(delay=0.05), data, penalty=PENALTY, tol=1e-8, client=client, **options)
    _, (other,) = names(own, client, under_way(run))
    path.write_text("1.25")
    own.workers[other].kill()
    return run, other


def test_a_source_that_was_rewritten_ends_the_run(own: Processes, client: Any, tmp_path: Any) -> None:
    run, _ = rewrite(own, client, tmp_path / "factor")
    with pytest.raises(errors.ChunkChanged, match=r"has other values than before.*on_chunk_change=\"reset\""):
        run.result(timeout=60)
    assert_nothing_left(client)


def test_a_source_that_was_rewritten_counts_as_it_is_now(own: Processes, client: Any, tmp_path: Any) -> None:
    run, _ = rewrite(own, client, tmp_path / "factor", on_chunk_change="reset")
    result = run.result(timeout=60)
    words = " was computed again and has other values now: the fit is of these"
    changed = [int(note.removeprefix("chunk ").removesuffix(words)) for note in result.notes if words in note]
    assert changed
    assert_optimal(result, factored(changed))
    assert result.n_rows == len(X)
    assert_nothing_left(client)


def factored(changed: list[int]) -> Any:
    now = np.where(np.isin(np.arange(len(X)) % CHUNKS, changed), 1.25, 1.0)[:, None] * X
    return reference(ps.Logistic(), now, Y, PENALTY)


def test_the_source_and_the_server_change_together(own: Processes, client: Any, tmp_path: Any) -> None:
    """The next server knows the old values, its runners the new ones."""
    path = tmp_path / "factor"
    path.write_text("1.0")
    own.add("a", "b", "c")
    own.wait_for(client, "a", "b", "c")
    data = [delayed(rewritten)(str(path), k) for k in range(CHUNKS)]
    run = ps.launch(
        Slow(delay=0.05), data, penalty=PENALTY, tol=1e-8, client=client, on_chunk_change="reset", keep=True
    )
    run.result(timeout=60)
    path.write_text("1.25")
    mine, _ = names(own, client, run.status().server)
    own.workers[mine].kill()
    until(lambda: run.status().epoch == 2 and run.status().state == "converged", 60)
    words = " was computed again and has other values now"
    changed = [k for k in range(CHUNKS) if any(f"chunk {k}{words}" in note for note in run.status().notes)]
    assert_optimal(run.result(timeout=60), factored(changed))
    run.stop()


def test_copies_of_the_old_values_do_not_come_back(own: Processes, client: Any, tmp_path: Any) -> None:
    """One worker has them, another copies what is computed again on a third, which has no runners."""
    path = tmp_path / "factor"
    path.write_text("1.0")
    own.add("a")
    own.wait_for(client, "a")
    data = client.persist([delayed(rewritten)(str(path), k) for k in range(CHUNKS)])
    until(lambda: all(future.status == "finished" for future in client.futures_of(data)))
    own.add("server", args=("--resources", "paramserver=1"))
    own.add("b")
    there = own.wait_for(client, "a", "server", "b")
    run = ps.launch(Slow(delay=0.1), data, penalty=PENALTY, tol=1e-8, client=client, on_chunk_change="reset")
    until(lambda: _copied(run, there["b"]) >= 4, 30)
    path.write_text("1.25")
    own.workers["a"].kill()
    own.add("c")  # copies what is new, beside "b" that has what was
    result = run.result(timeout=60)
    words = " was computed again and has other values now: the fit is of these"
    changed = [int(note.removeprefix("chunk ").removesuffix(words)) for note in result.notes if words in note]
    assert len(changed) >= CHUNKS - 8
    assert_optimal(result, factored(changed))


def _copied(run: Any, worker: str) -> int:
    return sum(there.copies for there in run.profile().workers if there.worker == worker)


def edition_of(keys: dict[int, Any], dask_worker: Any) -> tuple[bool, bool, bool]:
    """Whether a copy is used, used at the next edition too, and a stale one copied meanwhile is kept."""
    from paramserver.workers.cache import ChunkCache

    cache = ChunkCache(dask_worker, ps.Logistic(), keys)
    cache._copies["copy"] = (X[:10], Y[:10])
    first = cache.load(0)
    again = cache.load(0)
    assert first is again
    return first.fingerprint is not None, cache.load(0, 1) is None, "copy" in cache._copies


def test_copies_made_before_a_change_are_let_go(own: Processes, client: Any) -> None:
    own.add("a")
    own.wait_for(client, "a")
    ((fingerprinted, gone, kept),) = client.run(edition_of, {0: ("copy",)}).values()
    assert (fingerprinted, gone, kept) == (True, True, False)


# -- the cluster is restarted --------------------------------------------------------------------------


def test_a_restart_of_the_cluster_ends_every_run() -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        kept = launch(client, ps.Logistic(), keep=True, name="kept")
        before = kept.result(timeout=60)
        runs = [launch(client, consensus=Endless(), name=f"endless-{k}") for k in range(2)]
        for run in runs:
            under_way(run)
        z = runs[0].params().z
        client.restart(timeout=60)
        for run in runs:
            with pytest.raises(errors.ClusterRestarted, match=r"was restarted while run 'endless.*z0= the parameters"):
                run.result(timeout=5)
            assert run.status().state == "failed"
        assert kept.result(timeout=5).version == before.version
        assert_nothing_left(client)
        check(launch(client, ps.Logistic(), name="endless-0", z0=z))
        assert_nothing_left(client)
