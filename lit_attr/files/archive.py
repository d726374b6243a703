"""Archives of tensors, laid out first and filled later, and read where they are.

`torch.load(mmap=True)` opens a file more than once, so that a worker may put another in its place meanwhile, and maps
it in a way that the system counts as memory: a file larger than the machine's is refused. Here one open file is mapped,
read-only.
"""

import mmap
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


def lay_out(content: Mapping[str, Any], file: BinaryIO) -> int:
    """Write an archive with holes where the numbers go.

    Args:
        content: What is to be saved; its tensors may be fake ones, which take no memory.
        file: Open, at its beginning; what it has behind the archive is cut off.

    Returns:
        The archive's length.
    """
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(dict(content), file)
    length = file.tell()
    file.truncate()  # an archive is read from its end
    return length


def layout(file: BinaryIO) -> Any:  # noqa: ANN401 - whatever was saved
    """What an archive holds, with fake tensors in place of its own; no numbers are read."""
    file.seek(0)
    with FakeTensorMode():
        return torch.load(file, weights_only=True)


def offset_of(fake: Tensor) -> int:
    """Where in the file the storage of a tensor of `layout` begins."""
    # torch's own record, for this purpose: "layout control" in its notes on serialization.
    return cast("int", fake.untyped_storage()._checkpoint_offset)


def bytes_of(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as bytes, without a copy; also of dtypes that numpy does not know.

    Args:
        tensor: On the CPU, contiguous. Its strides may say otherwise where it has one row or column: torch leaves those
            undefined.
    """
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data


def mapped(file: BinaryIO, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an archive as the file's own bytes, which are read when they are used, and must not be written to.

    Args:
        file: Open; may be closed afterwards.
        fakes: Some tensors of `layout`.
    """
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        whole = torch.frombuffer(view, dtype=torch.uint8)

    def find(fake: Tensor) -> Tensor:
        start = offset_of(fake)
        storage = whole[start : start + fake.untyped_storage().nbytes()].view(fake.dtype)
        return storage.as_strided(fake.shape, fake.stride(), storage.storage_offset() + fake.storage_offset())

    return {name: find(fake) for name, fake in fakes.items()}
