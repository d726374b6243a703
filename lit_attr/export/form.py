"""The other form of a result: dense, as goodfire-ai/spd writes it and reads it, or compact."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.archive import blank
from lit_attr.files.publish import publish
from lit_attr.storage.compact import Moved, exchanged, live_of, map_moved, moved_edges
from lit_attr.storage.file_content import Content, file_keys
from lit_attr.storage.fill import leaves, write_filled

# What an archive needs beside its tensors: names and paddings.
_OVERHEAD = 1 << 20


def export_form(content: Content, path: Path, *, compact: bool) -> Path:
    """Write a result in the compact form, or in the dense one, with a seal, in memory that does not grow with it.

    Args:
        content: A result of either form.
        path: Path of the file; it must not exist.
        compact: Whether it gets the compact form.

    Returns:
        `path`.

    Raises:
        NotHeldError: If the result holds its strongest edges alone.
        StorageError: If the file exists already, or cannot be written, or the provenance lists the targets of the
            harvest otherwise than `lit_attr` does.
    """
    content.check_holds_edges()
    live = live_of(content) if compact else None
    edges = moved_edges(content, live)
    blanks = {name: map_moved(nested, _blank) for name, nested in edges.items()}
    keys = file_keys(replace(exchanged(content, blanks, live), w_unembed=content.w_unembed.contiguous()))
    kept, moved = dict(leaves(keys)), dict(leaves(edges, Moved))

    def stretches(name: str, empty: Tensor) -> Iterator[tuple[int, Tensor]]:
        if name not in moved:
            yield 0, kept[name].reshape(-1)
            return
        for row, part in moved[name].parts():
            if part.any():
                yield row * empty.shape[1], part.view(-1)

    nbytes = sum(tensor.nbytes for tensor in kept.values())
    try:
        publish(path, lambda file: write_filled(file, keys, stretches), reserve=nbytes + _OVERHEAD, replace=False)
    except FileExistsError:
        raise StorageError(f"{path} exists already: choose another name, or move it away yourself") from None
    return path


def _blank(moved: Moved) -> Tensor:
    return blank(moved.shape, moved.block.dtype)
