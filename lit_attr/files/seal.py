"""Seals: a digest of a whole file in a short trailer behind it, which readers of the file itself do not notice.

`torch.load` misses about two thirds of flipped bytes in an archive; a seal misses none.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from lit_attr.errors import StorageError
from lit_attr.files.publish import publish, reading

_MARK = b"\nlit_attr sha256 "
_DIGEST_CHARACTERS = 64
_LENGTH = len(_MARK) + _DIGEST_CHARACTERS + 1
_CHUNK = 1 << 22
# What an archive needs beside its tensors: names and paddings.
_OVERHEAD = 1 << 20


class _Hashing:
    """A binary file that is only written to, front to back, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def publish_sealed(path: Path, write: Callable[[BinaryIO], object], nbytes: int, *, replace: bool = True) -> None:
    """Publish a file with a seal.

    Args:
        path: The file.
        write: Writes the content front to back.
        nbytes: Bytes of the tensors in it; so many, and a few more, are reserved on the disk beforehand.
        replace: Whether another file may be there already.

    Raises:
        FileExistsError: If one is and may not.
        StorageError: If it cannot be written; nothing is left behind.
    """

    def write_sealed(file: BinaryIO) -> None:
        hashing = _Hashing(file)
        write(cast("BinaryIO", hashing))  # torch.save asks for these methods only
        file.write(trailer(hashing.digest.hexdigest()))

    publish(path, write_sealed, reserve=nbytes + _OVERHEAD, replace=replace)


def trailer(digest: str) -> bytes:
    """The bytes behind a file.

    Args:
        digest: SHA-256 of all bytes before them, in hexadecimal.
    """
    return _MARK + digest.encode() + b"\n"


def digest_of(file: BinaryIO, length: int) -> str:
    """SHA-256 of the first bytes of an open file as it is on the disk, in hexadecimal."""
    digest = hashlib.sha256()
    for start in range(0, length, _CHUNK):
        # Not file.read, whose buffer may be older than what was written beside it.
        digest.update(os.pread(file.fileno(), min(_CHUNK, length - start), start))
    return digest.hexdigest()


def is_sealed(file: BinaryIO) -> bool:
    """Whether an open file ends in a seal; its position stays where it is."""
    length = os.fstat(file.fileno()).st_size
    return length >= _LENGTH and os.pread(file.fileno(), len(_MARK), length - _LENGTH) == _MARK


def sealed_digest(file: BinaryIO) -> str | None:
    """The digest in an open file's seal, unchecked; None without a seal. The file's position stays where it is."""
    if not is_sealed(file):
        return None
    end = os.fstat(file.fileno()).st_size - 1
    return os.pread(file.fileno(), _DIGEST_CHARACTERS, end - _DIGEST_CHARACTERS).decode(errors="replace")


def check_open_seal(file: BinaryIO, path: Path) -> str:
    """Read a whole open file and compare it with its seal; its position stays where it is.

    Args:
        file: Open for reading.
        path: The file's name, for messages.

    Returns:
        The digest.

    Raises:
        StorageError: If it has no seal, or is not what was sealed.
    """
    if not is_sealed(file):
        raise StorageError(f"{path} does not end in a seal: it is truncated, damaged, or no file of lit_attr's")
    length = os.fstat(file.fileno()).st_size - _LENGTH
    digest = digest_of(file, length)
    if os.pread(file.fileno(), _LENGTH, length) != trailer(digest):
        raise StorageError(f"{path} is damaged: its content does not have the digest that it was written with")
    return digest


def check_seal(path: Path) -> str:
    """Read a whole file and compare it with its seal.

    Returns:
        The digest.

    Raises:
        StorageError: If it is missing, cannot be read, has no seal, or is not what was sealed.
    """
    with reading(path) as file:
        return check_open_seal(file, path)
