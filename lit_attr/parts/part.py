"""Parts: what one worker has summed so far, and which batches that is.

The file is one of safetensors, with a seal behind it: of each source layer the sources that have a row, in the order of
the rows, and of each target layer the targets that have a column, then float64 sums and int64 counts in a fixed order,
and last the squares, which are float32 as a rule.
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
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums, row_counts
from lit_attr.topology.tables import LiveRows

_LIVE, _TARGETS = "live/", "targets/"
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
    named = _with_ids(sums)

    def write(file: BinaryIO) -> None:
        file.write(head(ledger, _table(named)))
        for tensor in named.values():
            file.write(bytes_of(tensor))

    publish_sealed(path, write, sum(tensor.nbytes for tensor in named.values()))


def read_part(path: Path, layout: Layout) -> tuple[Sums, Ledger]:
    """A part, mapped read-only, after the whole file was compared with its seal.

    Its worker may publish another meanwhile: all that is returned is of the one file that was there first.

    Args:
        path: The part's file.
        layout: Decides which sums there must be.

    Raises:
        StorageError: If the file is missing, damaged, of another layout, or miscounts its tokens.
    """
    with reading(path) as file:
        check_open_seal(file, path)
        read = read_head(file, path)
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    live = _live(view, path, read, row_counts(layout))
    expected = _with_ids(Sums.zeros(layout, torch.float64, "meta", live))
    if read.table != _table(expected):
        raise _foreign(path)
    ids, named = {layer: rows.ids for layer, rows in live.items()}, _mapped(view, path, read.length, expected)
    if not all(torch.equal(named[_TARGETS + layer], targets) for layer, targets in layout.targets.items()):
        raise StorageError(f"{path}: its columns are of other targets than this harvest's or this target shard's")
    part, ledger = Sums.from_named(layout, ids, named), read.ledger
    counted = int(part.n_tokens), int(part.token_count.sum())
    if counted != (ledger.n_tokens, ledger.n_tokens):
        raise StorageError(
            f"{path}: its ledger has {ledger.n_tokens} tokens, its sums {counted[0]}, and one by one {counted[1]}"
        )
    if not 0 <= part.n_abs_tokens <= (0 if layout.metrics == "attr" else ledger.n_tokens):
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


def _with_ids(sums: Sums) -> dict[str, Tensor]:
    """All tensors of a part: which sources have a row, which targets a column, and the sums; wide types first.

    Each then begins at a multiple of its element's size, as a view of the mapped file must.
    """
    rows = {_LIVE + layer: torch.from_numpy(live.ids) for layer, live in sums.live.items()}
    columns = {_TARGETS + layer: ids.contiguous() for layer, ids in sums.layout.targets.items()}
    named = {**rows, **columns, **dict(sums.named())}
    return dict(sorted(named.items(), key=lambda item: -item[1].element_size()))


def _live(view: mmap.mmap, path: Path, read: Head, counts: Mapping[str, int]) -> dict[str, LiveRows]:
    """The sources that have a row, which the file begins with."""
    try:
        entries = json.loads(b"{" + read.table)
        lengths = {layer: int(entries[_LIVE + layer]["shape"][0]) for layer in counts}
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise _foreign(path) from error
    if any(not 0 <= lengths[layer] <= count for layer, count in counts.items()):
        raise _foreign(path)
    blank = {layer: torch.empty(length, dtype=torch.int64, device="meta") for layer, length in lengths.items()}
    live = {}
    for layer, ids in _mapped(view, path, read.length, blank).items():
        ascending = ids.sort().values
        if len(ids) and (ascending[0] < 0 or ascending[-1] >= counts[layer] or (ascending.diff() == 0).any()):
            raise StorageError(f"{path} is damaged: its sources of {layer} are not different ones of {counts[layer]}")
        live[layer] = LiveRows(counts[layer], ids.numpy())
    return live


def _mapped(view: mmap.mmap, path: Path, start: int, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that follow one another as the file's own bytes, which are read when they are used."""
    if len(view) < start + sum(tensor.nbytes for tensor in expected.values()):
        raise StorageError(f"{path} is truncated: it ends before its numbers do")
    rest = on_map(view, start)
    named = {}
    for name, tensor in expected.items():
        named[name], rest = rest[: tensor.nbytes].view(tensor.dtype).view(tensor.shape), rest[tensor.nbytes :]
    return named


def _foreign(path: Path) -> StorageError:
    return StorageError(f"{path}: its sums are not those of this harvest's model")
