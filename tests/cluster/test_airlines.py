"""Airline files: read by the workers, wherever the client stands, and fitted to the optimum of plain pandas."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest
from airline_files import CARRIERS, one_hot, write_csv, write_parquet, year

import paramserver as ps
from cluster.helpers import Reference, reference
from tests.cluster.test_cli import cli, json_of

_watched: list[str] = []  #: folders whose files a process is watched opening
_opened: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(args[0], str):
        _opened.extend(args[0] for folder in _watched if args[0].startswith(folder))


sys.addaudithook(_hook)  # it cannot be taken off again: with nothing watched it does nothing


def watch(*folders: str) -> list[str]:
    """Watch these folders and no others; the files that were opened until now."""
    before = list(_opened)
    _opened.clear()
    _watched[:] = folders
    return before


@pytest.fixture
def opened(folder: Path, client: Any) -> Iterator[Callable[[], tuple[list[str], list[str]]]]:
    """The files of the folder that this process opened since the last look, and those that the workers did."""

    def look() -> tuple[list[str], list[str]]:
        theirs = client.run(watch, str(folder))
        return sorted(watch(str(folder))), sorted(path for paths in theirs.values() for path in paths)

    look()
    yield look
    watch()
    client.run(watch)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.concat([year(number, 3000) for number in CARRIERS], ignore_index=True)


@pytest.fixture(scope="module")
def folder(frame: pd.DataFrame, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("airlines")
    for number, part in frame.groupby(frame["Year"].astype(int)):
        write_csv(part, path / f"{number}.csv")
        write_csv(part, path / f"{number}.csv.bz2")
        write_parquet(part, path / f"{number}.parquet", 700)
    return path


@pytest.fixture(scope="module")
def exact(frame: pd.DataFrame) -> Reference:
    X, y = one_hot(frame)
    return reference(ps.Logistic(), X, y, ps.L2(1.0))


@pytest.mark.parametrize("expand", [False, True], ids=["codes", "expanded"])
@pytest.mark.parametrize("form", ["csv", "csv.bz2", "parquet"])
def test_the_fit_is_that_of_plain_pandas(
    client: Any, folder: Path, opened: Any, frame: pd.DataFrame, exact: Reference, form: str, expand: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)  # the workers are elsewhere
    X, y = ps.datasets.airlines(f"*.{form}", rows=800, expand=expand, client=client)
    here, there = opened()
    assert here == []  # neither to look at the files' columns nor for the pass over them
    assert len(set(there)) == 3
    result = ps.fit(ps.Logistic(), X, y, penalty=ps.L2(1.0), tol=1e-10, client=client)
    here, there = opened()
    assert here == []
    assert len(there) == X.npartitions  # once for features and target together
    features, late = one_hot(frame)
    assert result.converged
    assert (result.n_rows, result.n_chunks) == (len(late), X.npartitions)
    assert X.npartitions == (3 if form == "csv.bz2" else pytest.approx(12, abs=3))
    assert list(result.named()) == list(features.columns)
    assert exact.gap(result.z) <= 1e-10


def test_the_watch_sees_what_this_process_opens(folder: Path, opened: Any) -> None:
    with dask.config.set(scheduler="synchronous"):
        ps.datasets.airlines(folder / "1987.csv")
    here, there = opened()
    assert set(here) == {str(folder / "1987.csv")}
    assert there == []


def test_what_is_wrong_within_a_file_is_said_here(client: Any, tmp_path: Path) -> None:
    write_csv(year(1995).assign(DayOfWeek="8"), tmp_path / "1995.csv")
    with pytest.raises(ps.errors.InvalidInput, match=r"1995\.csv is not of .*its DayOfWeek is 8"):
        ps.datasets.airlines(tmp_path / "1995.csv", client=client)


def test_a_live_run_takes_another_year(client: Any, folder: Path) -> None:
    carriers = sorted({carrier for some in CARRIERS.values() for carrier in some})
    airports = ["ABQ", "ATL", "BOS", "JFK", "ORD", "SFO"]
    given = {"carrier": carriers, "origin": airports, "dest": airports}
    scale = {"distance": (1400.0, 750.0), "sched_dep_minute": (870.0, 320.0), "sched_arr_minute": (800.0, 400.0)}

    def read(*years: int) -> Any:
        paths = [folder / f"{number}.csv" for number in years]
        return ps.datasets.airlines(paths, categories=given, scale=scale, client=client)

    whole = ps.fit(ps.Logistic(), *read(1987, 1995, 2008), penalty=ps.L2(1.0), tol=1e-10, client=client)
    run = ps.launch(ps.Logistic(), *read(1987, 1995), penalty=ps.L2(1.0), tol=1e-10, keep=True, client=client)
    run.result()
    run.add(*read(2008))
    result = run.result()
    assert result.n_rows == whole.n_rows
    assert result.objective == pytest.approx(whole.objective, rel=1e-9)
    run.stop()


def test_parquet_of_any_layout_is_read_by_the_workers(client: Any, folder: Path, opened: Any, frame: Any) -> None:
    few = frame[["Origin", "Month", "CRSDepTime"]].astype({"Month": int, "CRSDepTime": float})
    (folder / "few").mkdir(exist_ok=True)
    for k in range(4):
        few.iloc[k::4].to_parquet(folder / "few" / f"{k}.parquet")
    opened()
    with client.as_current():
        X, y = ps.datasets.from_files(str(folder / "few"), "CRSDepTime")
    assert set(opened()[1]) == {str(folder / "few" / f"{k}.parquet") for k in range(4)}  # the levels of Origin
    result = ps.fit(ps.LeastSquares(), X, y, tol=1e-10, penalty=ps.L2(1.0), client=client)
    here, there = opened()
    assert here == []
    assert len(set(there)) == len(there) == 4
    one_hot_few = pd.get_dummies(few[["Origin"]], prefix_sep="=").astype(float).assign(Month=few["Month"])
    exact_few = reference(ps.LeastSquares(), one_hot_few, few["CRSDepTime"], ps.L2(1.0))
    assert list(result.named()) == list(one_hot_few.columns)
    assert exact_few.gap(result.z) <= 1e-10


def test_the_command_line(client: Any, folder: Path, exact: Reference) -> None:
    fit = ["fit", f"airlines:{folder}/*.csv.bz2", "--tol", "1e-10", "--scheduler", client.scheduler.address]
    result = json_of(cli(*fit, "--json"))
    assert (result["n_chunks"], result["n_features"]) == (3, 67)
    assert result["objective"] == pytest.approx(float(exact.objective), rel=1e-9)
    ps.forget("airlines", client)
    for words, text in (
        (["airlines:gone*.csv"], "nothing matches"),
        (["airlines:"], "no paths"),
        (["airlines:gone.csv", "--target", "late"], "airlines have their own target"),
        (["airlines:gone.csv", "--offset", "late"], "airlines have no such column"),
    ):
        out = cli("fit", *words, "--scheduler", client.scheduler.address)
        assert (out.returncode, "Traceback" in out.stderr) == (2, False), out.stderr
        assert text in out.stderr
