"""Writing the result of a harvest: the sum of its parts, tile by tile, in memory that does not grow with either.

The file is laid out first, with holes where the numbers go, and then filled. Sums are float64; only what is written is
rounded to float32.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import NumericalError, few
from lit_attr.files.archive import blank, bytes_of, lay_out, layout, offset_of, write_checksums
from lit_attr.files.publish import publish
from lit_attr.files.seal import trailer
from lit_attr.storage.file_content import Content, file_keys
from lit_attr.storage.summed import Summed, map_nested, scale_of_abs, summed_tensors
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums

# Numbers of a tile: 64 MB in float64, and as much again for what it is added from.
_TILE = 1 << 23
# What an archive needs beside its tensors: names and paddings.
_OVERHEAD = 1 << 20
_W_UNEMBED = "w_unembed"


def write_result(
    path: Path,
    parts: Mapping[str, Sums],
    read: ReadVectors,
    w_unembed: Float[Tensor, "d_model vocab"],
    ci_threshold: float,
    provenance: Mapping[str, Any],
    check: Callable[[], object] | None = None,
) -> None:
    """Write the sum of some parts as a result; whole or not at all, with a seal.

    Args:
        path: The file to write.
        parts: Sums of one topology, float64, in memory or mapped, by a name that messages give them; at least one.
        read: The model's read vectors.
        w_unembed: The unembedding.
        ci_threshold: The threshold to be recorded.
        provenance: What is to be recorded; plain types.
        check: Raises a StorageError if what is there must stay; called right before it is replaced.

    Raises:
        NumericalError: If a sum is not finite, or too large for float32; it names tensor and part.
        StorageError: If it cannot be written; what was there before stays.
    """
    w_unembed = w_unembed.detach().cpu()
    n_tokens, n_abs_tokens = (sum(map(int, counts)) for counts in zip(*map(_token_counts, parts.values()), strict=True))
    if not n_abs_tokens:  # of a share of the sequences, none was among those that were harvested
        parts = {name: part.signed() for name, part in parts.items()}
    factor = scale_of_abs(n_tokens, n_abs_tokens)
    by_part = {name: summed_tensors(part, read, len(w_unembed), factor) for name, part in parts.items()}
    first = next(iter(by_part.values()))
    content = Content(
        **map_nested(first, _without_numbers),
        w_unembed=blank(w_unembed.shape, w_unembed.dtype),
        ci_threshold=ci_threshold,
        n_tokens_processed=n_tokens,
        provenance=provenance,
    )
    tensors = {name: _FileTensor(summed, {}) for name, summed in _leaves(first)}
    for part, nested in by_part.items():
        for name, summed in _leaves(nested):
            tensors[name].sums[part] = summed.sums
    tensors[_W_UNEMBED] = _FileTensor(Summed(w_unembed.T, read), {"the model": w_unembed.T})
    nbytes = sum(tensor.nbytes for _, tensor in _leaves(vars(content)))
    publish(path, partial(_write, file_keys(content), tensors), reserve=nbytes + _OVERHEAD, check=check)


def _token_counts(sums: Sums) -> tuple[Tensor, Tensor]:
    return sums.n_tokens, sums.n_abs_tokens


def _without_numbers(summed: Summed) -> Tensor:
    return blank(summed.shape, torch.float32 if summed.sums.is_floating_point() else summed.sums.dtype)


@dataclass(frozen=True)
class _FileTensor:
    """A tensor of the file.

    Attributes:
        summed: How it comes from sums.
        sums: These sums by part.
    """

    summed: Summed
    sums: dict[str, Tensor]

    def tiles(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
        """The finished tensor in pieces: where each begins in it, row by row, and stretches of its rows.

        A piece is contiguous, with an axis of rows; or a stretch of the whole tensor, with one row.
        """
        parts = list(self.sums.values())
        shape = self.summed.shape
        if len(shape) < 2:
            for start in range(0, shape.numel(), _TILE):
                yield start, self.summed.finished(_sum([part[start : start + _TILE] for part in parts])).to(dtype)[None]
            return
        # Sources are rows of sums and columns of the file: read rows, write a stretch of each row.
        step = max(_TILE // max(shape[0], parts[0].shape[1]), 1)
        for start in range(0, shape[1], step):
            rows = self.summed.finished(_sum([part[start : start + step] for part in parts]))
            tile = rows.T.to(dtype).contiguous()
            yield start, tile if step < shape[1] else tile.view(1, -1)


def _write(skeleton: Mapping[str, Any], tensors: Mapping[str, _FileTensor], file: BinaryIO) -> None:
    length = lay_out(skeleton, file)
    for name, empty in _leaves(layout(file)):
        for start, tile in tensors[name].tiles(empty.dtype):
            if not _is_finite(tile):
                raise _not_finite(name, tensors[name].sums)
            for row, numbers in enumerate(tile):
                place = start + row * empty.shape[-1]
                _pwrite(file.fileno(), numbers, offset_of(empty) + place * empty.element_size())
    digest = write_checksums(file, length)
    file.seek(length)
    file.write(trailer(digest))


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors, or what becomes tensors, of a nested mapping, named as `Content.named_sums` does."""
    for key, value in content.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(value, Tensor | Summed):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _leaves(value, name)


def _sum(pieces: Sequence[Tensor]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    total = pieces[0] + pieces[1]
    for piece in pieces[2:]:
        total += piece
    return total


def _is_finite(tile: Tensor) -> bool:
    """Whether all numbers are finite, in one pass without a temporary: NaN is the least and greatest of all."""
    return not tile.is_floating_point() or bool(torch.stack(tile.aminmax()).isfinite().all())


def _not_finite(name: str, sources: Mapping[str, Tensor]) -> NumericalError:
    """What is wrong with a sum, and whose fault it is."""
    for part, tensor in sources.items():
        if not all(_is_finite(rows) for rows in tensor.split(max(_TILE // max(tensor[:1].numel(), 1), 1))):
            return NumericalError(
                f"{part}: {name} has values that are not finite (NaN or infinite). A result without them needs its "
                "batches harvested again, in a new harvest, or after that part was deleted"
            )
    return NumericalError(f"{name}: the sum of {few(list(sources))} is too large for float32, in which results are")


def _pwrite(descriptor: int, tile: Tensor, offset: int) -> None:
    data = bytes_of(tile)
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
