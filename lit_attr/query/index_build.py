"""Building the index of a result."""

from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from lit_attr.errors import StorageError, naming
from lit_attr.files.output import write_file
from lit_attr.query.index_file import INDEX, INDEX_FORMAT, VERSION, identity, index_path
from lit_attr.query.index_lists import indexed_lists
from lit_attr.query.list_writing import ListWriter
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.lists_file import write_contents

# Entries of a list.
N_KEPT = 64


def build_index(storage: Path) -> Path:
    """Write the index of a result beside it.

    Args:
        storage: The result's file.

    Returns:
        The index's file.

    Raises:
        StorageError: If the result is damaged, has values that are not finite, or was changed meanwhile, or the
            index cannot be written, or something that is no index has its name.
        NotHeldError: If the file holds the strongest edges of a result alone, which need no index.
    """
    known = identity(storage)
    blocks = Blocks(DatasetAttributionStorage.load(storage))
    with naming(storage):
        blocks.content.check_holds_edges()
    if odd := [name for name, tensor in blocks.content.named_sums() if tensor.dtype == torch.float64]:
        raise StorageError(f"{storage}: only sums in float32 can be indexed, or in less: {odd[0]} is in float64")
    path = index_path(storage)
    try:
        write_file(path, partial(_write, blocks, known), INDEX, overwrite=True)
    except StorageError as error:
        raise StorageError(f"no index of {storage}: {error}") from error
    if identity(storage) != known:
        path.unlink()
        raise StorageError(f"{storage} was changed while its index was built")
    return path


def _write(blocks: Blocks, known: dict, file: BinaryIO) -> None:
    file.write(INDEX_FORMAT.mark)  # so that it is known for one even when its end is lost
    written = ListWriter(blocks, file, N_KEPT, INDEX_FORMAT.sections[VERSION]).write(list(indexed_lists(blocks)))
    contents = {"storage": known, "metrics": blocks.content.metrics, "pairs": written.pairs}
    write_contents(file, INDEX_FORMAT, VERSION, contents, written.sections)
