"""Files of a known layout in pieces: cut by whoever sees the files, read one by one where they are needed."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from paramserver.datasets.base import need
from paramserver.datasets.files import found, kind_of, parquet_in
from paramserver.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame

HEAD = 1 << 16  #: bytes of a CSV file that tell its columns, and how long its rows are
ENCODING = "latin-1"  # decodes any byte: columns that nobody asked for may hold what is no text at all
MISSING = ("NA", "")


class Layout(NamedTuple):
    """The columns that are read; files may have others, in any order."""

    name: str
    texts: tuple[str, ...]  #: become categories
    numbers: tuple[str, ...]  #: become float32

    @property
    def columns(self) -> list[str]:
        """All of them."""
        return [*self.texts, *self.numbers]

    @property
    def kinds(self) -> dict[str, Any]:
        """Column → dtype."""
        return {**dict.fromkeys(self.texts, "category"), **dict.fromkeys(self.numbers, "float32")}


class Piece(NamedTuple):
    """Rows of one file: of a CSV file those that begin between two bytes, of a Parquet file some row groups."""

    url: str
    header: tuple[str, ...] | None  #: the columns of a CSV file, None for Parquet
    start: int = 0
    stop: int | None = None  #: None: to the end


def cut(paths: Iterable[str], layout: Layout, rows: int) -> list[Piece]:
    """The files of these paths or globs in pieces of about so many rows; each file once.

    Raises
    ------
    InvalidInput
        Nothing matches one of the paths, or a file cannot be read or is not of the layout.
    """
    pieces: list[Piece] = []
    for url, (kind, compressed) in _files(paths).items():
        try:
            pieces += _parquet(url, layout, rows) if kind == "parquet" else _csv(url, compressed, layout, rows)
        except (OSError, EOFError, ValueError) as error:
            raise _refusal(url, error) from error
    return pieces


def read(piece: Piece, layout: Layout) -> DataFrame:
    """Its rows as a pandas frame of the layout's columns; InvalidInput, which names the file, where it cannot be."""
    try:
        frame: DataFrame = _read_parquet(piece, layout) if piece.header is None else _read_csv(piece, layout)
        typed: DataFrame = frame[layout.columns].astype(layout.kinds)
        return typed
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise _refusal(piece.url, error) from error


def _refusal(url: str, error: Exception) -> InvalidInput:
    return error if isinstance(error, InvalidInput) else InvalidInput(f"{url} cannot be read: {error}")


def _files(paths: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """URL → kind and whether it is compressed, of all files."""
    files: dict[str, tuple[str, bool]] = {}
    for path in paths:
        fs, names = found(path)
        for name in names:
            kind = kind_of(fs, name)
            for file in parquet_in(fs, name) if fs.isdir(name) else [name]:
                files[_url(fs, file)] = kind
    return files


def _url(fs: Any, name: str) -> str:
    local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    return name if local else str(fs.unstrip_protocol(name))


def _open(url: str) -> Any:
    """A context that gives the file's bytes, unpacked where its suffix says that they are compressed."""
    return need("fsspec", "dataframe").open(url, "rb", compression="infer")


def _check(url: str, names: Sequence[str], layout: Layout) -> None:
    lacking = [column for column in layout.columns if column not in names]
    if lacking:
        raise InvalidInput(
            f"{url} is not of the {layout.name} layout: it has no column {', '.join(map(repr, lacking))}, "
            f"its columns are {', '.join(map(repr, names)) or 'none: it is empty'}"
        )


# -- CSV -------------------------------------------------------------------------------------------


def _csv(url: str, compressed: bool, layout: Layout, rows: int) -> list[Piece]:
    """By lengths of bytes that hold about so many rows; whole where it is compressed, which nobody can enter midway."""
    with _open(url) as file:
        head: bytes = file.read(HEAD)
        size = None if compressed else file.seek(0, io.SEEK_END)
    first = next(csv.reader([head.partition(b"\n")[0].decode(ENCODING)]), [])
    names = tuple(name.strip() for name in first)
    _check(url, names, layout)
    if size is None:
        return [Piece(url, names)]
    length = len(head) / max(head.count(b"\n"), 1)
    n = max(1, round(size / (rows * length)))
    edges = [size * k // n for k in range(n + 1)]
    return [Piece(url, names, a, b) for a, b in itertools.pairwise(edges)]


def _read_csv(piece: Piece, layout: Layout) -> Any:
    pd = need("pandas", "dataframe")
    kinds = layout.kinds
    options = {
        "names": piece.header, "header": 0 if piece.start == 0 else None, "usecols": layout.columns, "dtype": kinds,
        "na_values": MISSING, "keep_default_na": False, "encoding": ENCODING,
    }  # fmt: skip
    with _open(piece.url) as file:
        if piece.stop is None:
            return pd.read_csv(file, **options)
        lines = need("fsspec.utils", "dataframe").read_block(file, piece.start, piece.stop - piece.start, b"\n")
    if not lines:  # no row begins here
        return pd.DataFrame({name: pd.Series(dtype=kinds[name]) for name in layout.columns})
    return pd.read_csv(io.BytesIO(lines), **options)


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet(url: str, layout: Layout, rows: int) -> list[Piece]:
    """By row groups, which cannot be cut: small ones together up to so many rows."""
    with _open(url) as file:
        metadata = need("pyarrow.parquet", "dataframe").ParquetFile(file).metadata
        names = metadata.schema.to_arrow_schema().names
        sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    _check(url, names, layout)
    pieces, start, held = [], 0, 0
    for k, size in enumerate(sizes):
        if held and held + size > rows:
            pieces.append(Piece(url, None, start, k))
            start, held = k, 0
        held += size
    return [*pieces, Piece(url, None, start, len(sizes))]


def _read_parquet(piece: Piece, layout: Layout) -> Any:
    groups = range(piece.start, piece.stop or 0)
    with _open(piece.url) as file:
        table = need("pyarrow.parquet", "dataframe").ParquetFile(file).read_row_groups(groups, columns=layout.columns)
    return table.to_pandas()
