"""What a store gives back is what was written, and what cannot be used it says and passes over."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from paramserver.errors import CheckpointError, InvalidInput
from paramserver.server import seal
from paramserver.server.store import Store

DATA = bytes(range(40))
WHOLE = seal.header(DATA) + DATA
FIRST, SECOND = "000002-000000000001.ckpt", "000002-000000000002.ckpt"


class Raw:
    """The files below a store, past the store."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.root = fsspec.core.url_to_fs(url)

    def get(self, name: str) -> bytes:
        return self.fs.cat_file(f"{self.root}/{name}")

    def put(self, name: str, data: bytes) -> None:
        self.fs.makedirs(self.root, exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{name}", data)

    def files(self) -> list[str]:
        try:
            return sorted(path.rsplit("/", 1)[-1] for path in self.fs.ls(self.root, detail=False))
        except FileNotFoundError:
            return []


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://bucket/run"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(params=["directory", "bucket"])
def raw(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Raw:
    return Raw(str(tmp_path / "deep" / "run") if request.param == "directory" else bucket)


@pytest.mark.parametrize("data", [b"", b"\x00", DATA, os.urandom(100_000)], ids=len)
def test_what_is_written_comes_back(raw: Raw, data: bytes) -> None:
    store = Store(raw.url)
    assert store.names() == []
    assert store.write(2, 123, data) == "000002-000000000123.ckpt"
    for reader in (store, Store(raw.url), pickle.loads(pickle.dumps(store))):
        assert reader.names() == ["000002-000000000123.ckpt"]
        assert reader.read("000002-000000000123.ckpt") == data
        assert reader.newest() == ("000002-000000000123.ckpt", data, [])


def test_written_again_is_replaced(raw: Raw) -> None:
    store = Store(raw.url)
    store.write(2, 1, b"one")
    store.write(2, 1, b"another")
    assert store.read(FIRST) == b"another"
    assert store.names() == [FIRST]


def test_order_is_by_number_not_by_text(raw: Raw) -> None:
    store = Store(raw.url)
    keys = [(1, 5), (2, 0), (2, 9), (2, 10), (2, 10**12), (999_999, 7), (1_000_000, 1)]
    names = [store.write(epoch, number, b"") for epoch, number in reversed(keys)][::-1]
    assert store.names() == names
    assert store.names() != sorted(names)


def test_epoch_and_number_count_from_0(raw: Raw) -> None:
    for key in ((-1, 0), (0, -1)):
        with pytest.raises(InvalidInput, match="count from 0"):
            Store(raw.url).write(*key, b"")


FOREIGN = [
    "notes.txt", "000002-1.ckpt", "0000002-000000000001.ckpt", FIRST + ".bak", "x" + FIRST, FIRST + ".tmp",
    f"x{FIRST}.{'0' * 32}.tmp", "٠٠٠٠٠٢-000000000001.ckpt", "probe-1", "-1-00000000001.ckpt",
]  # fmt: skip


@pytest.mark.parametrize("manifests", [True, False])
def test_foreign_names_are_ignored_and_left(raw: Raw, manifests: bool) -> None:
    store = Store(raw.url)
    for name in FOREIGN:
        raw.put(name, WHOLE)
        if manifests:
            raw.put(name + ".ok", b"")
    files = raw.files()
    assert store.names() == []
    store.write(2, 5, DATA)
    store.write(3, 0, DATA)
    for epoch in (2, 3):
        store.prune(epoch, keep=0)
    assert raw.files() == files


@pytest.mark.parametrize("name", ["../secret", "notes.txt", ""])
def test_only_checkpoints_are_read(raw: Raw, name: str) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint's name"):
        Store(raw.url).read(name)


def test_what_is_not_there_is_said(raw: Raw) -> None:
    store = Store(raw.url)
    with pytest.raises(CheckpointError, match=f"{FIRST} is not there"):
        store.read(FIRST)
    with pytest.raises(CheckpointError, match=f"there is no checkpoint in .*{raw.root}"):
        store.newest()


def damaged(raw: Raw, file: str, content: bytes) -> str:
    """What a store says of a newest checkpoint that was damaged so, having fallen back to the one before."""
    raw.put(file, content)
    store = Store(raw.url)
    with pytest.raises(CheckpointError) as caught:
        store.read(SECOND)
    assert store.newest() == (FIRST, b"before", [str(caught.value)])
    assert SECOND in str(caught.value)
    return str(caught.value)


@pytest.fixture
def two(raw: Raw) -> Raw:
    store = Store(raw.url)
    store.write(2, 1, b"before")
    store.write(2, 2, DATA)
    assert raw.get(SECOND) == WHOLE
    return raw


def test_every_truncation_is_noticed(two: Raw) -> None:
    for length in range(len(WHOLE)):
        assert "is truncated" in damaged(two, SECOND, WHOLE[:length])


def test_every_flipped_bit_is_noticed(two: Raw) -> None:
    for bit in range(8 * len(WHOLE)):
        content = bytearray(WHOLE)
        content[bit // 8] ^= 1 << bit % 8
        damaged(two, SECOND, bytes(content))


def test_every_added_byte_is_noticed(two: Raw) -> None:
    for more in (b"\x00", b"\n", WHOLE):
        assert "is damaged" in damaged(two, SECOND, WHOLE + more)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b"PK\x03\x04" * 40, MemoryFileSystem.__name__.encode() * 9])
def test_a_foreign_file_is_foreign(two: Raw, content: bytes) -> None:
    assert "is foreign" in damaged(two, SECOND, content)


@pytest.mark.parametrize("rest", [b"", b"\x00" * 3, WHOLE[12:], b"\xff" * 90])
def test_a_newer_format_is_named_whatever_follows(two: Raw, rest: bytes) -> None:
    told = damaged(two, SECOND, seal.MAGIC + struct.pack(">I", seal.FORMAT + 6) + rest)
    assert f"is of a newer version: this paramserver reads format {seal.FORMAT}, not {seal.FORMAT + 6}" in told


def test_a_format_that_never_was_is_damage(two: Raw) -> None:
    assert "is damaged" in damaged(two, SECOND, seal.MAGIC + struct.pack(">I", 0) + WHOLE[12:])


def test_the_format_is_what_it_was() -> None:
    """Byte by byte, since old checkpoints are to be read: another layout needs another FORMAT."""
    assert WHOLE[:20] == b"\x93PSCK\r\n\x1a" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x00\x00\x00\x00\x28"
    assert WHOLE[20:52].hex() == "696415ef3cb19636a196871fc67b99ae8bd6f646d2bcdea37429d2d651d2411f"
    assert WHOLE[52:] == DATA


def test_all_problems_are_named_where_none_can_be_used(raw: Raw) -> None:
    store = Store(raw.url)
    for number, content in enumerate([b"a letter, and no checkpoint", WHOLE[:-1], WHOLE[:-1] + b"!"], 1):
        raw.put(store.write(2, number, DATA), content)
    with pytest.raises(CheckpointError, match=r"0003.ckpt is damaged.*0002.ckpt is truncated.*0001.ckpt is foreign"):
        store.newest()


def test_what_is_pruned_while_it_is_looked_for_is_no_end(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer goes on, and prunes what was listed, before it is read."""
    store, other = Store(raw.url), Store(raw.url)
    store.write(2, 1, b"old")
    read = store.read

    def late(name: str) -> bytes:
        if name == FIRST:
            other.write(2, 2, b"new")
            other.prune(2, keep=1)
        return read(name)

    monkeypatch.setattr(store, "read", late)
    name, data, problems = store.newest()
    assert (name, data) == (SECOND, b"new")
    assert [FIRST in problem for problem in problems] == [True]


def test_prune_keeps_the_newest_and_every_other_epoch(raw: Raw) -> None:
    store = Store(raw.url)
    others = [store.write(epoch, number, b"") for epoch in (1, 3) for number in range(4)]
    own = [store.write(2, number, b"") for number in (1, 2, 9, 10)]
    store.prune(4)
    store.prune(2, keep=5)
    assert set(store.names()) == {*others, *own}
    store.prune(2)
    assert set(store.names()) == {*others, *own[2:]}
    store.prune(2, keep=1)
    assert set(store.names()) == {*others, own[3]}
    store.prune(2, keep=0)
    assert set(store.names()) == set(others)
    assert not any(file.startswith("000002") for file in raw.files())
    with pytest.raises(InvalidInput, match="keep must be at least 0"):
        store.prune(1, keep=-1)


def test_what_vanishes_while_pruning_is_no_error(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(raw.url)
    for number in range(4):
        store.write(2, number, b"")
    files = store._place.files()
    store.prune(2, keep=1)
    monkeypatch.setattr(store._place, "files", lambda: files)
    store.prune(2, keep=1)
    assert Store(raw.url).names() == ["000002-000000000003.ckpt"]


def die(*args: object, **kwargs: object) -> NoReturn:
    raise KeyboardInterrupt


def begin(raw: Raw, epoch: int, number: int) -> list[str]:
    """Die after the data, before what makes them a checkpoint; returns the files left behind."""
    before = raw.files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", die)
        patch.setattr("os.remove", die)  # nor does a dead process tidy up
        patch.setattr("paramserver.server.places._manifest", die)
        with pytest.raises(KeyboardInterrupt):
            Store(raw.url).write(epoch, number, DATA)
    return sorted({*raw.files()} - {*before})


def test_what_a_dying_writer_leaves_is_not_seen(two: Raw) -> None:
    (left,) = begin(two, 2, 3)
    assert left.startswith("000002-000000000003.ckpt")
    assert two.get(left) == WHOLE
    store = Store(two.url)
    assert store.names() == [FIRST, SECOND]
    assert store.newest() == (SECOND, DATA, [])
    with pytest.raises(CheckpointError, match="is not there, or not whole"):
        store.read("000002-000000000003.ckpt")


def test_what_dying_writers_leave_is_pruned_once_it_is_stale(two: Raw) -> None:
    store = Store(two.url)
    (other,) = begin(two, 1, 9)
    (stale,) = begin(two, 2, 3)
    store.write(2, 4, b"")
    (under_way,) = begin(two, 2, 5)
    store.prune(2)
    files = two.files()
    assert stale not in files
    assert {other, under_way} <= {*files}
    store.write(3, 0, b"")
    store.prune(2)
    assert under_way not in two.files()
    assert other in two.files()
    assert store.names() == [SECOND, "000002-000000000004.ckpt", "000003-000000000000.ckpt"]


def test_what_was_written_again_by_another_is_stale(tmp_path: Path) -> None:
    raw = Raw(str(tmp_path))
    begin(raw, 2, 1)
    Store(raw.url).write(2, 1, DATA)
    Store(raw.url).prune(2)
    assert raw.files() == [FIRST]


def test_pruning_where_nothing_is_finished(raw: Raw) -> None:
    Store(raw.url).prune(2)
    left = begin(raw, 2, 1)
    Store(raw.url).prune(2, keep=0)
    assert raw.files() == left
    assert len(left) == 1


def test_data_without_a_manifest_do_not_exist(bucket: str) -> None:
    raw = Raw(bucket)
    raw.put(FIRST, WHOLE)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Store(bucket).newest()
    Store(bucket).write(2, 1, DATA)
    assert Store(bucket).newest() == (FIRST, DATA, [])


def test_a_manifest_without_its_data_is_told(bucket: str) -> None:
    store, raw = Store(bucket), Raw(bucket)
    store.write(2, 1, b"before")
    store.write(2, 2, DATA)
    raw.fs.rm_file(f"{raw.root}/{SECOND}")
    name, _, (problem,) = store.newest()
    assert name == FIRST
    assert f"{SECOND} is not there" in problem


def test_a_damaged_manifest_is_noticed(bucket: str) -> None:
    store, raw = Store(bucket), Raw(bucket)
    store.write(2, 1, b"before")
    store.write(2, 2, DATA)
    manifest = raw.get(SECOND + ".ok")
    assert b'"size": 92' in manifest
    for k in range(len(manifest)):
        damaged(raw, SECOND + ".ok", manifest[:k])
        for bit in range(8):
            flipped = bytes([manifest[k] ^ 1 << bit])
            told = damaged(raw, SECOND + ".ok", manifest[:k] + flipped + manifest[k + 1 :])
            assert "is damaged: its manifest" in told


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write(2, 1, b"before")

    def full(handle: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InvalidInput, match=r"No space left on device.*with room"):
        store.write(2, 2, DATA)
    assert os.listdir(tmp_path) == [FIRST]
    assert store.read(FIRST) == b"before"


def test_data_are_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = Store(tmp_path / "run"), []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(handle: int) -> None:
        about = os.fstat(handle)
        log.append("directory" if stat.S_ISDIR(about.st_mode) else about.st_size)
        fsync(handle)

    def logged_replace(source: str, target: str) -> None:
        log.append("rename")
        replace(source, target)

    monkeypatch.setattr("os.fsync", logged_fsync)
    monkeypatch.setattr("os.replace", logged_replace)
    store.write(2, 1, DATA)
    assert log == ["directory", len(WHOLE), "rename", "directory"]


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_directories_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fails: bool
) -> None:
    fsync = os.fsync

    def on_files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr("os.fsync", on_files_only)
    if fails:
        with pytest.raises(InvalidInput, match="Input/output error"):
            Store(tmp_path).write(2, 1, DATA)
    else:
        Store(tmp_path).write(2, 1, DATA)
        assert Store(tmp_path).read(FIRST) == DATA


def test_writers_of_two_epochs_do_not_meet(raw: Raw) -> None:
    """And a reader always finds a whole one, of the newer epoch as soon as there is one."""
    seen: list[tuple[int, bytes, list[str]]] = []
    errors: list[Exception] = []
    Store(raw.url).write(1, 0, b"1-0" * 999)
    done = threading.Event()

    def write(epoch: int) -> None:
        store = Store(raw.url)
        for number in range(1, 30):
            store.write(epoch, number, f"{epoch}-{number}".encode() * 999)
            store.prune(epoch)

    def read() -> None:
        store = Store(raw.url)
        while not done.is_set():
            name, data, problems = store.newest()
            seen.append((int(name[:6]), data, problems))

    def guarded(work: object, *args: int) -> None:
        try:
            work(*args)
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=guarded, args=(read,))
    writers = [threading.Thread(target=guarded, args=(write, epoch)) for epoch in (1, 2)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert errors == []
    assert seen
    epochs = [epoch for epoch, _, _ in seen]
    assert epochs == sorted(epochs)
    for epoch, data, problems in seen:
        assert data in {f"{epoch}-{number}".encode() * 999 for number in range(30)}
        assert not any(word in problem for problem in problems for word in ("damaged", "truncated", "foreign"))
    assert Store(raw.url).names() == [
        f"00000{epoch}-0000000000{number}.ckpt" for epoch in (1, 2) for number in (28, 29)
    ]


def test_a_check_leaves_nothing(raw: Raw) -> None:
    store = Store(raw.url)
    store.check()
    assert raw.fs.isdir(raw.root) or isinstance(raw.fs, MemoryFileSystem)
    store.write(2, 1, DATA)
    files = raw.files()
    store.check()
    assert raw.files() == files


def test_below_a_file_there_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "run")
    for use in (store.check, lambda: store.write(1, 1, DATA)):
        with pytest.raises(InvalidInput, match=r"cannot be kept in .*/file/run: .*Pass a place"):
            use()
    for use in (store.names, store.newest, lambda: store.read(FIRST)):
        with pytest.raises(CheckpointError, match="cannot be read: NotADirectoryError"):
            use()


@pytest.mark.parametrize("method", ["pipe_file", "cat_file", "ls", "rm_file"])
def test_a_check_needs_every_right(bucket: str, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    class Forbidden(Exception):  # libraries' errors are rarely OSErrors
        pass

    def forbidden(*args: object, **kwargs: object) -> NoReturn:
        raise Forbidden("AccessDenied")

    monkeypatch.setattr(MemoryFileSystem, method, forbidden)
    with pytest.raises(InvalidInput, match="cannot be kept in memory://bucket/run: Forbidden: AccessDenied"):
        Store(bucket).check()
    if method != "rm_file":
        monkeypatch.undo()
        assert Raw(bucket).files() == []


def test_a_check_sees_that_nothing_stays(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda *args, **kwargs: None)
    with pytest.raises(InvalidInput, match="does not come back"):
        Store(bucket).check()


def test_where_directories_must_be_made(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SFTP, SMB, …: each with an error of its own."""
    pipe = MemoryFileSystem.pipe_file

    def strict(self: MemoryFileSystem, path: str, value: bytes, **kwargs: object) -> None:
        if self._parent(path) not in self.pseudo_dirs:
            raise OSError(errno.ENOENT, "no such folder")
        pipe(self, path, value, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", strict)
    Store(bucket).write(2, 1, DATA)
    assert Store(bucket).read(FIRST) == DATA


def test_a_missing_bucket_is_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name was mistyped, and it would cost."""
    made: list[str] = []

    def missing(self: MemoryFileSystem, path: str, value: bytes, **kwargs: object) -> NoReturn:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", missing)
    monkeypatch.setattr(MemoryFileSystem, "makedirs", lambda self, path, exist_ok=False: made.append(path))
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (MemoryFileSystem(), "bucket/run"))  # as of s3://
    with pytest.raises(InvalidInput, match="bucket does not exist"):
        Store("s3://bucket/run").check()
    assert made == []


def test_a_bucket_written_by_others_is_listed_anew(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As s3fs does, which remembers listings."""
    ls, remembered = MemoryFileSystem.ls, {}

    def caching(self: MemoryFileSystem, path: str, **kwargs: object) -> list[str]:
        if path not in remembered:
            remembered[path] = ls(self, path, **kwargs)
        return remembered[path]

    monkeypatch.setattr(MemoryFileSystem, "ls", caching)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda self, path=None: remembered.clear())
    Store(bucket).write(2, 1, DATA)
    reader = Store(bucket)
    assert reader.names() == [FIRST]
    Store(bucket).write(2, 2, DATA)
    assert reader.names() == [FIRST, SECOND]


def test_unknown_protocols_and_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"nosuch://b/r cannot be opened: .*nosuch.*Pass a directory"):
        Store("nosuch://b/r")
    entry = {"class": "nosuchlibrary.FileSystem", "err": "Install nosuchlibrary to use it"}
    monkeypatch.setitem(known_implementations, "lacking", entry)
    with pytest.raises(InvalidInput, match=r"Install nosuchlibrary to use it\. .* on the client, the scheduler and"):
        Store("lacking://b/r")


@pytest.mark.parametrize("url", ["", "file://", "s3://", "memory://"])
def test_nowhere_is_no_place(url: str) -> None:
    with pytest.raises(InvalidInput, match="need a directory or a URL with a path"):
        Store(url)


def test_ways_to_name_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    places = {
        f"file://{tmp_path}/a": "a",
        f"local://{tmp_path}/b/": "b",
        str(tmp_path / "c ü#%20"): "c ü#%20",
        "~/d": "home/d",
        "file://~/e": "home/e",
        "f/g": "cwd/f/g",
        "../h": "h",
    }
    stores = {Store(url): where for url, where in places.items()}
    monkeypatch.chdir("/")  # a store stays where it was
    for store, where in stores.items():
        store.write(2, 1, where.encode())
        assert store.url == str(tmp_path / where)
        assert (tmp_path / where / FIRST).read_bytes().endswith(where.encode())
        assert pickle.loads(pickle.dumps(store)).newest() == (FIRST, where.encode(), [])


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> NoReturn:
        raise OSError(f"no answer from {url}")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(InvalidInput, match=r"sftp://.*@host/run") as caught:
        Store("sftp://me:secret@host/run")
    assert "secret" not in str(caught.value)
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (None, "run"))
    assert repr(Store("sftp://me:secret@host/run")) == "Store('sftp://***@host/run')"
    assert repr(Store("abfs://box@account/run")) == "Store('abfs://box@account/run')"
