"""Archives of tensors, laid out first and filled later, and read where they are.

`torch.load(mmap=True)` opens a file more than once, so that a worker may put another in its place meanwhile, and maps
it in a way that the system counts as memory: a file larger than the machine's is refused. Here one open file is mapped,
read-only.
"""

import hashlib
import mmap
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, BinaryIO, cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.limits import check_content, check_records

_CHUNK = 1 << 22
# A record of a zip archive: a header of this length before its name, which ends in the lengths of name and extra field;
# the data; and, as torch writes it, this mark and the CRC-32 behind them, which stands in the list of contents, too.
_HEADER, _HEADER_LENGTHS = 30, struct.Struct("<HH")
_BEHIND_DATA = b"PK\x07\x08"
# An entry of the list of contents: a length, the place of the CRC-32 in it, and that of three lengths of texts behind.
_ENTRY, _ENTRY_CRC, _ENTRY_LENGTHS, _LENGTHS_PLACE = 46, 16, struct.Struct("<HHH"), 28


def lay_out(content: Mapping[str, Any], file: BinaryIO) -> int:
    """Write an archive with holes where the numbers go.

    Args:
        content: What is to be saved; its tensors may be blank ones, which take no memory.
        file: Open, at its beginning; what it has behind the archive is cut off.

    Returns:
        The archive's length.
    """
    with torch.serialization.skip_data():
        torch.save(dict(content), file)
    length = file.tell()
    file.truncate()  # an archive is read from its end
    return length


def blank(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor for `lay_out` that has an address and no memory: its numbers are never looked at.

    Args:
        shape: Sizes of the axes.
        dtype: Type of the numbers.
    """
    nbytes = prod(shape) * dtype.itemsize
    if not nbytes:
        return torch.empty(shape, dtype=dtype)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    return on_map(pages).view(dtype).view(*shape)


def write_checksums(file: BinaryIO, length: int) -> str:
    """Write the CRC-32 of every record into an archive that was laid out and filled; tools for zip files compare them.

    They stand behind the data that they are of, so that one pass over the file both finds and hashes them.

    Args:
        file: Open for reading and writing.
        length: The archive's length.

    Returns:
        SHA-256 of the archive with its check sums, in hexadecimal.

    Raises:
        StorageError: If records are not as torch writes them.
    """
    with zipfile.ZipFile(file) as archive:
        records, place = archive.infolist(), archive.start_dir
    descriptor, digest, done = file.fileno(), hashlib.sha256(), 0
    for record in sorted(records, key=lambda record: record.header_offset):
        name, extra = _HEADER_LENGTHS.unpack(
            os.pread(descriptor, _HEADER_LENGTHS.size, record.header_offset + _HEADER - _HEADER_LENGTHS.size)
        )
        start = record.header_offset + _HEADER + name + extra
        end, crc = start + record.file_size, 0
        for chunk in _chunks(descriptor, done, start):
            digest.update(chunk)
        for chunk in _chunks(descriptor, start, end):
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
        record.CRC, done = crc, end
        if not record.file_size:  # its check sum is zero, and torch writes none behind it
            continue
        if os.pread(descriptor, len(_BEHIND_DATA), end) != _BEHIND_DATA:
            raise StorageError(f"torch {torch.__version__} lays out archives in a way that is not known here")
        os.pwrite(descriptor, crc.to_bytes(4, "little"), end + len(_BEHIND_DATA))
    for record in records:
        os.pwrite(descriptor, record.CRC.to_bytes(4, "little"), place + _ENTRY_CRC)
        lengths = os.pread(descriptor, _ENTRY_LENGTHS.size, place + _LENGTHS_PLACE)
        place += _ENTRY + sum(_ENTRY_LENGTHS.unpack(lengths))
    for chunk in _chunks(descriptor, done, length):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Stretches of an open file as it is on the disk: a buffer may be older than what was written beside it."""
    for place in range(start, end, _CHUNK):
        yield os.pread(descriptor, min(_CHUNK, end - place), place)


def layout(file: BinaryIO) -> Any:  # noqa: ANN401 - whatever was saved
    """What an archive holds, with tensors without numbers in place of its own; none is read.

    Raises:
        StorageError: If it is no archive, or declares more than fits into it.
        Exception: If it is damaged: torch raises many kinds.
    """
    nbytes = os.fstat(file.fileno()).st_size
    check_records(file, nbytes)
    file.seek(0)
    with _reading_no_numbers():
        content = torch.load(file, weights_only=True, map_location="meta")
    check_content(content, nbytes)
    return content


def _reading_no_numbers() -> AbstractContextManager[object]:
    """What `torch.load` needs to leave out the numbers of tensors on the meta device."""
    if torch.__version__ >= "2.12":
        return nullcontext()
    from torch._subclasses.fake_tensor import FakeTensorMode  # it imports torch's compiler, for a second

    return FakeTensorMode()


def offset_of(empty: Tensor) -> int:
    """Where in the file the storage of a tensor of `layout` begins."""
    # torch's own record, for this purpose: "layout control" in its notes on serialization.
    return cast("int", empty.untyped_storage()._checkpoint_offset)


def bytes_of(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as bytes, without a copy; also of dtypes that numpy does not know.

    Args:
        tensor: On the CPU, contiguous. Its strides may say otherwise where it has one row or column: torch leaves those
            undefined.
    """
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data


def on_map(view: mmap.mmap, offset: int = 0) -> UInt8[Tensor, " byte"]:
    """The bytes of a map as a tensor, which must not be written to.

    Args:
        view: A map for reading.
        offset: Where in it the tensor begins.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(view, dtype=torch.uint8, offset=offset)
