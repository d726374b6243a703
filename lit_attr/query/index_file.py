"""The file of an index: where it is, and which result it belongs to."""

import os
from pathlib import Path
from typing import Any

from lit_attr.files.output import Product
from lit_attr.files.publish import reading
from lit_attr.files.seal import sealed_digest
from lit_attr.storage.lists_file import Format, ListsFile, Section

VERSION = 1
INDEX_FORMAT = Format("an index", b"\nlit_attr index\n", {VERSION: Section})
# Files of versions before have the mark at their end alone.
INDEX = Product("an index of lit-attr index", b"", INDEX_FORMAT.mark)


def index_path(storage: Path) -> Path:
    """Where the index of a result is."""
    return storage.with_suffix(".index")


def identity(storage: Path) -> dict[str, Any]:
    """What an index recognises its result by: the digest in its seal, else its time of change.

    Raises:
        StorageError: If the file cannot be read.
    """
    with reading(storage) as file:
        status, digest = os.fstat(file.fileno()), sealed_digest(file)
    return {"size": status.st_size, **({"sha256": digest} if digest else {"mtime_ns": status.st_mtime_ns})}


def open_index(path: Path) -> ListsFile:
    """Open an index.

    Args:
        path: The index's file.

    Raises:
        StorageError: If it is missing, truncated or damaged, or was written by another version.
    """
    return ListsFile(path, INDEX_FORMAT)
