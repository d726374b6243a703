"""Seals: a digest of a whole file in a short trailer behind it, which readers of the file itself do not notice.

`torch.load` misses about two thirds of flipped bytes in an archive; a seal misses none.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from lit_attr.errors import StorageError
from lit_attr.storage.files import publish

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


def publish_sealed(path: Path, write: Callable[[BinaryIO], object], nbytes: int, replace: bool = True) -> None:
    """Publish a file with a seal.

    Args:
        path: Of the file.
        write: Writes the content front to back.
        nbytes: Of the tensors in it; so much, and a little more, is reserved on the disk beforehand.
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
    """SHA-256 of the first bytes of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while length:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def is_sealed(path: Path) -> bool:
    """Whether a file ends in a seal."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < _LENGTH:
            return False
        file.seek(-_LENGTH, os.SEEK_END)
        return file.read(len(_MARK)) == _MARK


def check_seal(path: Path) -> str:
    """Read a whole file and compare it with its seal.

    Returns:
        The digest.

    Raises:
        StorageError: If it is missing, has no seal, or is not what was sealed.
    """
    try:
        if not is_sealed(path):
            raise StorageError(f"{path} does not end in a seal: it is truncated, damaged, or no file of lit_attr's")
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END) - _LENGTH
            file.seek(length)
            sealed = file.read(_LENGTH)
            found = digest_of(file, length)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if sealed != trailer(found):
        raise StorageError(f"{path} is damaged: its content does not have the digest that it was written with")
    return found
