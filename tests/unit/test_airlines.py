"""Files of the Data Expo's layout, written here, into the features of the flights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from airline_files import AIRPORTS, CARRIERS, one_hot, write_csv, write_parquet, year

from paramserver.datasets import Encoded, airlines, flights
from paramserver.datasets.dataexpo import LAYOUT
from paramserver.datasets.pieces import cut, read
from paramserver.errors import InvalidInput

YEARS = sorted(CARRIERS)


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def frames() -> list[pd.DataFrame]:
    return [year(number) for number in YEARS]


@pytest.fixture(scope="module")
def folder(frames: list[pd.DataFrame], tmp_path_factory: Any) -> Path:
    """Each year in each form."""
    path = tmp_path_factory.mktemp("airlines")
    for number, frame in zip(YEARS, frames, strict=True):
        write_csv(frame, path / f"{number}.csv")
        write_csv(frame, path / f"{number}.csv.bz2")
        (path / "quoted").mkdir(exist_ok=True)
        write_csv(frame, path / "quoted" / f"{number}.csv", csv.QUOTE_ALL)
        (path / "parquet").mkdir(exist_ok=True)
        write_parquet(frame, path / "parquet" / f"{number}.parquet", 150)
    return path


def dense(X: Any) -> np.ndarray:
    if not isinstance(X, Encoded):
        return X.compute().to_numpy()
    tables = dask.compute(*X.tables)
    return np.concatenate([block.dot(np.eye(table.shape[1])) for table in tables for _, block in table.blocks()])


def names(X: Any) -> list[str]:
    return list(X.names if isinstance(X, Encoded) else X.columns)


@pytest.mark.parametrize("expand", [True, False], ids=["expanded", "codes"])
@pytest.mark.parametrize("form", ["*.csv", "*.csv.bz2", "quoted/*.csv", "parquet", "parquet/*.parquet"])
@pytest.mark.parametrize("rows", [100, 10_000])
def test_all_forms_are_what_plain_pandas_makes_of_them(frames, folder, form, expand, rows):
    X, y = airlines(f"{folder}/{form}", rows=rows, expand=expand)
    features, late = one_hot(pd.concat(frames, ignore_index=True))
    assert names(X) == list(features.columns)
    np.testing.assert_allclose(dense(X), features.to_numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y.compute().to_numpy(), late)
    assert X.npartitions == y.npartitions
    if rows == 10_000 or form.endswith("bz2"):
        assert X.npartitions == len(YEARS)
    else:
        assert X.npartitions >= 4 * len(YEARS)


def test_partitions_of_features_and_target_have_the_same_rows(folder):
    X, y = airlines(f"{folder}/*.csv", rows=50, expand=True)
    lengths = dask.compute(
        [dask.delayed(len)(part) for part in X.to_delayed()], [dask.delayed(len)(p) for p in y.to_delayed()]
    )
    assert lengths[0] == lengths[1]
    X = airlines(f"{folder}/*.csv", rows=50).X
    assert [table.shape[0] for table in dask.compute(*X.tables)] == lengths[0]


def test_the_names_are_those_of_the_flights(folder):
    ours, theirs = airlines(str(folder / "parquet")).X, flights(expand=False).X
    assert list(dict.fromkeys(name.partition("=")[0] for name in ours.names)) == list(
        dict.fromkeys(name.partition("=")[0] for name in theirs.names)
    )
    fixed = {name for name in theirs.names if name.split("=")[0] in ("month", "hour", "weekday")}
    assert fixed < set(ours.names)


def test_several_paths_and_each_file_once(frames, folder, monkeypatch):
    monkeypatch.chdir(folder)
    paths = ["1987.csv", Path("1995.csv.bz2"), "parquet/2008*", f"{folder}/19*7.csv"]
    X, y = airlines(paths)
    features, late = one_hot(pd.concat(frames, ignore_index=True))
    np.testing.assert_allclose(dense(X), features.to_numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y.compute().to_numpy(), late)


def test_given_levels_and_scale_need_no_pass_and_join_other_years(frames, folder):
    carriers = sorted({carrier for some in CARRIERS.values() for carrier in some})
    given = {"carrier": carriers, "origin": reversed(AIRPORTS), "dest": AIRPORTS}
    scale = {"distance": (1000.0, 500.0), "sched_dep_minute": (720, 1), "sched_arr_minute": (0.0, 60.0)}
    garbled = folder / "garbled"
    garbled.mkdir()
    (garbled / "1987.csv").write_bytes((folder / "1987.csv").read_bytes().replace(b"\n1987,", b"\n1987,x"))
    X, _ = airlines(garbled / "1987.csv", categories={**given, "origin": AIRPORTS}, scale=scale)
    with pytest.raises(InvalidInput, match=r"1987\.csv cannot be read"):
        dask.compute(X.tables)  # and not before

    X, _ = airlines(folder / "1995.csv", categories=given, scale=scale)
    assert [name for name in X.names if name.startswith("carrier=")] == [f"carrier={carrier}" for carrier in carriers]
    assert X.names[len(carriers)] == "origin=SFO"
    kept = frames[1][(frames[1][["ArrDelay", "Distance"]] != "NA").all(axis=1)]
    np.testing.assert_allclose(dense(X)[:, -3], (kept["Distance"].astype(float) - 1000) / 500)

    X, _ = airlines(folder / "1995.csv", categories={"carrier": CARRIERS[1987]}, scale=scale)
    with pytest.raises(InvalidInput, match=r"'carrier' has the level '(DL|HP|UA)'"):
        dask.compute(X.tables)


def test_pieces_hold_every_row_once_wherever_they_are_cut(frames, folder):
    for rows in (1, 7, 300):
        pieces = cut([str(folder / "1987.csv")], LAYOUT, rows)
        together = pd.concat([read(piece, LAYOUT).astype({"Origin": str}) for piece in pieces])
        assert len(pieces) == pytest.approx(600 / rows, rel=0.1)
        assert together["Origin"].tolist() == frames[0]["Origin"].tolist()
        expected = pd.to_numeric(frames[0]["ArrDelay"], errors="coerce").to_numpy()
        np.testing.assert_array_equal(together["ArrDelay"], expected)


def test_small_row_groups_are_read_together(folder):
    groups = [(piece.start, piece.stop) for piece in cut([str(folder / "parquet" / "1987.parquet")], LAYOUT, 300)]
    assert groups == [(0, 2), (2, 4)]


def change(folder: Path, old: str, new: str, name: str = "odd.csv") -> Path:
    path = folder / name
    path.write_text((folder / "1995.csv").read_text("latin-1").replace(old, new, 1), "latin-1")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ArrDelay", "ARR_DELAY", r"odd\.csv is not of the Data Expo airline layout: .* no column 'ArrDelay'.*'Year'"),
        ("Year,Month", "1995,1", r"no column 'Month'"),
        ("1995,1,1,", "1995,13,1,", r"odd\.csv is not of .*its Month is 13 in a row \(and in 0 more\)"),
        ("1995,1,1,7", "1995,1,1,0", r"its DayOfWeek is 0 .*not within 1 … 7"),
        ("1995,1,1,7,5,0,", "1995,1,1,7,5,1361,", r"its CRSDepTime is 1361 .*no time of day"),
        ("1995,1,1,7,5,0,", "1995,1,1,7,5,x,", r"odd\.csv cannot be read: .*'x'"),
        ("\n1995,1,1,7,", "\n" + ",".join("9" * 40) + "\n1995,1,1,7,", r"odd\.csv cannot be read: "),
    ],
)
def test_what_is_not_of_the_layout_is_refused_by_name(folder, tmp_path, old, new, message):
    (tmp_path / "1995.csv").write_bytes((folder / "1995.csv").read_bytes())
    path = change(tmp_path, old, new)
    assert path.read_bytes() != (tmp_path / "1995.csv").read_bytes()
    with pytest.raises(InvalidInput, match=message):
        airlines(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", r"empty\.csv is not of .*it is empty"),
        ("broken.csv.bz2", b"no bz2 at all", r"broken\.csv\.bz2 cannot be read: "),
        ("broken.parquet", b"no parquet at all", r"broken\.parquet cannot be read: "),
        ("1987.txt", b"Year\n", r"1987\.txt has no suffix that says what it is"),
    ],
)
def test_what_is_no_such_file_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        airlines(tmp_path / name)


def test_a_file_cut_short_is_refused_by_name(folder, tmp_path):
    (tmp_path / "short.csv.bz2").write_bytes((folder / "1987.csv.bz2").read_bytes()[:-2000])
    with pytest.raises(InvalidInput, match=r"short\.csv\.bz2 cannot be read: "):
        airlines(tmp_path / "short.csv.bz2")


def test_parquet_that_lacks_a_column_or_has_text_for_numbers_is_refused_by_name(frames, tmp_path):
    frames[0].drop(columns=["Dest"]).to_parquet(tmp_path / "less.parquet")
    frames[0].to_parquet(tmp_path / "texts.parquet")
    with pytest.raises(InvalidInput, match=r"less\.parquet is not of .*no column 'Dest'"):
        airlines(tmp_path / "less.parquet")
    with pytest.raises(InvalidInput, match=r"texts\.parquet cannot be read: .*'NA'"):
        airlines(tmp_path / "texts.parquet")


def test_files_without_any_known_delay_are_refused(frames, tmp_path):
    write_csv(frames[0][frames[0]["ArrDelay"] == "NA"], tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="no flight with a known ArrDelay"):
        airlines(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("paths", "arguments", "message"),
    [
        ("2009*.csv", {}, r"nothing matches .*2009\*\.csv"),
        (["1987.csv", "gone.csv"], {}, r"nothing matches .*gone\.csv"),
        ([], {}, "no paths"),
        ("1987.csv", {"rows": 0}, "rows must be a whole number ≥ 1, got 0"),
        ("1987.csv", {"categories": {"month": [1]}}, "categories has 'month'; levels can be given for 'carrier'"),
        ("1987.csv", {"categories": {"carrier": "AA"}}, "must be a list of levels"),
        ("1987.csv", {"scale": {"hour": (0, 1)}}, "scale has 'hour'; it is for 'distance'"),
        ("1987.csv", {"scale": {"distance": 3}}, r"scale\['distance'\] must be \(mean, sd\), got 3"),
        ("1987.csv", {"scale": {"distance": (0, 0)}}, "an sd > 0"),
    ],
)
def test_wrong_arguments_are_refused(folder, monkeypatch, paths, arguments, message):
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidInput, match=message):
        airlines(paths, **arguments)
