"""Where an export goes: what is there already stays unless it may be replaced, and nothing appears half-written."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lit_attr.errors import StorageError
from lit_attr.files.publish import make_folder, publish, sync_folder
from lit_attr.files.temporary import create_folder, name_beside, remove, remove_leftovers


def write_file(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file.
        write: Writes the content into an open binary file.
        overwrite: Whether another file may be there already.

    Raises:
        StorageError: If one is and may not, or it cannot be written.
    """
    _refuse_existing(path, overwrite=overwrite)
    if os.path.isdir(path):  # unlike Path's, it takes any text
        raise StorageError(f"cannot write {path}: a folder is there, expected a file's name")
    try:
        publish(path, write, replace=overwrite)
    except FileExistsError:  # it appeared meanwhile
        _refuse_existing(path, overwrite=overwrite)


@contextmanager
def new_folder(path: Path, mark: str, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write files into, which is put into place when all are written.

    Args:
        path: The folder.
        mark: A file that every such export has: nothing else is replaced.
        overwrite: Whether an earlier export may be there already.

    Yields:
        A temporary folder beside it.

    Raises:
        StorageError: If something is there that may not be replaced, or the folder cannot be written.
    """
    path = path.absolute()
    _refuse_existing(path, overwrite=overwrite)
    if os.path.lexists(path) and not (path / mark).is_file():
        raise StorageError(f"{path} is not replaced: it is no earlier export, which would hold {mark}")
    make_folder(path.parent)
    remove_leftovers(path)
    try:
        descriptor, temporary = create_folder(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    try:
        yield temporary
        sync_folder(temporary)
        _put_into_place(temporary, path)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error}") from error
    finally:
        os.close(descriptor)
        remove(temporary)


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise StorageError(f"{path} exists already; --overwrite replaces it")


def _put_into_place(temporary: Path, path: Path) -> None:
    """A folder cannot replace another in one step: the old one is moved aside for the moment."""
    old = None
    if os.path.lexists(path):
        old = name_beside(path)
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        if old is not None:
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    if old is not None:
        remove(old)
