"""Where a product for users goes: nothing is replaced but an earlier product of its kind, and nothing is half-written.

What a user names may be a result, a part, a run's checkpoint or a token file, under another name or through a link:
what is there is known by its content.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lit_attr.errors import StorageError
from lit_attr.files.file_system import explain
from lit_attr.files.publish import make_folder, publish, sync_folder
from lit_attr.files.seal import is_sealed
from lit_attr.files.temporary import create_folder, name_beside, remove, remove_leftovers

_CHUNK = 1 << 22
# What the beginning of a file says of it, for messages.
_KINDS = {
    b"PK\x03\x04": "a file of PyTorch, such as a result or a checkpoint, or another zip archive",
    b"\x93NUMPY": "an array of NumPy, such as a token file",
    b"PAR1": "a parquet table of another kind",
    b"\x89PNG": "a PNG picture without the mark that those of this command have since version 0.2",
    b"<?xml": "an XML file, such as GraphML or SVG, without the mark that those of this command have",
    b"{": "a JSON file",
}


@dataclass(frozen=True)
class Product:
    """A kind of file that is written for users, and how an earlier one is recognised.

    Attributes:
        name: What it is called in messages, such as `a table of lit-attr export`.
        begin: The bytes that all files of its format begin with.
        mark: Bytes that are in all files of its kind, and in no others.
    """

    name: str
    begin: bytes
    mark: bytes

    def is_in(self, path: Path) -> bool:
        """Whether a regular file is such a product.

        Raises:
            StorageError: If it cannot be read.
        """
        try:
            with path.open("rb") as file:
                return file.read(len(self.begin)) == self.begin and _contains(file, self.mark)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error


def write_file(path: Path, write: Callable[[BinaryIO], object], product: Product, *, overwrite: bool) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file.
        write: Writes the content into an open binary file.
        product: What is written.
        overwrite: Whether an earlier product of this kind may be there already.

    Raises:
        StorageError: If anything is there that may not be replaced, or the file cannot be written.
    """
    check = partial(check_replaceable, path, product, overwrite=overwrite)
    try:
        publish(path, write, replace=check(), check=check)
    except FileExistsError:  # it appeared meanwhile
        raise StorageError(f"{path} appeared while it was written; it stays") from None


def check_replaceable(path: Path, product: Product, *, overwrite: bool) -> bool:
    """Find out whether a file may be written.

    Args:
        path: The file, or a link to one: a link is replaced by a file, and what it leads to stays.
        product: What is to be written.
        overwrite: Whether an earlier product of this kind may be replaced.

    Returns:
        Whether there is one; else nothing has that name.

    Raises:
        StorageError: If anything is there that may not be replaced.
    """
    if not os.path.lexists(path):
        return False
    if os.path.isdir(path):  # unlike Path's, it takes any text
        raise StorageError(f"cannot write {path}: a folder is there, expected a file's name")
    if not overwrite:
        raise StorageError(f"{path} exists already; --overwrite replaces it, if it is {product.name}")
    if not _is_regular(path) or not product.is_in(path):
        raise StorageError(
            f"{path} is not replaced: it is {_kind(path)}, and --overwrite replaces only {product.name}. Choose "
            "another name, or move it away yourself"
        )
    return True


@contextmanager
def new_folder(path: Path, index: str, product: Product, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write files into, which is put into place when all are written.

    Args:
        path: The folder.
        index: A file that every such export has.
        product: What all files in it are.
        overwrite: Whether an earlier export may be there already; it holds no other files.

    Yields:
        A temporary folder beside it.

    Raises:
        StorageError: If something is there that may not be replaced, or the folder cannot be written.
    """
    path = path.absolute()
    if os.path.lexists(path):
        if not overwrite:
            raise StorageError(f"{path} exists already; --overwrite replaces it, if it holds {product.name} alone")
        _check_folder(path, path, index, product)
    make_folder(path.parent)
    remove_leftovers(path)
    try:
        descriptor, temporary = create_folder(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {explain(error, path)}") from error
    try:
        yield temporary
        sync_folder(temporary)
        _put_into_place(temporary, path, index, product)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {explain(error, path)}") from error
    finally:
        os.close(descriptor)
        remove(temporary)


def _check_folder(folder: Path, path: Path, index: str, product: Product) -> None:
    """Refuse a folder in which anything but an export is; messages call it `path`."""
    remedy = "Choose another name, or move it away yourself"
    if folder.is_symlink() or not folder.is_dir() or not (folder / index).is_file():
        raise StorageError(f"{path} is not replaced: it is no earlier export, which is a folder with {index}. {remedy}")
    for entry in sorted(folder.iterdir()):
        if not stat.S_ISREG(entry.lstat().st_mode) or not product.is_in(entry):
            raise StorageError(
                f"{path} is not replaced: {entry.name} in it is {_kind(entry)}, and --overwrite replaces only folders "
                f"that hold {product.name} alone. {remedy}"
            )


def _put_into_place(temporary: Path, path: Path, index: str, product: Product) -> None:
    """A folder cannot replace another in one step: the old one is moved aside, where nobody adds to it."""
    old = None
    if os.path.lexists(path):
        old = name_beside(path)
        os.rename(path, old)
    try:
        if old is not None:
            _check_folder(old, path, index, product)
        os.rename(temporary, path)
    except OSError:
        if old is not None:
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    if old is not None:
        remove(old)


def _contains(file: BinaryIO, mark: bytes) -> bool:
    """Whether the rest of an open file has some bytes, which may be anywhere."""
    tail = b""
    while chunk := file.read(_CHUNK):
        if mark in tail + chunk:
            return True
        tail = chunk[-len(mark) :]
    return False


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _kind(path: Path) -> str:
    """What is there instead of a product, in words."""
    link = f"a link to {os.readlink(path)}, " if path.is_symlink() else ""
    if not _is_regular(path):
        return f"{link}no regular file"
    with suppress(OSError), path.open("rb") as file:
        if is_sealed(file):
            return f"{link}a file of a harvest, such as a result or a part"
        start = file.read(16)
        if not start:
            return f"{link}an empty file"
        if start[8:9] == b"{" and not start.startswith(b"{"):
            return f"{link}a safetensors file of another origin"
        known = [kind for begin, kind in _KINDS.items() if start.startswith(begin)]
        return link + (known or ["a file of another kind"])[0]
    return f"{link}a file that cannot be read"
