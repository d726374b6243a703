"""Parts: what one worker has summed so far, and which batches that is.

The file is one of safetensors, float64 sums and int64 counts in a fixed order, with a seal behind it.
"""

import json
import mmap
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.archive import bytes_of, on_map
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, publish_sealed
from lit_attr.parts.ledger import Head, Ledger, head, read_head
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import Harvested

_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}


def write_part(path: Path, sums: Sums, ledger: Ledger) -> None:
    """Publish a part; the one that was there stays until the new one is safe.

    Args:
        path: The part's file.
        sums: The sums, in float64, on the CPU.
        ledger: What the part says of itself.

    Raises:
        StorageError: If it cannot be written.
    """
    named = dict(sums.named())

    def write(file: BinaryIO) -> None:
        file.write(head(ledger, _table(named)))
        for tensor in named.values():
            file.write(bytes_of(tensor))

    publish_sealed(path, write, sums.nbytes)


def read_part(path: Path, topology: Topology, metrics: Harvested) -> tuple[Sums, Ledger]:
    """A part, mapped read-only, after the whole file was compared with its seal.

    Its worker may publish another meanwhile: all that is returned is of the one file that was there first.

    Args:
        path: The part's file.
        topology: Decides, with `metrics`, which sums there must be.
        metrics: Which metrics the harvest sums.

    Raises:
        StorageError: If the file is missing, damaged, of another topology, or miscounts its tokens.
    """
    expected = dict(Sums.zeros(topology, torch.float64, "meta", metrics).named())
    with reading(path) as file:
        check_open_seal(file, path)
        read = read_head(file, path)
        named = _mapped(file, path, read, expected)
    part, ledger = Sums.from_named(topology, named, metrics), read.ledger
    counted = int(part.n_tokens), int(part.token_count.sum())
    if counted != (ledger.n_tokens, ledger.n_tokens):
        raise StorageError(
            f"{path}: its ledger has {ledger.n_tokens} tokens, its sums {counted[0]}, and one by one {counted[1]}"
        )
    if not 0 <= part.n_abs_tokens <= (0 if metrics == "attr" else ledger.n_tokens):
        raise StorageError(f"{path}: its sums of attr_abs are of {part.n_abs_tokens} of its {ledger.n_tokens} tokens")
    return part, ledger


def _table(tensors: Mapping[str, Tensor]) -> bytes:
    """What the head says of tensors that follow one another."""
    ends = list(accumulate(tensor.nbytes for tensor in tensors.values()))
    entries = {
        name: {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end - tensor.nbytes, end]}
        for (name, tensor), end in zip(tensors.items(), ends, strict=True)
    }
    return json.dumps(entries).encode()[1:]


def _mapped(file: BinaryIO, path: Path, read: Head, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors behind a head as the file's own bytes, which are read when they are used."""
    if read.table != _table(expected):
        raise _foreign(path)
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(view) < read.length + sum(tensor.nbytes for tensor in expected.values()):
        raise StorageError(f"{path} is truncated: it ends before its numbers do")
    rest = on_map(view, read.length)
    named = {}
    for name, tensor in expected.items():
        named[name], rest = rest[: tensor.nbytes].view(tensor.dtype).view(tensor.shape), rest[tensor.nbytes :]
    return named


def _foreign(path: Path) -> StorageError:
    return StorageError(f"{path}: its sums are not those of this harvest's model")
