"""Keeping the strongest edges of a result alone: a file that answers without it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lit_attr.errors import StorageError
from lit_attr.files.output import write_file
from lit_attr.query.index_lists import all_lists
from lit_attr.query.list_writing import ListWriter
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.lists_file import write_contents
from lit_attr.storage.strongest_file import STRONGEST, STRONGEST_FORMAT, write_head
from lit_attr.topology.choice import check_count


def write_strongest(
    blocks: Blocks,
    path: Path,
    k: int = 64,
    *,
    overwrite: bool = False,
    check: Callable[[], object] | None = None,
) -> Path:
    """Write the strongest edges of complete sums, with all that their numbers mean.

    Every target has its `k` strongest sources, every source its `k` strongest targets, and every pair of layers its `k`
    strongest edges: components and tokens apart, of both signs, of every metric, raw and normalised. They are exact. Of
    what is dropped, number and magnitude are noted. Sums are looked at tile by tile, once from either side.

    Args:
        blocks: Blocks of the result, with the sums of all edges.
        path: The file to write.
        k: Entries of a list.
        overwrite: Whether an earlier file of strongest edges may be replaced.
        check: Raises a StorageError if the file must not be written after all; called when all of it is there.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If `k` is no whole number of at least 1.
        NumericalError: If blocks of parts have a sum that is not finite.
        NotHeldError: If the result holds its strongest edges alone already.
        StorageError: If a value is not finite, or the file exists already, or cannot be written.
    """
    check_count("k", k)
    blocks.content.check_holds_edges()
    try:
        write_file(path, partial(_write, blocks, k, check), STRONGEST, overwrite=overwrite)
    except StorageError as error:
        raise StorageError(f"no file of strongest edges: {error}") from error
    return path


def _write(blocks: Blocks, k: int, check: Callable[[], object] | None, file: BinaryIO) -> None:
    kind = STRONGEST_FORMAT
    file.write(kind.mark)
    version = 1 if blocks.content.standard_errors is None else 2  # earlier programs read what has none
    written = ListWriter(blocks, file, k, kind.sections[version]).write(list(all_lists(blocks)))
    head = write_head(file, blocks.content, written.keys)
    contents = {"k": k, "metrics": blocks.content.metrics, "pairs": written.pairs, "head": head}
    write_contents(file, kind, version, contents, written.sections)
    if check is not None:
        check()
