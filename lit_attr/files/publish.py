"""Files that appear whole or not at all."""

import fcntl
import glob
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lit_attr.errors import StorageError

_log = logging.getLogger(__name__)


def publish(path: Path, write: Callable[[BinaryIO], object], reserve: int = 0, replace: bool = True) -> None:
    """Write a file under a temporary name, flush it to the disk, and put it into place.

    Args:
        path: Of the file; what was there before stays until the new content is safe.
        write: Writes the content into an open binary file.
        reserve: Bytes to reserve on the disk before anything is written, so that a full disk shows at once.
        replace: Whether another file may be there already.

    Raises:
        FileExistsError: If one is and may not.
        StorageError: If the folder or the file cannot be written; nothing is left behind.
    """
    make_folder(path.parent)
    if replace:  # one process writes such a file: what it left behind when it was killed may be large
        _remove_leftovers(path)
    try:
        descriptor, temporary = _create_temporary(path)
    except OSError as error:
        raise StorageError(f"cannot write into {path.parent}: {error}") from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            if reserve and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, reserve)
            write(file)
            file.flush()
            if reserve:
                file.truncate(file.seek(0, os.SEEK_CUR))
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, it refuses to replace
            Path(temporary).unlink()
        sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, FileExistsError | StorageError):  # the latter is about what was to be written
            raise
        if isinstance(error, OSError | RuntimeError):
            raise StorageError(f"cannot write {path}: {_cause(error)}") from error
        raise


def _cause(error: BaseException) -> BaseException:
    """What the system said: of a write that failed, torch reports only where, with the system's error as context."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return error if found is None else found


def _create_temporary(path: Path) -> tuple[int, str]:
    """Create an open file that is to become another, locked for as long as its writer lives."""
    while True:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with suppress(OSError):  # some file systems know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # taken for a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers that were killed; a living one holds a lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file, open for reading.

    Raises:
        StorageError: If it is missing, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def make_folder(folder: Path) -> None:
    """Create a folder and those above it where they are missing.

    Raises:
        StorageError: If it cannot be created or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create the folder {folder}: {error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into the folder {folder}: permission denied")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
