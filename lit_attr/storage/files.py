"""Files that appear whole or not at all."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from lit_attr.errors import StorageError

_log = logging.getLogger(__name__)
_PATIENCE = 30.0  # seconds between two words to a waiting user


def publish(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it into place.

    Args:
        path: Of the file; what was there before stays until the new content is safe.
        write: Writes the content into an open binary file.

    Raises:
        StorageError: If the folder or the file cannot be written; nothing is left behind.
    """
    make_folder(path.parent)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise StorageError(f"cannot write into {path.parent}: {error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write of an archive as a RuntimeError.
        if isinstance(error, OSError | RuntimeError):
            raise StorageError(f"cannot write {path}: {error}") from error
        raise


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock that other processes may want; a killed process gives it back.

    Args:
        path: Of the lock file.
        waiting: What to log from time to time while another process holds it.
    """
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_PATIENCE)
            break
        except Timeout:
            _log.info(waiting)
    try:
        yield
    finally:
        lock.release()


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
