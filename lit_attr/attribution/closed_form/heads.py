"""What attention did in the captured forward, and pairs laid out for it by sequence and block of positions."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.weights import SparseWeights
from lit_attr.attribution.closed_form.workspace import Workspace, evenly
from lit_attr.decomposition.anatomy import Attention

# A sequence is cut into so many blocks of positions (and none shorter than the minimum): the future of a block's first
# position is the part of the pattern that is computed in vain.
_BLOCKS, _SHORTEST_BLOCK = 8, 32


def position_blocks(seq_len: int) -> list[slice]:
    """Blocks of equal length, but for the last."""
    return list(evenly(seq_len, max(-(-seq_len // _BLOCKS), _SHORTEST_BLOCK)))


@dataclass(frozen=True)
class Heads:
    """Queries and keys (rotated), values, and outputs of all query heads of some sequences.

    Attributes:
        attention: Which.
        query: Times the attention's scale.
        key: Of the key head that the query head uses, less their mean over positions.
        value: Of the same, less their mean over positions.
        out: What the heads give, less the same mean.
        log_norm: Logarithm of the sum of exponentials that each row of the pattern is divided by.
        query_norm: Of the queries before they are rotated; None where they are not normalised.
        key_norm: The same of the keys.
    """

    attention: Attention
    query: Float[Tensor, "batch head seq width"]
    key: Float[Tensor, "batch head seq width"]
    value: Float[Tensor, "batch head seq width"]
    out: Float[Tensor, "batch head seq width"]
    log_norm: Float[Tensor, "batch head seq"]
    query_norm: Normalised | None
    key_norm: Normalised | None

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
        q, k, v = (x.unflatten(-1, (-1, width)).transpose(1, 2) for x in (query, key, value))
        k, v = (x.repeat_interleave(attention.n_groups, 1) for x in (k, v))
        norms = [
            None if projection.norm is None else Normalised.of(projection.norm, x)
            for projection, x in ((attention.query, q), (attention.key, k))
        ]
        q, k = (x if norm is None else norm.output for x, norm in zip((q, k), norms, strict=True))
        if attention.rotate is not None:
            positions = torch.arange(q.shape[2], device=q.device)
            q, k = attention.rotate(q, positions), attention.rotate(k, positions)
        # Attention is the same, and only differences are formed from here on: they round less if the numbers are small.
        k, v = ((x - x.mean(2, keepdim=True)).contiguous() for x in (k, v))
        heads = cls(
            attention, q * attention.scale, k, v, torch.empty_like(v), q.new_empty(q.shape[:3]), norms[0], norms[1]
        )
        for block in heads.blocks:
            past = slice(0, block.stop)
            scores = heads.query[:, :, block] @ k[:, :, past].transpose(-1, -2)
            scores.masked_fill_(heads._hidden(block, past), float("-inf"))
            heads.log_norm[:, :, block] = scores.logsumexp(-1)
            heads.out[:, :, block] = scores.softmax(-1) @ v[:, :, past]
        return heads

    def part(self, rows: slice = slice(None), heads: slice = slice(None)) -> "Heads":
        """Some of the sequences and heads."""
        parts = (self.query, self.key, self.value, self.out, self.log_norm)
        query, key, value, out, log_norm = (values[rows, heads] for values in parts)
        query_norm, key_norm = (norm and norm.part((rows, heads)) for norm in (self.query_norm, self.key_norm))
        return Heads(self.attention, query, key, value, out, log_norm, query_norm, key_norm)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Sequences, heads, positions, width of a head."""
        batch, n_heads, seq_len, width = self.query.shape
        return batch, n_heads, seq_len, width

    @property
    def blocks(self) -> list[slice]:
        """The blocks of positions."""
        return position_blocks(self.query.shape[2])

    def by_query(self, queries: slice, keys: slice) -> Float[Tensor, "batch head query key"]:
        """The pattern; zero where the query does not see the key."""
        scores = self.query[:, :, queries] @ self.key[:, :, keys].transpose(-1, -2)
        pattern = scores.sub_(self.log_norm[:, :, queries, None]).exp_()
        return pattern.masked_fill_(self._hidden(queries, keys), 0.0)

    def by_key(self, queries: slice, keys: slice) -> Float[Tensor, "batch head key query"]:
        """The same, transposed."""
        scores = self.key[:, :, keys] @ self.query[:, :, queries].transpose(-1, -2)
        pattern = scores.sub_(self.log_norm[:, :, None, queries]).exp_()
        return pattern.masked_fill_(self._hidden(queries, keys).T, 0.0)

    def split(self, vectors: Float[Tensor, "batch slot _"]) -> Float[Tensor, "batch head slot width"]:
        """Vectors that are outputs of a matrix, by query head."""
        heads = vectors.unflatten(-1, (-1, self.query.shape[3])).transpose(1, 2)
        return heads.repeat_interleave(self.query.shape[1] // heads.shape[1], 1)

    def moved(
        self, pairs: "PairBlock", vectors: Float[Tensor, "batch head slot width"], norm: Normalised | None
    ) -> Float[Tensor, "batch head slot width"]:
        """What moves queries or keys if the outputs of their matrices move.

        Args:
            pairs: Where.
            vectors: By which the outputs move.
            norm: Of the queries or of the keys.
        """
        if norm is not None:
            value, scale = (pairs.placed(x[:, :, pairs.block]) for x in (norm.value, norm.scale[..., None]))
            vectors = Normalised(norm.norm, value, scale[..., 0]).push(vectors)
        rotate = self.attention.rotate
        return vectors if rotate is None else rotate(vectors, (pairs.position + pairs.block.start)[:, None])

    def _hidden(self, queries: slice, keys: slice) -> Bool[Tensor, "query key"]:
        device, window = self.query.device, self.attention.window
        query = torch.arange(queries.start, queries.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)
        hidden = key > query
        return hidden if window is None else hidden | (key <= query - window)


@dataclass(frozen=True)
class PairBlock:
    """Pairs, as many from each sequence, with positions in one block.

    Attributes:
        source: Of each pair.
        position: Of each pair, counted from the block's first.
        weight: Of each pair; zero for those that only fill the table.
        block: Of positions.
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
        """The same in pieces: whole sequences where the workspace holds one.

        Args:
            workspace: For temporaries.
            bytes_per_pair: What each pair needs.
            bytes_per_row: What each sequence needs beside its pairs.

        Yields:
            Which sequences, and the piece.
        """
        batch, n_slots = self.source.shape
        for rows in workspace.pieces(batch, bytes_per_pair * n_slots + bytes_per_row):
            for slots in workspace.pieces(n_slots, bytes_per_pair * (rows.stop - rows.start)):
                yield rows, self.part(rows, slots)

    def weighted(self, write: Float[Tensor, "source width"]) -> Float[Tensor, "batch slot width"]:
        """Each pair's write vector times its weight."""
        rows = write.index_select(0, self.source.flatten()).view(*self.source.shape, -1)
        return rows.mul_(self.weight[..., None])

    def placed(self, values: Float[Tensor, "*axes _position width"]) -> Float[Tensor, "*axes slot width"]:
        """Each pair's row of values by sequence (the first axis) and position of the block."""
        *axes, length, width = values.shape
        tables = torch.arange(axes[0], device=values.device)
        for size in axes[1:]:
            tables = tables[..., None] * size + torch.arange(size, device=values.device)
        position = self.position.view(axes[0], *[1] * (len(axes) - 1), -1)
        index = tables[..., None] * length + position
        return values.reshape(-1, width).index_select(0, index.flatten()).view(*axes, -1, width)


def pair_blocks(pairs: SparseWeights, batch: int, seq_len: int) -> list[PairBlock]:
    """Pairs by block of positions, each sequence padded to the same number of pairs.

    Args:
        pairs: Their positions count through all sequences.
        batch: Number of sequences.
        seq_len: Positions of a sequence.
    """
    n_pairs, device = len(pairs.weight), pairs.weight.device
    blocks = position_blocks(seq_len)
    row = pairs.position // seq_len
    position = pairs.position - row * seq_len
    group = row * len(blocks) + position // blocks[0].stop
    order = group.argsort(stable=True)
    counts = group.new_zeros(batch * len(blocks)).index_add_(0, group, torch.ones_like(group))
    slot = torch.arange(n_pairs, device=device) - (counts.cumsum(0) - counts)[group[order]]
    sizes = counts.view(batch, len(blocks)).amax(0).tolist()

    def table(values: Tensor) -> Tensor:
        padded = values.new_zeros(batch * len(blocks), max(sizes))
        padded[group[order], slot] = values[order]
        return padded.view(batch, len(blocks), -1)

    source, within, weight = table(pairs.source), table(position % blocks[0].stop), table(pairs.weight)
    return [
        PairBlock(source[:, index, :size], within[:, index, :size], weight[:, index, :size], block)
        for index, (block, size) in enumerate(zip(blocks, sizes, strict=True))
    ]
