"""Checkpoints at a URL: a run goes on from them on another cluster, or with another server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from cluster.helpers import Endless, Processes, Slow, processes, until

import paramserver as ps
from paramserver import errors
from paramserver.server.store import Store

from .helpers import CHUNKS, PENALTY, X, Y, check, launch, lazy, names, under_way


def resume(url: Any, client: Any, data: Any = None, problem: Any = None, **options: Any) -> Any:
    return ps.resume(url, problem or ps.Logistic(), *(data or lazy()), client=client, **options)


def written(url: Path, count: int = 1) -> list[str]:
    return until(lambda: len(found := Store(url).names()) >= count and found, 20)  # type: ignore[no-any-return]


def test_the_scheduler_dies_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    """A whole cluster is lost; from the checkpoint the fit is a matter of a verification."""
    url = tmp_path / "run"
    with processes(tmp_path) as first, first.client(set_as_default=False, timeout=5) as client:
        first.add("a", "b")
        first.wait_for(client, "a", "b")
        run = launch(client, Slow(delay=0.15), checkpoint=url, checkpoint_every=0.2)
        under_way(run, 40)
        written(url, 2)
        first.scheduler.kill()
        first.scheduler.wait(10)
    with processes(tmp_path) as second, second.client(set_as_default=False) as client:
        second.add("c")
        second.wait_for(client, "c")
        again = resume(url, client, tol=1e-8)
        result = check(again)
        assert result.version.epoch == 2
        assert any("of 16 chunks with their local models" in note for note in result.notes)
        assert result.n_pushes <= 4 * CHUNKS
        assert Store(url).names()[-1].startswith("000002")


def test_suspended_it_loses_no_push(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    run = launch(client, Slow(delay=0.05), consensus="admm", checkpoint=tmp_path / "run", checkpoint_every=1e6)
    under_way(run, 70)
    before = run.status()
    run.suspend()
    with pytest.raises(errors.RunFailed, match=r"suspended.*resume"):
        run.result(timeout=10)
    again = resume(tmp_path / "run", client)
    result = check(again)
    assert any("16 of 16 chunks with their local models" in note for note in result.notes)
    (taken,) = (int(note.split()[2]) for note in result.notes if note.startswith("resumed from"))
    assert taken >= before.pushes


def test_nothing_to_suspend_to(own: Processes, client: Any) -> None:
    own.add("a")
    own.wait_for(client, "a")
    run = launch(client, Slow(delay=0.1))
    under_way(run)
    with pytest.raises(errors.InvalidInput, match="checkpoint="):
        run.suspend()
    check(run)


def test_what_is_resumed_has_its_settings(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a")
    own.wait_for(client, "a")
    rule = ps.ADMM(rho=0.7)
    first = ps.fit(
        ps.Logistic(), *lazy(), penalty=ps.ElasticNet(3.0, 0.25), consensus=rule, tol=1e-5, client=client,
        checkpoint=tmp_path / "run",
    )  # fmt: skip
    result = resume(tmp_path / "run", client).result(timeout=60)
    assert (result.consensus, result.penalty) == (first.consensus, first.penalty)
    assert result.converged
    assert result.gap <= 1e-5
    assert any("16 of 16 chunks with their local models" in note for note in result.notes)


def test_other_data_in_some_chunks_and_another_order(own: Processes, client: Any, tmp_path: Path) -> None:
    """Chunks are known again by what they hold; others begin afresh, and are counted."""
    own.add("a")
    own.wait_for(client, "a")
    ps.fit(ps.Logistic(), *lazy(), penalty=PENALTY, tol=1e-6, client=client, checkpoint=tmp_path / "run")
    rows = len(X) // CHUNKS
    order = np.concatenate([np.arange(rows * k, rows * (k + 1)) for k in range(CHUNKS)][::-1])
    X2, Y2 = X[order].copy(), Y[order].copy()
    X2[:rows] += 0.5  # the last that was, now the first
    data = da.from_array(X2, chunks=(rows, -1)), da.from_array(Y2, chunks=rows)
    result = resume(tmp_path / "run", client, data, tol=1e-8).result(timeout=60)
    assert any("15 of 16 chunks with their local models; afresh: 0" in note for note in result.notes)
    whole = ps.fit(ps.Logistic(), X2, Y2, penalty=PENALTY, tol=1e-10, client=client)
    assert result.converged
    assert abs(result.objective - whole.objective) <= 2e-8 * whole.objective


def test_another_number_of_columns_begins_anew(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a")
    own.wait_for(client, "a")
    ps.fit(ps.Logistic(), *lazy(), penalty=PENALTY, client=client, checkpoint=tmp_path / "run")
    X3 = X[:, :5]
    result = resume(tmp_path / "run", client, (X3, Y)).result(timeout=60)
    assert result.converged
    assert any("not of this problem's size" in note for note in result.notes)


def test_a_damaged_checkpoint_is_passed_over(own: Processes, client: Any, tmp_path: Path, caplog: Any) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    url = tmp_path / "run"
    run = launch(client, Slow(delay=0.05), consensus=Endless(), checkpoint=url, checkpoint_every=0.3)
    written(url, 2)
    run.stop()
    until(lambda: not list(url.glob("*.tmp")))  # one that was under way may be of the same pushes
    newest = url / Store(url).names()[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    check(resume(url, client, consensus="newton", tol=1e-8))
    assert newest.name in caplog.text


def test_no_usable_checkpoint(client: Any, tmp_path: Path) -> None:
    with pytest.raises(errors.CheckpointError):
        resume(tmp_path / "nothing", client)
    (tmp_path / "run").mkdir()
    Store(tmp_path / "run").write(1, 1, b"foreign")
    with pytest.raises(errors.CheckpointError, match="is damaged"):
        resume(tmp_path / "run", client)


def test_a_place_in_use_is_refused(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a")
    own.wait_for(client, "a")
    ps.fit(ps.Logistic(), *lazy(), penalty=PENALTY, client=client, checkpoint=tmp_path / "run")
    with pytest.raises(errors.InvalidInput, match=r"another run.*ps\.resume"):
        launch(client, checkpoint=tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.InvalidInput):
        launch(client, checkpoint=tmp_path / "file" / "below")


def test_a_server_that_takes_over_has_the_local_models(own: Processes, client: Any, tmp_path: Path) -> None:
    """Also those of chunks whose worker died with it: the checkpoint has them."""
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    url = tmp_path / "run"
    run = launch(client, ps.Logistic(), consensus=Endless(), checkpoint=url, checkpoint_every=0.3)
    mine, _ = names(own, client, under_way(run, 60))
    written(url, 2)
    own.workers[mine].kill()
    until(lambda: run.status().epoch == 2, 20)
    assert len(run.duals()) == CHUNKS
    until(lambda: any(name.startswith("000002") for name in Store(url).names()), 20)
    until(lambda: all(name.startswith("000002") for name in Store(url).names()), 20)
    time.sleep(1.0)
    assert 1 <= len(Store(url).names()) <= 2
    run.stop()


def pause(dask_worker: Any) -> None:
    """Its memory monitor does so from now on: it has too much in use."""
    dask_worker.memory_manager.memory_pause_fraction = 1e-9


def test_an_early_warning_writes_a_checkpoint(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a", "b")
    own.wait_for(client, "a", "b")
    url = tmp_path / "run"
    run = launch(client, ps.Logistic(), consensus=Endless(), checkpoint=url, checkpoint_every=1e4)
    server = under_way(run, 60)
    assert not Store(url).names()
    client.run(pause, workers=[server])
    written(url)
    run.stop()


def test_a_place_that_is_gone_does_not_end_the_run(own: Processes, client: Any, tmp_path: Path) -> None:
    own.add("a")
    own.wait_for(client, "a")
    url = tmp_path / "run"
    run = launch(client, Slow(delay=0.05), checkpoint=url, checkpoint_every=0.5)
    under_way(run, 4)
    until(url.exists, 10)
    for file in url.iterdir():
        file.unlink()
    url.rmdir()
    url.write_text("a file now")
    result = check(run)
    assert any("no checkpoint was written" in note for note in result.notes)
