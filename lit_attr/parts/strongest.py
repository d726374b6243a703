"""The strongest edges of a harvest alone, as its result."""

import os
from collections.abc import Callable
from pathlib import Path

from lit_attr.files.temporary import create_folder, remove, remove_leftovers
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.words import COMPACT_FILE


def keep_strongest(path: Path, k: int, write_all: Callable[[Path], object]) -> None:
    """Write the strongest edges of complete sums, chosen from a file of all edges, which is there meanwhile.

    Args:
        path: The file to write; an earlier one is replaced.
        k: Entries of a list.
        write_all: Writes all edges to a file.

    Raises:
        StorageError: If either cannot be written.
    """
    from lit_attr.query.strongest_build import write_strongest  # who keeps all edges needs nothing of it

    remove_leftovers(path)
    descriptor, folder = create_folder(path)
    try:
        everything = folder / COMPACT_FILE
        write_all(everything)
        write_strongest(Blocks(DatasetAttributionStorage.load(everything)), path, k, overwrite=True)
    finally:
        os.close(descriptor)
        remove(folder)
