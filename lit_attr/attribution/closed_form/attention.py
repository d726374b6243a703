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

import torch

from lit_attr.attribution.closed_form.heads import Heads
from lit_attr.attribution.closed_form.operands import PairSums, SourceComponents, TargetComponents
from lit_attr.attribution.closed_form.pair_blocks import PairBlock
from lit_attr.attribution.closed_form.workspace import Workspace


def add_values_(source: SourceComponents, target: TargetComponents, heads: Heads) -> None:
    """Add an edge block from values: the pattern mixes the signs of targets, or ones, over positions."""
    batch, n_heads, seq_len, width = heads.sizes
    n_targets = target.read.shape[1]
    write = heads.split(source.write[None])[0]  # head source width
    read = target.read.unflatten(0, (n_heads, width))
    tangents, signed = torch.empty_like(write), target.read.new_zeros(source.pairs.n_sources, n_targets)
    for head in range(n_heads):
        one = heads.part(heads=slice(head, head + 1))
        received = target.read.new_empty(batch, seq_len)
        mixed = target.read.new_empty(batch, seq_len, n_targets if target.sign is not None else 0)
        for block in heads.blocks:
            later = slice(block.start, seq_len)
            pattern = one.pattern_by_key(later, block)[:, 0]
            received[:, block] = pattern.sum(-1)
            if target.sign is not None:
                mixed[:, block] = pattern @ target.sign.view(batch, seq_len, -1)[:, later]
        torch.mul(write[head], source.weights.total(received.view(-1, 1)), out=tangents[head])
        if target.sign is not None:
            signed.addcmul_(write[head] @ read[head], source.weights.total(mixed.flatten(0, 1)))
    target.attr.add_(tangents.transpose(0, 1).flatten(1) @ target.read)
    if target.attr_abs is not None:
        target.attr_abs.add_(signed)


def add_queries_(
    source: SourceComponents, target: TargetComponents, heads: Heads, blocks: Sequence[PairBlock], workspace: Workspace
) -> None:
    """Add an edge block from queries, which act at their own position: pair by pair, as in an MLP."""
    sums = PairSums(target, source.pairs)
    batch, n_heads, seq_len, width = heads.sizes
    sign = None if target.sign is None else target.sign.view(batch, seq_len, -1)
    size = target.read.element_size()
    for pairs in blocks:
        block, past = pairs.block, slice(0, pairs.block.stop)
        per_pair = size * (2 * n_heads * (block.stop + 5 * width) + 2 * target.read.shape[1])
        per_row = size * 2 * n_heads * (block.stop - block.start) * block.stop
        for rows, part in pairs.pieces(workspace, per_pair, per_row):
            here = heads.part(rows)
            query_tangents = here.jvp(part, heads.split(part.tangents(source.write)), here.query_norm)
            weighted_scores = query_tangents.mul_(heads.attention.scale) @ here.key[:, :, past].transpose(-1, -2)
            weighted_scores.mul_(part.gather(here.pattern(block, past)))
            tangents = weighted_scores @ here.value[:, :, past]
            tangents.addcmul_(part.gather(here.out[:, :, block]), weighted_scores.sum(-1, keepdim=True), value=-1)
            sums.add_local_(
                part.source.flatten(),
                tangents.transpose(1, 2).flatten(2).flatten(0, 1),
                None if sign is None else part.gather(sign[rows, block]).flatten(0, 1),
            )
    sums.write_out()


def add_keys_(
    source: SourceComponents, target: TargetComponents, heads: Heads, blocks: Sequence[PairBlock], workspace: Workspace
) -> None:
    """Add an edge block from keys, which act at all later positions.

    The effect on a target, A[p, q] l[p, q] (V . v[q] - V . z[p]), is a product of small factors: it is never formed for
    single positions p.
    """
    sums = PairSums(target, source.pairs)
    batch, n_heads, seq_len, width = heads.sizes
    n_targets, size = target.read.shape[1], target.read.element_size()
    read = target.read.unflatten(0, (n_heads, width))
    for rows in workspace.pieces(batch, n_heads * seq_len * n_targets * size):
        here = heads.part(rows)
        sign = of_out = None
        if target.sign is not None:
            sign = target.sign.view(batch, seq_len, -1)[rows]
            of_out = (here.out @ read).mul_(sign[:, None])
        for pairs in blocks:
            block, later = pairs.block, slice(pairs.block.start, seq_len)
            per_pair = size * (2 * n_heads * (seq_len - block.start + 5 * width) + 3 * n_targets)
            per_row = size * 2 * n_heads * (block.stop - block.start) * (seq_len - block.start)
            for inner, part in pairs.part(rows).pieces(workspace, per_pair, per_row):
                few = here.part(inner)
                sources = part.source.flatten()
                key_tangents = few.jvp(part, heads.split(part.tangents(source.write)), few.key_norm)
                weighted_scores = key_tangents @ few.query[:, :, later].transpose(-1, -2)
                weighted_scores.mul_(part.gather(few.pattern_by_key(later, block)))
                tangents = part.gather(few.value[:, :, block]).mul_(weighted_scores.sum(-1, keepdim=True))
                tangents.sub_(weighted_scores @ few.out[:, :, later])
                sums.add_tangents_(sources, tangents.transpose(1, 2).flatten(2).flatten(0, 1))
                if sign is not None and of_out is not None:
                    effect = weighted_scores.new_zeros(*part.source.shape, n_targets)
                    for head in range(n_heads):
                        of_value = few.value[:, head, block] @ read[head]
                        effect.addcmul_(weighted_scores[:, head] @ sign[inner, later], part.gather(of_value))
                        effect.baddbmm_(weighted_scores[:, head], of_out[inner, head, later], alpha=-1)
                    sums.add_signed_effects_(sources, effect.flatten(0, 1))
    sums.write_out()
