"""Pairs of a source and a position laid out for attention: by sequence, and by block of positions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.weights import SparseWeights
from lit_attr.attribution.closed_form.workspace import Workspace, evenly

# A sequence is cut into so many blocks of positions (and none shorter than the minimum): the future of a block's first
# position is the part of the pattern that is computed in vain.
_BLOCKS, _SHORTEST_BLOCK = 8, 32


def position_blocks(seq_len: int, shortest: int | None = None) -> list[slice]:
    """Blocks that a sequence is cut into: of equal length, but for the last.

    Args:
        seq_len: Positions of the sequence.
        shortest: Shorter ones are not worth their while; None for those of pairs.
    """
    return list(evenly(seq_len, max(-(-seq_len // _BLOCKS), _SHORTEST_BLOCK if shortest is None else shortest)))


@dataclass(frozen=True)
class PairBlock:
    """Pairs with positions in one block, as a table with equally many slots for each sequence.

    Attributes:
        source: Source component of each pair.
        position: Position of each pair, counted from the first of the block.
        weight: Weight of each pair; zero for those that only fill the table.
        block: The block of positions.
    """

    source: Int[Tensor, "batch slot"]
    position: Int[Tensor, "batch slot"]
    weight: Float[Tensor, "batch slot"]
    block: slice

    def part(self, rows: slice, slots: slice = slice(None)) -> "PairBlock":
        """Some of the sequences and of their pairs."""
        source, position, weight = (values[rows, slots] for values in (self.source, self.position, self.weight))
        return PairBlock(source, position, weight, self.block)

    def pieces(
        self, workspace: Workspace, bytes_per_pair: int, bytes_per_row: int
    ) -> Iterator[tuple[slice, "PairBlock"]]:
        """Cut the table into pieces whose temporaries fit: whole sequences where the workspace holds one.

        Args:
            workspace: Memory for temporaries.
            bytes_per_pair: Temporaries of each pair.
            bytes_per_row: Temporaries of each sequence beside those of its pairs.

        Yields:
            The sequences of a piece, and the piece.
        """
        batch, n_slots = self.source.shape
        for rows in workspace.pieces(batch, bytes_per_pair * n_slots + bytes_per_row, 2 * workspace.n_threads):
            for slots in workspace.pieces(n_slots, bytes_per_pair * (rows.stop - rows.start), 256):
                yield rows, self.part(rows, slots)

    def tangents(self, write: Float[Tensor, "source width"]) -> Float[Tensor, "batch slot width"]:
        """What each pair adds to the output of its matrix: write vector times weight."""
        rows = write.index_select(0, self.source.flatten()).view(*self.source.shape, -1)
        return rows.mul_(self.weight[..., None])

    def gather(
        self, values: Float[Tensor, "*axes _position width"], first: int = 0
    ) -> Float[Tensor, "*axes slot width"]:
        """The row of each pair.

        Args:
            values: By sequence (the first axis) and position.
            first: Place of the block's first position among the positions.
        """
        *axes, length, width = values.shape
        index = self._index(prod(axes), length, first)
        return values.reshape(-1, width).index_select(0, index).view(*axes, -1, width)

    @cached_property
    def _known(self) -> dict[tuple[int, int, int], Int[Tensor, " row"]]:
        return {}

    def _index(self, n_tables: int, length: int, first: int) -> Int[Tensor, " row"]:
        """The row of each pair in tables of positions that lie one behind the other, equally many for each sequence."""
        key = n_tables, length, first
        if key not in self._known:
            tables = torch.arange(first, first + n_tables * length, length, device=self.position.device)
            self._known[key] = (tables.view(len(self.position), -1, 1) + self.position[:, None]).flatten()
        return self._known[key]


@dataclass(frozen=True)
class PairTable:
    """All pairs of a source layer, block by block.

    Attributes:
        blocks: The blocks, in order.
    """

    blocks: Sequence[PairBlock]

    @classmethod
    def of(cls, pairs: SparseWeights, batch: int, seq_len: int, sizes: Sequence[int]) -> "PairTable":
        """Lay pairs out, each sequence padded to the same number of pairs.

        Args:
            pairs: Pairs whose positions count through all sequences.
            batch: Number of sequences.
            seq_len: Number of positions of a sequence.
            sizes: For each block the most pairs that a sequence has in it.
        """
        n_pairs, device = len(pairs.weight), pairs.weight.device
        blocks = position_blocks(seq_len)
        row = pairs.position // seq_len
        position = pairs.position - row * seq_len
        group = row * len(blocks) + position // blocks[0].stop
        order = group.argsort(stable=True)
        counts = group.new_zeros(batch * len(blocks)).index_add_(0, group, torch.ones_like(group))
        slot = torch.arange(n_pairs, device=device) - (counts.cumsum(0) - counts)[group[order]]

        def table(values: Tensor) -> Tensor:
            padded = values.new_zeros(batch * len(blocks), max(sizes))
            padded[group[order], slot] = values[order]
            return padded.view(batch, len(blocks), -1)

        source, within, weight = table(pairs.source), table(position % blocks[0].stop), table(pairs.weight)
        return cls(
            [
                PairBlock(source[:, index, :size], within[:, index, :size], weight[:, index, :size], block)
                for index, (block, size) in enumerate(zip(blocks, sizes, strict=True))
            ]
        )
