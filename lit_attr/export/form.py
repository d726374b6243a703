"""The other form of a result: dense, as goodfire-ai/spd writes it and reads it, or compact."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.files.archive import blank
from lit_attr.files.publish import publish
from lit_attr.storage.compact import Moved, exchanged, live_of, map_moved, moved_edges
from lit_attr.storage.file_content import Content, file_keys
from lit_attr.storage.fill import leaves, write_filled
from lit_attr.storage.rounding import ROUNDED_KEYS, Rounding
from lit_attr.topology.words import ResultDtype

# What an archive needs beside its tensors: names and paddings.
_OVERHEAD = 1 << 20


def export_form(content: Content, path: Path, *, compact: bool, dtype: ResultDtype | None = None) -> Path:
    """Write a result in the compact form, or in the dense one, with a seal, in memory that does not grow with it.

    Args:
        content: A result of either form.
        path: Path of the file; it must not exist.
        compact: Whether it gets the compact form.
        dtype: Type of the sums of edges into components. By default it stays, but for those that were rounded and get
            the dense form, which is in float32.

    Returns:
        `path`.

    Raises:
        ConfigurationError: If the dense form is to be in bfloat16.
        NotHeldError: If the result holds its strongest edges alone.
        StorageError: If the file exists already, or cannot be written, or the provenance lists the targets of the
            harvest otherwise than `lit_attr` does.
    """
    if dtype == "bfloat16" and not compact:
        raise ConfigurationError(
            "dtype bfloat16 is for the compact form; the dense one is that of goodfire-ai/spd, in float32"
        )
    content.check_holds_edges()
    is_rounded = content.rounding is not None
    new_type = torch.float32 if is_rounded and not compact else None if dtype is None else getattr(torch, dtype)
    live = live_of(content) if compact else None
    edges = moved_edges(content, live)
    blanks = {
        name: map_moved(nested, partial(_blank, dtype=new_type if name in ROUNDED_KEYS else None))
        for name, nested in edges.items()
    }
    rounding = content.rounding
    if dtype == "bfloat16" and rounding is None:
        rounding = Rounding.begin()
    blank_content = exchanged(content, blanks, live)
    keys = file_keys(replace(blank_content, w_unembed=content.w_unembed.contiguous(), rounding=rounding))
    kept, moved = dict(leaves(keys)), dict(leaves(edges, Moved))

    def stretches(name: str, empty: Tensor) -> Iterator[tuple[int, Tensor]]:
        if name not in moved:
            yield 0, kept[name].reshape(-1)
            return
        for row, part in moved[name].parts():
            if part.any():
                rounds = name.startswith(ROUNDED_KEYS) and empty.dtype == torch.bfloat16
                numbers = rounding.rounded(part) if rounding and rounds else part.to(empty.dtype)
                yield row * empty.shape[1], numbers.view(-1)

    nbytes = sum(tensor.nbytes for tensor in kept.values())
    try:
        publish(path, lambda file: write_filled(file, keys, stretches), reserve=nbytes + _OVERHEAD, replace=False)
    except FileExistsError:
        raise StorageError(f"{path} exists already: choose another name, or move it away yourself") from None
    return path


def _blank(moved: Moved, dtype: torch.dtype | None) -> Tensor:
    return blank(moved.shape, dtype or moved.block.dtype)
