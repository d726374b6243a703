"""Filling an archive of tensors that was laid out first, stretch by stretch, in memory that does not grow with it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, BinaryIO

from torch import Tensor

from lit_attr.files.archive import bytes_of, lay_out, layout, offset_of, write_checksums
from lit_attr.files.seal import trailer

# Gives a tensor's numbers by its name: stretches of them, contiguous, and where each begins, row by row.
Stretches = Callable[[str, Tensor], Iterable[tuple[int, Tensor]]]


def write_filled(file: BinaryIO, skeleton: Mapping[str, Any], stretches: Stretches) -> None:
    """Write an archive with its check sums and its seal.

    Args:
        file: Open for reading and writing, at its beginning.
        skeleton: What is to be saved, with tensors that say shape and type; their numbers are not looked at.
        stretches: Gives the numbers of a tensor, which comes without numbers; what it leaves out is zero.
    """
    length = lay_out(skeleton, file)
    for name, empty in leaves(layout(file)):
        for start, numbers in stretches(name, empty):
            _pwrite(file.fileno(), numbers, offset_of(empty) + start * empty.element_size())
    digest = write_checksums(file, length)
    file.seek(length)
    file.write(trailer(digest))


def leaves(nested: Mapping[str, Any], kind: type | UnionType = Tensor, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is of some kind in a nested mapping, named as `Content.named_sums` does."""
    for key, value in nested.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(value, kind):
            yield name, value
        elif isinstance(value, Mapping):
            yield from leaves(value, kind, name)


def _pwrite(descriptor: int, numbers: Tensor, offset: int) -> None:
    data = bytes_of(numbers)
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
