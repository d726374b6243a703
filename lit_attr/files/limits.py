"""Limits of what a file may hold, so that reading a damaged one takes no more memory and time than a good one.

A pickle of some hundred bytes can stand for a tensor of 10^14 numbers, or for lists of lists that are endless when
their entries are counted one by one. What a file holds is therefore compared with how long it is.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lit_attr.errors import StorageError, shown

# The provenance of a result that was merged again and again is nested twice as deep; Python itself gives up at 1,000.
MAX_DEPTH = 400
# Tensors may share their numbers, as an embedding and its unembedding do, and pickles name equal lists once.
_TIMES = 4
_CONTAINERS = (dict, list, tuple, set)
_PLAIN = (str, int, float, bool, type(None))


def check_records(file: Path | BinaryIO, nbytes: int) -> None:
    """Check that an archive's records lie in it as they are, and are no longer than it.

    Args:
        file: The archive.
        nbytes: Its length.

    Raises:
        StorageError: If it is no archive, or one is compressed, or longer.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise StorageError(f"no archive of tensors, or a damaged one: {error}") from error
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.file_size > nbytes:
            raise StorageError(
                f"expected records that are stored as they are, within {nbytes:,} bytes; {shown(record.filename)} is "
                f"compressed or damaged (of {record.file_size:,} bytes)"
            )


def check_content(content: object, nbytes: int) -> None:
    """Check that what an archive holds is no more than fits into it: plain values, and plain tensors.

    Args:
        content: What was unpickled, of mappings and lists.
        nbytes: Length of the archive.

    Raises:
        StorageError: If it is nested too deep, has far more entries or numbers than the file has bytes, or a
            tensor that is sparse, or on another device.
    """
    left, level = _TIMES * nbytes, [content]
    for _ in range(MAX_DEPTH):
        containers = [value for value in level if isinstance(value, _CONTAINERS)]
        tensors = [value for value in level if isinstance(value, Tensor)]
        left -= sum(map(len, containers))
        for tensor in tensors:
            _check_plain(tensor)
            left -= tensor.numel() * tensor.element_size()
        if left < 0:
            raise StorageError(f"it declares more entries and numbers than fit into its {nbytes:,} bytes")
        if not containers:
            return
        level = [inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)]
    raise StorageError(f"it is nested more than {MAX_DEPTH} levels deep")


def check_plain(values: object, what: str) -> None:
    """Check that values are such as JSON can hold: texts, numbers, lists, and mappings with texts as keys.

    Args:
        values: What `check_content` has admitted.
        what: Name of it, for the message.

    Raises:
        StorageError: If there is another one among them.
    """
    level = [values]
    while level:
        odd = [value for value in level if not isinstance(value, (*_PLAIN, dict, list, tuple))]
        odd += [key for value in level if isinstance(value, dict) for key in value if not isinstance(key, str)]
        if odd:
            raise StorageError(f"{what}: expected texts, numbers, lists and mappings, found {shown(odd[0])}")
        containers = (value for value in level if isinstance(value, dict | list | tuple))
        level = [inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)]


def _check_plain(tensor: Tensor) -> None:
    has_numbers = tensor.device.type == "cpu" or _is_in_file(tensor)
    if tensor.layout != torch.strided or not has_numbers or tensor.is_neg():
        raise StorageError(f"expected plain tensors on the CPU, found one of {tensor.layout} on {tensor.device}")


def _is_in_file(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor are in an archive from which they were not read."""
    return tensor.layout == torch.strided and tensor.untyped_storage()._checkpoint_offset is not None
