"""Writing the result of a harvest: the sum of its parts, tile by tile, in memory that does not grow with either.

The file is laid out first, with holes where the numbers go, and then filled. Sums are float64; only what is written is
rounded to float32.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import Content
from lit_attr.topology.sums import Sums

# Numbers of a tile: 64 MB in float64, and as much again for what it is added from.
_TILE = 1 << 23
# What an archive needs beside its tensors: names and paddings.
_OVERHEAD = 1 << 20
_W_UNEMBED = "w_unembed"


def write_result(
    path: Path,
    parts: Mapping[str, Sums],
    w_unembed: Float[Tensor, "d_model vocab"],
    ci_threshold: float,
    provenance: Mapping[str, Any],
    check: Callable[[], object] | None = None,
) -> None:
    """Write the sum of some parts as a result; whole or not at all, with a seal.

    Args:
        path: The file to write.
        parts: Sums of one topology, float64, in memory or mapped, by a name that messages give them; at least one.
        w_unembed: The unembedding.
        ci_threshold: The threshold to be recorded.
        provenance: What is to be recorded; plain types.
        check: Raises a StorageError if what is there must stay; called right before it is replaced.

    Raises:
        NumericalError: If a sum is not finite, or too large for float32; it names tensor and part.
        StorageError: If it cannot be written; what was there before stays.
    """
    w_unembed = w_unembed.detach().cpu()
    contents = {
        name: DatasetAttributionStorage.from_sums(part, w_unembed, ci_threshold, provenance)
        for name, part in parts.items()
    }
    first = next(iter(contents.values()))
    skeleton = _skeleton(first, sum(int(part.n_tokens) for part in parts.values()))
    sources: dict[str, dict[str, Tensor]] = {name: {} for name, _ in first.named_sums()}
    for part, content in contents.items():
        for name, tensor in content.named_sums():
            sources[name][part] = tensor
    sources[_W_UNEMBED] = {"the model": w_unembed}
    nbytes = sum(tensor.nbytes for _, tensor in _tensors(skeleton))
    publish(path, partial(_write, skeleton, sources), reserve=nbytes + _OVERHEAD, check=check)


def _write(skeleton: Mapping[str, Any], sources: Mapping[str, Mapping[str, Tensor]], file: BinaryIO) -> None:
    length = lay_out(skeleton, file)
    for name, empty in _tensors(layout(file)):
        for start, tile in _tiles(list(sources[name].values()), empty.dtype):
            if not _is_finite(tile):
                raise _not_finite(name, sources[name])
            for row, numbers in enumerate(tile):
                place = start + row * empty.shape[-1]
                _pwrite(file.fileno(), numbers, offset_of(empty) + place * empty.element_size())
    digest = write_checksums(file, length)
    file.seek(length)
    file.write(trailer(digest))


def _skeleton(content: Content, n_tokens: int) -> dict[str, Any]:
    """What the file holds, with tensors of its shapes and dtypes that take no memory."""

    def without_numbers(value: object) -> Any:  # noqa: ANN401 - a tensor, a mapping, or a plain value
        if isinstance(value, Tensor):
            return blank(value.shape, torch.float32 if value.is_floating_point() else value.dtype)
        if isinstance(value, Mapping):
            return {key: without_numbers(inner) for key, inner in value.items()}
        return value

    w_unembed, provenance = content.w_unembed, content.provenance
    sums = {name: without_numbers(value) for name, value in vars(content).items() if name != "provenance"}
    unembedding = blank(w_unembed.shape, w_unembed.dtype)
    return {**sums, _W_UNEMBED: unembedding, "n_tokens_processed": n_tokens, "provenance": provenance}


def _tensors(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of a nested mapping, named as `Content.named_sums` does."""
    for key, value in content.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors(value, name)


def _tiles(sources: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """The sum of some tensors in pieces: where each begins in the row-major result, and stretches of its rows.

    A piece is contiguous, with an axis of rows; or a stretch of the whole result, with one row.
    """
    first = sources[0]
    if first.ndim < 2 or first.is_contiguous():
        flat = [source.reshape(-1) for source in sources]
        for start in range(0, len(flat[0]), _TILE):
            yield start, _sum([source[start : start + _TILE] for source in flat]).to(dtype)[None]
        return
    # A transposed view: read in the order in which it is stored, write a stretch of each row.
    n_rows, n_columns = first.shape
    step = max(_TILE // n_rows, 1)
    for start in range(0, n_columns, step):
        yield start, _sum([source.T[start : start + step] for source in sources]).T.to(dtype).contiguous()


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
