"""A run's checkpoints: written whole or not at all, checked when read, each epoch's apart from the others'.

What they mean is known to `checkpoint`, how damage shows to `seal`, how a directory or a bucket keeps them to `places`.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from paramserver.errors import CheckpointError, InvalidInput
from paramserver.server import seal
from paramserver.server.places import place_at

_NAME = re.compile(r"\d+-\d+\.ckpt")


class Store:
    """The checkpoints of one run.

    Nothing is cached: stores in several processes see each other's checkpoints. Each epoch has one writer at a time.

    Parameters
    ----------
    url : str or path-like
        A directory that every machine sees (``~`` is expanded), or a URL that fsspec knows (``s3://bucket/run``).
        Credentials and endpoints come from the environment or from fsspec's own configuration.

    Raises
    ------
    InvalidInput
        fsspec does not know the protocol, or its library is not installed.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        if not text.rpartition("://")[2]:
            raise InvalidInput(f"checkpoints need a directory or a URL with a path, not {text!r}")
        try:
            self._place = place_at(text)
        except Exception as error:  # each library has errors of its own
            raise InvalidInput(
                f"{_shown(text)} cannot be opened: {_text(error)}. Pass a directory that every machine sees, or "
                "install what the URL needs on the client, the scheduler and the workers"
            ) from error
        self.url = self._place.url  #: a relative path made absolute

    def __repr__(self) -> str:
        return f"Store({_shown(self.url)!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)  # a connection does not travel

    def check(self) -> None:
        """Write a probe, read it and remove it, so that a launch fails rather than the first checkpoint.

        Raises
        ------
        InvalidInput
            This process may not write, list, read or delete there.
        """
        probe = f"probe-{uuid.uuid4().hex}"
        with self._writing():
            try:
                same = self._comes_back(probe)
            finally:
                self._place.remove(probe)
        if not same:
            raise InvalidInput(f"what is written to {_shown(self.url)} does not come back: pass another place")

    def _comes_back(self, probe: str) -> bool:
        header, data = seal.header(b"probe"), b"probe"
        self._place.put(probe, header, data)
        there = probe in self._place.finished(self._place.files())
        return there and self._place.get(probe, seal.SIZE) == (header, data)

    def write(self, epoch: int, number: int, data: bytes) -> str:
        """Store one checkpoint, durably once this returns, and return its name.

        Raises
        ------
        InvalidInput
            It cannot be written there.
        """
        if epoch < 0 or number < 0:
            raise InvalidInput(f"epoch and number count from 0, not {epoch} and {number}")
        name = _name(epoch, number)
        with self._writing():
            self._place.put(name, seal.header(data), data)
        return name

    def names(self) -> list[str]:
        """What was written to the end, oldest first."""
        return self._finished(self._files())

    def read(self, name: str) -> bytes:
        """One checkpoint's data.

        Raises
        ------
        CheckpointError
            It is not there, truncated, damaged, foreign or of a newer version.
        """
        if not _is_ours(name):
            raise CheckpointError(f"{name!r} is not a checkpoint's name")
        where = f"{_shown(self.url)}/{name}"
        with _reading(where):
            header, data = self._place.get(name, seal.SIZE)
            seal.verify(header, data, where)
            if not self._place.vouches(name, header, data):
                raise CheckpointError(f"{where} is damaged: its manifest is of other data")
        return data

    def newest(self) -> tuple[str, bytes, list[str]]:
        """The newest usable checkpoint: its name, its data, and what was wrong with each newer one.

        Raises
        ------
        CheckpointError
            There is none, or none can be used; the message says what is wrong with each.
        """
        problems: dict[str, str] = {}
        # Listed anew each time: what is missing may have been pruned for a newer one.
        while left := [name for name in self.names() if name not in problems]:
            try:
                return left[-1], self.read(left[-1]), list(problems.values())
            except CheckpointError as error:
                problems[left[-1]] = str(error)
        if problems:
            raise CheckpointError("no checkpoint can be used: " + "; ".join(problems.values()))
        raise CheckpointError(f"there is no checkpoint in {_shown(self.url)}")

    def prune(self, epoch: int, keep: int = 2) -> None:
        """Delete all but the newest ``keep`` of an epoch, and what its writers left unfinished.

        Unfinished is stale where it is not newer than the newest checkpoint: something newer may be under way.
        """
        if keep < 0:
            raise InvalidInput(f"keep must be at least 0, not {keep}")
        files = self._files()
        names = self._finished(files)
        own = [name for name in names if _order(name)[0] == epoch]
        with self._writing():
            for file in own[: max(len(own) - keep, 0)] + self._stale(files, epoch, names[-1:]):
                self._place.remove(file)

    def _stale(self, files: list[str], epoch: int, newest: list[str]) -> list[str]:
        begun = {file: _order(name) for file, name in self._place.unfinished(files).items() if _is_ours(name)}
        return [file for file, key in begun.items() if key[0] == epoch and any(key <= _order(name) for name in newest)]

    def _files(self) -> list[str]:
        with _reading(_shown(self.url)):
            return self._place.files()

    def _finished(self, files: list[str]) -> list[str]:
        return sorted((name for name in self._place.finished(files) if _is_ours(name)), key=_order)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each library has errors of its own
            raise InvalidInput(
                f"checkpoints cannot be kept in {_shown(self.url)}: {_text(error)}. Pass a place with room where the "
                "scheduler and the server's worker may write, list, read and delete"
            ) from error


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{where} is not there, or not whole") from error
    except Exception as error:  # each library has errors of its own
        raise CheckpointError(f"{where} cannot be read: {_text(error)}") from error


def _name(epoch: int, number: int) -> str:
    return f"{epoch:06d}-{number:012d}.ckpt"


def _is_ours(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name == _name(*_order(name))


def _order(name: str) -> tuple[int, int]:
    epoch, number = name.removesuffix(".ckpt").split("-")
    return int(epoch), int(number)


def _text(error: Exception) -> str:
    return _shown(f"{type(error).__name__}: {error}")


def _shown(text: str) -> str:
    """URLs without their passwords: messages end up in logs."""
    return re.sub(r"//[^/@\s]*:[^/@\s]*@", "//***@", text)
