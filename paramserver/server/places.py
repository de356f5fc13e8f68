"""Where checkpoints lie: a directory, or a bucket of objects. What is written is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from contextlib import suppress
from typing import Any, Protocol

_LOCAL = re.compile(r"(file|local)://")
_ASIDE = re.compile(r"\.[0-9a-f]{32}\.tmp$")
_MANIFEST = ".ok"
#: Some network file systems cannot flush a directory, and one that may only be written cannot be opened for it.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


class Place(Protocol):
    """Whole files under flat names."""

    url: str  #: names the same place from any working directory of this machine

    def files(self) -> list[str]:
        """Everything that lies there; nothing where there is no such place yet."""

    def finished(self, files: list[str]) -> list[str]:
        """Those that were written to the end."""

    def unfinished(self, files: list[str]) -> dict[str, str]:
        """What writers under way, or dead ones, have written so far → the name it is meant for."""

    def put(self, name: str, header: bytes, payload: bytes) -> None:
        """Whole or not at all; returns once it is durable."""

    def get(self, name: str, size: int) -> tuple[bytes, bytes]:
        """The first ``size`` bytes and the rest."""

    def vouches(self, name: str, header: bytes, payload: bytes) -> bool:
        """Whether this is what was written."""

    def remove(self, file: str) -> None:
        """A file that is gone already is no error."""


class Directory:
    """A directory of a mounted file system: written aside, then renamed."""

    def __init__(self, path: str) -> None:
        # Absolute: the scheduler and the workers have other working directories than the client.
        self.url = os.path.abspath(os.path.expanduser(path))

    def files(self) -> list[str]:
        try:
            return os.listdir(self.url)
        except FileNotFoundError:
            return []

    def finished(self, files: list[str]) -> list[str]:
        return [file for file in files if not _ASIDE.search(file)]

    def unfinished(self, files: list[str]) -> dict[str, str]:
        return {file: _ASIDE.sub("", file) for file in files if _ASIDE.search(file)}

    def put(self, name: str, header: bytes, payload: bytes) -> None:
        _make(self.url)
        path = os.path.join(self.url, name)
        aside = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            _write(aside, header, payload)
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell; a full disk needs the room
                os.remove(aside)
            raise
        _sync(self.url)

    def get(self, name: str, size: int) -> tuple[bytes, bytes]:
        with open(os.path.join(self.url, name), "rb") as file:
            return file.read(size), file.read()

    def vouches(self, name: str, header: bytes, payload: bytes) -> bool:
        return True  # a rename is all or nothing

    def remove(self, file: str) -> None:
        with suppress(FileNotFoundError):
            os.remove(os.path.join(self.url, file))


class Bucket:
    """What else fsspec knows: no rename is atomic there, so a manifest written last says that the data are whole."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # a third of a second, which directories do without

        self.url = url
        self._fs: Any
        self._fs, root = url_to_fs(url)
        self._root = root.rstrip("/")

    def files(self) -> list[str]:
        self._fs.invalidate_cache()  # others write there too
        try:
            return [str(path).rsplit("/", 1)[-1] for path in self._fs.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []

    def finished(self, files: list[str]) -> list[str]:
        return [file.removesuffix(_MANIFEST) for file in files if file.endswith(_MANIFEST)]

    def unfinished(self, files: list[str]) -> dict[str, str]:
        whole = set(self.finished(files))
        return {file: file for file in files if not file.endswith(_MANIFEST) and file not in whole}

    def put(self, name: str, header: bytes, payload: bytes) -> None:
        self._pipe(name, header + payload)
        self._pipe(name + _MANIFEST, _manifest(header, payload))

    def _pipe(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            self._fs.pipe_file(path, data)
        except OSError:  # those that have directories have each its own error for a missing one
            if not self._root.startswith("/"):  # bucket/key: a missing bucket is a typing error, not to be created
                raise
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(path, data)

    def get(self, name: str, size: int) -> tuple[bytes, bytes]:
        data = self._fs.cat_file(f"{self._root}/{name}")
        return data[:size], data[size:]

    def vouches(self, name: str, header: bytes, payload: bytes) -> bool:
        return bool(self._fs.cat_file(f"{self._root}/{name}{_MANIFEST}") == _manifest(header, payload))

    def remove(self, file: str) -> None:
        for name in (file + _MANIFEST, file):  # without its manifest it does not exist
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{name}")


def place_at(url: str) -> Directory | Bucket:
    """A directory where the URL is a path or ``file://``."""
    local = _LOCAL.match(url)
    if local or "://" not in url:
        return Directory(url[local.end() if local else 0 :])
    return Bucket(url)


def _manifest(header: bytes, payload: bytes) -> bytes:
    """The checksum is the header's own, its last 32 bytes."""
    return json.dumps({"size": len(header) + len(payload), "sha256": header[-32:].hex()}).encode()


def _make(path: str) -> None:
    """The directory and those above it, each durable in its parent."""
    parent = os.path.dirname(path)
    if os.path.isdir(path) or path == parent:
        return
    _make(parent)
    os.makedirs(path, exist_ok=True)  # another writer may have been faster
    _sync(parent)


def _write(path: str, header: bytes, payload: bytes) -> None:
    with open(path, "xb") as file:
        file.write(header)
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: str) -> None:
    """Make what was renamed or created there durable."""
    if os.name == "nt":  # which opens no directories
        return
    try:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
