"""Writing the result of a harvest: the sum of its parts, tile by tile, in memory that does not grow with either.

The file is laid out first, with holes where the numbers go, and then filled. Sums are float64; only what is written is
rounded, to float32 or bfloat16.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.files.archive import blank
from lit_attr.files.publish import publish
from lit_attr.storage.file_content import Content, file_keys
from lit_attr.storage.fill import leaves, write_filled
from lit_attr.storage.live import Live
from lit_attr.storage.result_errors import blank_errors, summed_errors
from lit_attr.storage.rounding import ROUNDED_KEYS, Rounding
from lit_attr.storage.summed import (
    Summed,
    SummedEdges,
    SummedVector,
    Tiled,
    is_finite,
    live_sources,
    live_targets,
    map_nested,
    measured,
    not_finite,
    summed_tensors,
)
from lit_attr.storage.summed_errors import SummedVectors
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import ResultDtype

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
    *,
    normalising: Sequence[str] | None = None,
    is_dense: bool = True,
    dtype: ResultDtype = "float32",
) -> None:
    """Write the sum of some parts as a result; whole or not at all, with a seal.

    Args:
        path: The file to write.
        parts: Sums of one harvest, float64, in memory or mapped, by a name that messages give them; at least one.
        read: The model's read vectors.
        w_unembed: The unembedding.
        ci_threshold: The threshold to be recorded.
        provenance: What is to be recorded; plain types.
        check: Raises a StorageError if what is there must stay; called right before it is replaced.
        normalising: Names of the parts whose normalisers count; all by default.
        is_dense: Whether the file has places for sources and targets that no part has, as the original's.
        dtype: Type of the sums of edges into components; bfloat16 only where the file is not dense.

    Raises:
        NumericalError: If a sum is not finite, or too large for its type; it names tensor and part.
        StorageError: If it cannot be written; what was there before stays.
    """
    normalising = list(parts) if normalising is None else normalising
    parts = measured(parts, normalising)
    w_unembed = w_unembed.detach().cpu()
    summed = summed_tensors(parts, normalising, read, len(w_unembed), is_dense=is_dense)
    errors = summed_errors(parts, normalising, summed)
    live = None if is_dense else Live(live_sources(parts.values()), live_targets(parts.values(), read))
    rounding = Rounding.begin() if dtype == "bfloat16" else None
    half = torch.float32 if rounding is None else torch.bfloat16
    may_round = {name: nested for name, nested in summed.items() if name in ROUNDED_KEYS}
    others = {name: nested for name, nested in summed.items() if name not in ROUNDED_KEYS}
    content = Content(
        **map_nested(may_round, partial(_without_numbers, half)),
        **map_nested(others, partial(_without_numbers, torch.float32)),
        w_unembed=blank(w_unembed.shape, w_unembed.dtype),
        ci_threshold=ci_threshold,
        n_tokens_processed=sum(int(parts[name].n_tokens) for name in normalising),
        provenance=provenance,
        live=live,
        standard_errors=None if errors is None else blank_errors(errors),
        rounding=rounding,
    )
    skeleton = file_keys(content)
    kinds = SummedVector | SummedEdges | SummedVectors
    tensors: dict[str, Tiled] = dict(leaves({**summed, "standard_errors": errors or {}}, kinds))
    tensors[_W_UNEMBED] = SummedVector({"the model": w_unembed.contiguous()})
    own = {"live": live and live.to_entry(), "rounding": rounding and rounding.to_entry()}
    known = {**own, "standard_errors": errors or {}}
    tensors |= {name: SummedVector({"": numbers}) for name, numbers in leaves(known)}

    def stretches(name: str, empty: Tensor) -> Iterator[tuple[int, Tensor]]:
        may_be_rounded = name.startswith(ROUNDED_KEYS)
        for start, tile in tensors[name].tiles():
            numbers = rounding.rounded(tile) if rounding and may_be_rounded else tile.to(empty.dtype)
            if not is_finite(numbers):
                raise not_finite(name, tensors[name])
            for row, stretch in enumerate(numbers):
                yield start + row * (empty.shape[-1] if empty.ndim else 1), stretch

    def write(file: BinaryIO) -> None:
        write_filled(file, skeleton, stretches)

    nbytes = sum(tensor.nbytes for _, tensor in leaves(skeleton))
    publish(path, write, reserve=nbytes + _OVERHEAD, check=check)


def _without_numbers(dtype: torch.dtype, summed: Summed) -> Tensor:
    return blank(summed.shape, dtype if summed.dtype.is_floating_point else summed.dtype)
