"""What attention did in the captured forward: queries, keys, values, patterns."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.attribution.closed_form.pair_blocks import PairBlock, position_blocks
from lit_attr.decomposition.anatomy import Attention

# Of whole patterns; for shorter ones, each of a few operations would be too small.
SHORTEST_BLOCK = 128


@dataclass(frozen=True)
class Heads:
    """Queries and keys (rotated), values, and outputs of all query heads of some sequences.

    Attributes:
        attention: The attention whose heads they are.
        query: Queries times the attention's scale.
        key: Keys of the key head that each query head uses, less their mean over positions.
        value: Values of that key head, less their mean over positions.
        out: Outputs of the heads, less the mean of the values.
        log_norm: Logarithm of the sum of exponentials that each row of the pattern is divided by; empty beside `whole`.
        whole: The attention pattern, where there is room for it; otherwise it is computed anew, block by block.
        query_norm: Norm of the queries before they are rotated; None where they are not normalised.
        key_norm: Norm of the keys before they are rotated; None where they are not normalised.
    """

    attention: Attention
    query: Float[Tensor, "batch head seq width"]
    key: Float[Tensor, "batch head seq width"]
    value: Float[Tensor, "batch head seq width"]
    out: Float[Tensor, "batch head seq width"]
    log_norm: Float[Tensor, "batch head seq"]
    whole: Float[Tensor, "batch head seq seq"] | None
    query_norm: Normalised | None
    key_norm: Normalised | None

    @classmethod
    def of(
        cls,
        attention: Attention,
        query: Float[Tensor, "batch seq _"],
        key: Float[Tensor, "batch seq _"],
        value: Float[Tensor, "batch seq _"],
        at_most: int = 0,
    ) -> "Heads":
        """Heads from the outputs of the three matrices.

        Args:
            attention: The attention whose heads they are.
            query: Output of the matrix of queries.
            key: Output of the matrix of keys.
            value: Output of the matrix of values.
            at_most: Bytes that the attention pattern may take to be kept.
        """
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
        q = q * attention.scale
        n_bytes = q.shape[:3].numel() * q.shape[2] * q.element_size()
        whole = q.new_empty(*q.shape[:3], q.shape[2]) if n_bytes <= at_most else None
        heads = cls(attention, q, k, v, torch.empty_like(v), q.new_empty(q.shape[:3]), whole, norms[0], norms[1])
        for block in heads.blocks:
            past = slice(0, block.stop)
            scores = heads.query[:, :, block] @ k[:, :, past].transpose(-1, -2)
            scores.masked_fill_(heads._hidden(block, past), float("-inf"))
            pattern = scores.softmax(-1)
            heads.out[:, :, block] = pattern @ v[:, :, past]
            if whole is None:
                heads.log_norm[:, :, block] = scores.logsumexp(-1)
            else:
                whole[:, :, block, past], whole[:, :, block, block.stop :] = pattern, 0
        return heads

    def part(self, rows: slice = slice(None), heads: slice = slice(None)) -> "Heads":
        """Some of the sequences and heads."""
        parts = (self.query, self.key, self.value, self.out, self.log_norm)
        query, key, value, out, log_norm = (values[rows, heads] for values in parts)
        whole = None if self.whole is None else self.whole[rows, heads]
        query_norm, key_norm = (norm and norm.part((rows, heads)) for norm in (self.query_norm, self.key_norm))
        return Heads(self.attention, query, key, value, out, log_norm, whole, query_norm, key_norm)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Sequences, heads, positions, width of a head."""
        batch, n_heads, seq_len, width = self.query.shape
        return batch, n_heads, seq_len, width

    @property
    def blocks(self) -> list[slice]:
        """The blocks of positions."""
        return position_blocks(self.query.shape[2], SHORTEST_BLOCK)

    def pattern(self, queries: slice, keys: slice) -> Float[Tensor, "batch head query key"]:
        """The attention pattern; zero where the query does not see the key."""
        if self.whole is not None:
            return self.whole[:, :, queries, keys]
        scores = self.query[:, :, queries] @ self.key[:, :, keys].transpose(-1, -2)
        pattern = scores.sub_(self.log_norm[:, :, queries, None]).exp_()
        return pattern.masked_fill_(self._hidden(queries, keys), 0.0)

    def pattern_by_key(self, queries: slice, keys: slice) -> Float[Tensor, "batch head key query"]:
        """The attention pattern with keys before queries."""
        if self.whole is not None:
            return self.whole[:, :, queries, keys].transpose(-1, -2)
        scores = self.key[:, :, keys] @ self.query[:, :, queries].transpose(-1, -2)
        pattern = scores.sub_(self.log_norm[:, :, None, queries]).exp_()
        return pattern.masked_fill_(self._hidden(queries, keys).T, 0.0)

    def split(self, vectors: Float[Tensor, "batch slot _"]) -> Float[Tensor, "batch head slot width"]:
        """Outputs of a query, key or value matrix by query head; several query heads may use one key head."""
        heads = vectors.unflatten(-1, (-1, self.query.shape[3])).transpose(1, 2)
        return heads.repeat_interleave(self.query.shape[1] // heads.shape[1], 1)

    def jvp(
        self, pairs: PairBlock, tangents: Float[Tensor, "batch head slot width"], norm: Normalised | None
    ) -> Float[Tensor, "batch head slot width"]:
        """Push tangents of a matrix's output forward to the queries or keys: through their norm and rotation.

        Args:
            pairs: Pairs that say at which positions.
            tangents: Tangents of the output of the query or key matrix, by head.
            norm: Norm of the queries or of the keys, whichever they are; None for none.
        """
        if norm is not None:
            value, scale = (pairs.gather(x[:, :, pairs.block]) for x in (norm.value, norm.scale[..., None]))
            tangents = Normalised(norm.norm, value, scale[..., 0]).jvp(tangents)
        rotate = self.attention.rotate
        return tangents if rotate is None else rotate(tangents, (pairs.position + pairs.block.start)[:, None])

    def _hidden(self, queries: slice, keys: slice) -> Bool[Tensor, "query key"]:
        device, window = self.query.device, self.attention.window
        query = torch.arange(queries.start, queries.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)
        hidden = key > query
        return hidden if window is None else hidden | (key <= query - window)
