"""What stands before a checkpoint's data, so that truncation, damage, foreign files and newer formats are each noticed.

Magic, format number, length of the data, sha256 of all three and the data.
"""

from __future__ import annotations

import hashlib
import struct

from paramserver.errors import CheckpointError

FORMAT = 1
#: Bytes that are not text, and line ends, so that a transfer which "mends" texts is noticed.
MAGIC = b"\x93PSCK\r\n\x1a"
_START = struct.Struct(">8sIQ")
_NUMBER = struct.Struct(">I")
SIZE = _START.size + hashlib.sha256().digest_size  #: of the header


def header(data: bytes) -> bytes:
    """The bytes to write before the data; the checksum is the last of them."""
    start = _START.pack(MAGIC, FORMAT, len(data))
    return start + _checksum(start, data)


def verify(head: bytes, data: bytes, where: str) -> None:
    """Raise what is wrong with a file of these first bytes and these data.

    Raises
    ------
    CheckpointError
        ``where``, and whether it is foreign, of a newer version, truncated or damaged.
    """
    if not head.startswith(MAGIC) and not MAGIC.startswith(head):
        raise CheckpointError(f"{where} is foreign: paramserver did not write it")
    if len(head) >= len(MAGIC) + _NUMBER.size:  # first: all that follows may stand elsewhere in another format
        _verify_format(_NUMBER.unpack_from(head, len(MAGIC))[0], where)
    if len(head) < SIZE:
        raise CheckpointError(f"{where} is truncated: {len(head)} bytes")
    length = _START.unpack_from(head)[2]
    if len(data) < length:
        raise CheckpointError(f"{where} is truncated: {len(data)} of {length} bytes")
    if head[_START.size :] != _checksum(head[: _START.size], data):
        raise CheckpointError(f"{where} is damaged: its checksum does not fit")


def _verify_format(number: int, where: str) -> None:
    if number > FORMAT:
        raise CheckpointError(
            f"{where} is of a newer version: this paramserver reads format {FORMAT}, not {number}; install a newer one"
        )


def _checksum(start: bytes, data: bytes) -> bytes:
    out = hashlib.sha256(start)
    out.update(data)  # not joined: data may be large
    return out.digest()
