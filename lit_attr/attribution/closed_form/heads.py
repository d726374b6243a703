"""What attention did in the captured forward, head by head, and pairs laid out for it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.weights import SparseWeights
from lit_attr.attribution.closed_form.workspace import evenly
from lit_attr.decomposition.anatomy import Attention

# A sequence is cut into so many blocks of positions (and none shorter than the minimum): the future of a block's first
# position is the part of the pattern that is computed in vain.
_BLOCKS, _SHORTEST_BLOCK = 8, 16


@dataclass(frozen=True)
class Heads:
    """Queries and keys (rotated), values, and outputs of all heads of some sequences.

    Attributes:
        attention: Which.
        query: Rotated queries, times 1 / sqrt(width).
        key: Rotated keys of the key heads.
        value: Values of the key heads.
        out: Outputs of the heads.
        log_norm: Logarithm of the sum of the exponentials that each pattern's row is divided by.
    """

    attention: Attention
    query: Float[Tensor, "head batch seq width"]
    key: Float[Tensor, "kv_head batch seq width"]
    value: Float[Tensor, "kv_head batch seq width"]
    out: Float[Tensor, "head batch seq width"]
    log_norm: Float[Tensor, "head batch seq"]

    @classmethod
    def of(
        cls,
        attention: Attention,
        query: Float[Tensor, "batch seq _"],
        key: Float[Tensor, "batch seq _"],
        value: Float[Tensor, "batch seq _"],
    ) -> "Heads":
        """Heads from the outputs of the three matrices."""
        width = attention.head_width
        q, k, v = (x.unflatten(-1, (-1, width)).permute(2, 0, 1, 3).contiguous() for x in (query, key, value))
        if attention.rotate is not None:
            positions = torch.arange(q.shape[2], device=q.device)
            q, k = attention.rotate(q, positions), attention.rotate(k, positions)
        heads = cls(attention, q * width**-0.5, k, v, torch.empty_like(q), q.new_zeros(q.shape[:3]))
        for head in range(len(q)):
            kv_head = heads.kv(head)
            for block in heads.blocks:
                scores = heads.query[head][:, block] @ k[kv_head][:, : block.stop].transpose(1, 2)
                scores.masked_fill_(_future(block, slice(0, block.stop), q.device), float("-inf"))
                heads.log_norm[head][:, block] = scores.logsumexp(-1)
                heads.out[head][:, block] = scores.softmax(-1) @ v[kv_head][:, : block.stop]
        return heads

    def kv(self, head: int) -> int:
        """The key head that a query head uses."""
        return head // self.attention.n_groups

    def columns(self, head: int) -> slice:
        """Where a head lies in the outputs of all heads side by side."""
        return slice(head * self.attention.head_width, (head + 1) * self.attention.head_width)

    @property
    def seq_len(self) -> int:
        """Positions of a sequence."""
        return self.query.shape[2]

    @property
    def blocks(self) -> list[slice]:
        """The blocks of positions."""
        return position_blocks(self.seq_len)

    def pattern(self, head: int, queries: slice, keys: slice) -> Float[Tensor, "batch key query"]:
        """Attention of some queries to some keys, key by query; zero where the key is in the query's future."""
        scores = self.key[self.kv(head)][:, keys] @ self.query[head][:, queries].transpose(1, 2)
        pattern = scores.sub_(self.log_norm[head][:, None, queries]).exp_()
        return pattern.masked_fill_(_future(queries, keys, pattern.device).T, 0.0)

    def rotated(
        self, vectors: Float[Tensor, "batch pair width"], positions: Int[Tensor, "batch pair"]
    ) -> Float[Tensor, "batch pair width"]:
        """Vectors that queries or keys at these positions are moved by, where the matrices' outputs are."""
        return vectors if self.attention.rotate is None else self.attention.rotate(vectors, positions)


def _future(queries: slice, keys: slice, device: torch.device) -> Tensor:
    query = torch.arange(queries.start, queries.stop, device=device)
    return torch.arange(keys.start, keys.stop, device=device) > query[:, None]


def position_blocks(seq_len: int) -> list[slice]:
    """Blocks of equal length, but for the last."""
    return list(evenly(seq_len, max(-(-seq_len // _BLOCKS), _SHORTEST_BLOCK)))


@dataclass(frozen=True)
class PairTable:
    """Pairs of one source layer by sequence and block of positions, padded to equal numbers with pairs of weight zero.

    Attributes:
        pairs: The pairs, and one of weight zero.
        slots: Block by block, indices into the pairs.
        seq_len: Positions of a sequence.
    """

    pairs: SparseWeights
    slots: list[Int[Tensor, "batch _slot"]]
    seq_len: int

    def chosen(self, slots: Int[Tensor, "batch slot"], block: slice) -> "ChosenPairs":
        """Some pairs of a block."""
        pairs = self.pairs
        flat_position = pairs.position[slots]
        # A pair of weight zero stands at the first position of all: any position of its row and block will do.
        position = (flat_position % self.seq_len).clamp_(block.start, block.stop - 1)
        return ChosenPairs(pairs.source[slots], position, flat_position, pairs.weight[slots], block)

    @classmethod
    def of(cls, pairs: SparseWeights, n_rows: int, seq_len: int) -> "PairTable":
        """Lay out pairs whose positions count through all sequences."""
        n_pairs, device = len(pairs.weight), pairs.weight.device
        blocks = position_blocks(seq_len)
        n_blocks, length = len(blocks), blocks[0].stop
        row = pairs.position // seq_len
        group = row * n_blocks + (pairs.position - row * seq_len) // length
        order = group.argsort(stable=True)
        counts = group.new_zeros(n_rows * n_blocks).index_add_(0, group, torch.ones_like(group))
        rank = torch.arange(n_pairs, device=device) - (counts.cumsum(0) - counts)[group[order]]
        sizes = counts.view(n_rows, n_blocks).amax(0).tolist()
        table = torch.full((n_rows * n_blocks, max(sizes)), n_pairs, device=device)
        table[group[order], rank] = order
        table = table.view(n_rows, n_blocks, -1)
        padded = SparseWeights(
            torch.cat([pairs.position, pairs.position.new_zeros(1)]),
            torch.cat([pairs.source, pairs.source.new_zeros(1)]),
            torch.cat([pairs.weight, pairs.weight.new_zeros(1)]),
            pairs.offsets,
        )
        return cls(padded, [table[:, block, :size] for block, size in enumerate(sizes)], seq_len)


@dataclass(frozen=True)
class ChosenPairs:
    """Pairs, as many from each sequence, with positions in one block.

    Attributes:
        source: Of each pair.
        position: Of each pair, in its sequence.
        flat_position: Of each pair, through all sequences.
        weight: Of each pair.
        block: Of positions.
    """

    source: Int[Tensor, "batch slot"]
    position: Int[Tensor, "batch slot"]
    flat_position: Int[Tensor, "batch slot"]
    weight: Float[Tensor, "batch slot"]
    block: slice

    def of_sources(self, values: Float[Tensor, "source width"]) -> Float[Tensor, "batch slot width"]:
        """Each pair's row of values by source."""
        return values[self.source]

    def of_block(self, values: Float[Tensor, "batch _position width"]) -> Float[Tensor, "batch slot width"]:
        """Each pair's row of values by sequence and position of the block."""
        batch, length, width = values.shape
        row = torch.arange(batch, device=values.device)[:, None] * length + self.position - self.block.start
        return values.reshape(-1, width).index_select(0, row.flatten()).view(*self.source.shape, width)
