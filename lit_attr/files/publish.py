"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lit_attr.errors import StorageError
from lit_attr.files.file_system import describe_refusal, explain
from lit_attr.files.links import NO_HARD_LINK, put_new
from lit_attr.files.temporary import create_file, remove_leftovers

_CHUNK = 1 << 22


def publish(
    path: Path,
    write: Callable[[BinaryIO], object],
    *,
    reserve: int = 0,
    replace: bool = True,
    check: Callable[[], object] | None = None,
) -> None:
    """Write a file under a temporary name, flush it to the disk, and put it into place.

    Args:
        path: The file; what was there before stays until the new content is safe.
        write: Writes the content into an open binary file.
        reserve: Bytes to reserve on the disk before anything is written, so that a full disk shows at once.
        replace: Whether another file may be there already.
        check: Looks at that file once more right before it is replaced, and raises a StorageError if it must stay.

    Raises:
        FileExistsError: If one is and may not.
        StorageError: If the folder or the file cannot be written; nothing is left behind.
    """
    make_folder(path.parent)
    if replace:  # one process writes such a file: what it left behind when it was killed may be large
        remove_leftovers(path)
    try:
        descriptor, temporary = create_file(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {explain(error, path)}") from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            if reserve and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, reserve)
            write(file)
            file.flush()
            if reserve:
                file.truncate(file.seek(0, os.SEEK_CUR))
            os.fsync(file.fileno())
        if check is not None:
            check()
        if replace:
            os.replace(temporary, path)
        else:
            put_new(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, FileExistsError | StorageError):  # the latter is about what was to be written
            raise
        if isinstance(error, OSError | RuntimeError):
            raise StorageError(f"cannot write {path}: {explain(_cause(error), path)}") from error
        raise


def keep(path: Path, name: Path) -> None:
    """Keep what a file holds now under another name, whatever is put into its place later.

    That is a hard link, or a copy where there are none. A copy holds one content too: the file is opened once,
    and publishing another puts a new file into its place. In both cases the caller must still check the content.

    Args:
        path: A published file.
        name: The other name, which nobody else uses.

    Raises:
        FileNotFoundError: If there is no such file.
        StorageError: If neither link nor copy can be written.
    """
    try:
        os.link(path, name)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise StorageError(f"cannot link {path}: {explain(error, name)}") from error
        with path.open("rb") as source:
            nbytes = os.fstat(source.fileno()).st_size
            publish(name, lambda file: shutil.copyfileobj(source, file, _CHUNK), reserve=nbytes)


def _cause(error: BaseException) -> BaseException:
    """What the system said. Torch reports only where a write failed, with the system's error as context."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return error if cause is None else cause


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file, open for reading.

    Raises:
        StorageError: If it is missing, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except StorageError:  # about what was read
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def names_in(folder: Path) -> set[str]:
    """The names in a folder; none if there is no such folder.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error}") from error


def make_folder(folder: Path) -> None:
    """Create a folder and those above it where they are missing.

    Raises:
        StorageError: If it cannot be created or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except ValueError as error:  # a zero byte
        raise StorageError(f"cannot create the folder {str(folder)!r}: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot create the folder {folder}: {explain(error, folder)}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into the folder {folder}: {describe_refusal(folder)}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
