"""The target shards of a harvest together: what counts of each, and that all have gone through the same data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.data.batch_ids import Ids, all_ids, show, union, without
from lit_attr.errors import StorageError
from lit_attr.parts.counting import CountingPart, check_nothing_missing, counting_parts
from lit_attr.parts.generations import Generation
from lit_attr.parts.header import Header


@dataclass(frozen=True)
class CountingShard:
    """What counts of a target shard.

    Attributes:
        generation: Its newest generation.
        parts: Its parts that count.
    """

    generation: Generation
    parts: Sequence[CountingPart]

    @cached_property
    def ids(self) -> Ids:
        """The batches in its parts."""
        return union(part.ids for part in self.parts)

    @cached_property
    def token_count(self) -> Int[Tensor, " vocab"]:
        """Occurrences of each token id in these."""
        return torch.stack([part.sums.token_count for part in self.parts]).sum(0)

    @property
    def n_abs_tokens(self) -> int:
        """Number of tokens over which `attr_abs` is summed."""
        return sum(int(part.sums.n_abs_tokens) for part in self.parts)


def counting_shards(begun: Sequence[Generation | None], header: Header, *, remedy: str | None) -> list[CountingShard]:
    """Open all parts that count; the sums of shards that passed can be united.

    Args:
        begun: The newest generation of each shard; None for those that have not begun, which are not all.
        header: What all parts share.
        remedy: What the user can do where batches are missing, a sentence; None where they may be.

    Raises:
        StorageError: If a part is damaged, foreign or counted twice, batches are missing, or shards do not hold the
            same batches, or have seen other data; it names shards and batches.
    """
    n_batches = max(generation.n_batches for generation in begun if generation is not None)
    folder = next(generation.folder for generation in begun if generation is not None)
    shards = []
    for number, generation in enumerate(begun):
        if generation is None or (remedy is not None and generation.n_batches < n_batches):
            missing = show(all_ids(n_batches)[generation.n_batches if generation else 0 :])
            raise StorageError(
                f"{folder}: target shard {number} has not begun with batches {missing} of the harvest's {n_batches}: "
                f"start workers of it (--data.target_shard {number}) with as many batches as those of the others"
            )
        shards.append(CountingShard(generation, list(counting_parts(generation, header.layout(generation)))))
        if remedy is not None:
            check_nothing_missing(generation, shards[-1].ids, remedy)
    _check_same_batches(folder, shards)
    if shards[0].parts:
        _check_same_data(folder, shards)
    return shards


def _check_same_batches(folder: Path, shards: Sequence[CountingShard]) -> None:
    everything = union(shard.ids for shard in shards)
    lacking = [
        f"target shard {shard.generation.shard} lacks {show(lacks)}"
        for shard in shards
        if len(lacks := without(everything, shard.ids))
    ]
    if lacking:
        raise StorageError(
            f"{folder}: a result needs the same batches of all target shards, since sums cannot be taken apart: "
            f"{'; '.join(lacking)}. Let their workers finish them"
        )


def _check_same_data(folder: Path, shards: Sequence[CountingShard]) -> None:
    """Check what can be compared exactly: digests of the data, and counts."""
    first = shards[0]
    for other in shards[1:]:
        numbers = f"target shards {first.generation.shard} and {other.generation.shard}"
        digests = {
            (shard.generation.n_batches, shard.generation.data_digest)
            for shard in (first, other)
            if shard.generation.data_digest is not None
        }
        if len(digests) > len({n for n, _ in digests}):
            raise StorageError(f"{folder}: {numbers} saw other data, with digests {[d for _, d in sorted(digests)]}")
        if len(unequal := (first.token_count != other.token_count).nonzero()[:, 0]):
            token = int(unequal[0])
            counts = [int(shard.token_count[token]) for shard in (first, other)]
            raise StorageError(
                f"{folder}: {numbers} saw other data: token id {token} occurs {counts[0]} times in the first, "
                f"{counts[1]} in the second"
            )
        if first.n_abs_tokens != other.n_abs_tokens:
            raise StorageError(
                f"{folder}: {numbers} took attr_abs from other sequences: of {first.n_abs_tokens} tokens in the first, "
                f"{other.n_abs_tokens} in the second"
            )
