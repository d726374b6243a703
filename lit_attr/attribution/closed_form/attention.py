"""Edges inside an attention: from its values, queries and keys to what reads the heads' outputs.

With A the pattern of a head, v its values and z = A v its output, a target reads `y[p] = sum_heads V . z[p]`. A
tangent u

- of the values at q changes z[p] by A[p, q] u;
- of the query at p changes the scores by l[p, q] = u . k[q], and z[p] by sum_q A[p, q] l[p, q] (v[q] - z[p]);
- of the key at q changes the scores of all p >= q by l[p, q] = u . query[p], and z[p] by A[p, q] l[p, q] (v[q] - z[p]).

`query` stands for the normalised, rotated query times the scale; tangents of a matrix's output are pushed through the
same norm and rotated likewise (`Heads.jvp`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.attribution.closed_form.operands import PairSums, Readers, SourceComponents
from lit_attr.attribution.closed_form.pair_blocks import PairBlock, PairTable
from lit_attr.attribution.closed_form.workspace import Workspace


def value_tangents(source: SourceComponents, heads: Heads) -> Float[Tensor, "source d_in"]:
    """What values add to the heads' outputs, summed over positions: `attr` in read space."""
    batch, n_heads, seq_len, _ = heads.sizes
    received = heads.log_norm.new_empty(batch, n_heads, seq_len)
    for block in heads.blocks:
        received[:, :, block] = heads.pattern_by_key(slice(block.start, seq_len), block).sum(-1)
    by_head = source.weights.total(received.transpose(1, 2).flatten(0, 1))
    return (heads.split(source.write[None])[0] * by_head.T[..., None]).transpose(0, 1).flatten(1)


def value_signed_effects(source: SourceComponents, target: Readers, heads: Heads) -> Float[Tensor, "source target"]:
    """What values add to the activations of readers times their signs, summed over positions: `attr_abs`.

    The pattern mixes the signs over positions.
    """
    batch, n_heads, seq_len, width = heads.sizes
    write = heads.split(source.write[None])[0]  # head source width
    read = target.read.unflatten(0, (n_heads, width))
    sign = target.sign.view(batch, seq_len, -1)
    effects = target.read.new_zeros(source.pairs.n_sources, target.read.shape[1])
    mixed = torch.empty_like(sign)
    for head in range(n_heads):
        one = heads.part(heads=slice(head, head + 1))
        for block in heads.blocks:
            later = slice(block.start, seq_len)
            mixed[:, block] = one.pattern_by_key(later, block)[:, 0] @ sign[:, later]
        effects.addcmul_(write[head] @ read[head], source.weights.total(mixed.flatten(0, 1)))
    return effects


def query_sums(
    source: SourceComponents, target: Readers | None, heads: Heads, table: PairTable, workspace: Workspace
) -> tuple[Float[Tensor, "source d_in"], Float[Tensor, "source target"]]:
    """What queries add, at their own position, pair by pair as in an MLP.

    Args:
        source: The components that write queries.
        target: Components that read the heads' outputs; None for `attr` alone.
        heads: The heads.
        table: The pairs of `source`.
        workspace: Memory for temporaries.

    Returns:
        `attr` in read space, and `attr_abs`, which has no columns where no components are given.
    """
    batch, n_heads, seq_len, width = heads.sizes
    n_targets = 0 if target is None else target.read.shape[1]
    sums = PairSums(source.pairs, n_heads * width), PairSums(source.pairs, n_targets)
    size = source.write.element_size()
    for pairs in table.blocks:
        block, past = pairs.block, slice(0, pairs.block.stop)
        per_pair = size * (2 * n_heads * (block.stop + 5 * width) + 2 * n_targets)
        per_row = size * 2 * n_heads * (block.stop - block.start) * block.stop
        for rows, part in pairs.pieces(workspace, per_pair, per_row):
            here = heads.part(rows)
            query_tangents = here.jvp(part, heads.split(part.tangents(source.write)), here.query_norm)
            weighted_scores = query_tangents.mul_(heads.attention.scale) @ here.key[:, :, past].transpose(-1, -2)
            weighted_scores.mul_(part.gather(here.pattern(block, past)))
            tangents = weighted_scores @ here.value[:, :, past]
            tangents.addcmul_(part.gather(here.out[:, :, block]), weighted_scores.sum(-1, keepdim=True), value=-1)
            sources, by_pair = part.source.flatten(), tangents.transpose(1, 2).flatten(2).flatten(0, 1)
            sums[0].add_(sources, by_pair)
            if target is not None:
                sign = part.gather(target.sign.view(batch, seq_len, -1)[rows, block]).flatten(0, 1)
                sums[1].add_(sources, sign.mul_(by_pair @ target.read))
    return sums[0].total, sums[1].total


def key_sums(
    source: SourceComponents, target: Readers | None, heads: Heads, table: PairTable, workspace: Workspace
) -> tuple[Float[Tensor, "source d_in"], Float[Tensor, "source target"]]:
    """What keys add, at all later positions; arguments and result as for `query_sums`.

    The effect on a target, A[p, q] l[p, q] (V . v[q] - V . z[p]), is a product of small factors: it is never formed for
    single positions p. The signs are summed over p for each head, and what stands behind them over heads and p at once.
    """
    batch, n_heads, seq_len, width = heads.sizes
    n_targets = 0 if target is None else target.read.shape[1]
    sums = PairSums(source.pairs, n_heads * width), PairSums(source.pairs, n_targets)
    size = source.write.element_size()
    for rows in workspace.pieces(batch, 2 * n_heads * seq_len * max(n_targets, width) * size, 2 * workspace.n_threads):
        here = heads.part(rows)
        read = None if target is None else _KeyReaders.of(target, here, rows)
        for pairs in table.blocks:
            block, later = pairs.block, slice(pairs.block.start, seq_len)
            n_later = seq_len - block.start
            per_pair = size * (3 * n_heads * n_later + 10 * n_heads * width + 4 * n_targets)
            per_row = size * 2 * n_heads * (block.stop - block.start) * n_later
            for inner, part in pairs.part(rows).pieces(workspace, per_pair, per_row):
                few = here.part(inner)
                sources = part.source.flatten()
                key_tangents = few.jvp(part, heads.split(part.tangents(source.write)), few.key_norm)
                weighted_scores = key_tangents @ few.query[:, :, later].transpose(-1, -2)
                weighted_scores.mul_(part.gather(few.pattern_by_key(later, block)))
                tangents = part.gather(few.value[:, :, block]).mul_(weighted_scores.sum(-1, keepdim=True))
                tangents.sub_(weighted_scores @ few.out[:, :, later])
                sums[0].add_(sources, tangents.transpose(1, 2).flatten(2).flatten(0, 1))
                if read is not None:
                    sums[1].add_(sources, read.effects(part, inner, weighted_scores).flatten(0, 1))
    return sums[0].total, sums[1].total


@dataclass(frozen=True)
class _KeyReaders:
    """How components read what a key changes, in some sequences.

    Attributes:
        sign: Signs of their activations.
        of_value: What they read of the values, head by head.
        of_out: What they read of the heads' outputs, times the signs.
    """

    sign: Float[Tensor, "batch seq target"]
    of_value: Sequence[Float[Tensor, "batch seq target"]]
    of_out: Float[Tensor, "batch seq head target"]

    @classmethod
    def of(cls, target: Readers, heads: Heads, rows: slice) -> "_KeyReaders":
        batch, n_heads, seq_len, width = heads.sizes
        read = target.read.unflatten(0, (n_heads, width))
        sign = target.sign.unflatten(0, (-1, seq_len))[rows]
        of_out = sign.new_empty(batch, seq_len, n_heads, sign.shape[-1])
        for head in range(n_heads):
            torch.mul(heads.out[:, head] @ read[head], sign, out=of_out[:, :, head])
        return cls(sign, [heads.value[:, head] @ read[head] for head in range(n_heads)], of_out)

    def effects(
        self, pairs: PairBlock, rows: slice, weighted_scores: Float[Tensor, "batch head slot later"]
    ) -> Float[Tensor, "batch slot target"]:
        """Effects of pairs of some of the sequences on the activations times their signs."""
        later = slice(pairs.block.start, None)
        by_position = weighted_scores.permute(0, 2, 3, 1).flatten(2)
        effects = (by_position @ self.of_out[rows, later].flatten(1, 2)).neg_()
        sign, signs = self.sign[rows, later], torch.empty_like(effects)
        for head in range(weighted_scores.shape[1]):
            torch.bmm(weighted_scores[:, head], sign, out=signs)
            effects.addcmul_(signs, pairs.gather(self.of_value[head][rows], pairs.block.start))
        return effects
