"""Edges inside an attention: from its values, queries and keys to what reads the heads' outputs.

With A the pattern of a head, v its values and z = A v its output, a target reads `y[p] = sum_heads V . z[p]`. Moving

- the values at q by u moves z[p] by A[p, q] u;
- the query at p by u moves the scores l[p, q] by u . k[q], and z[p] by sum_q A[p, q] l[p, q] (v[q] - z[p]);
- the key at q by u moves the scores l[p, q] of all p >= q by u . query[p], and z[p] by A[p, q] l[p, q] (v[q] - z[p]).

`query` stands for the rotated query times 1 / sqrt(width), and movements of queries and keys are rotated likewise.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.closed_form.blocks import PushedSums, Source, Target
from lit_attr.attribution.closed_form.heads import Heads, PairTable
from lit_attr.attribution.closed_form.workspace import Workspace


def add_values_(source: Source, target: Target, heads: Heads) -> None:
    """Add an edge block from values: the pattern mixes signs of targets, or ones, over positions."""
    batch, seq_len = heads.query.shape[1:3]
    received = target.read.new_zeros(batch * seq_len, len(heads.query))
    signed = target.read.new_zeros(source.pairs.n_sources, target.read.shape[1])
    for head in range(len(heads.query)):
        mixed = target.read.new_empty(batch, seq_len, target.read.shape[1])
        for block in heads.blocks:
            later = slice(block.start, seq_len)
            pattern = heads.pattern(head, later, block)
            received.view(batch, seq_len, -1)[:, block, head] = pattern.sum(-1)
            if target.sign is not None:
                torch.bmm(pattern, target.sign.view(batch, seq_len, -1)[:, later], out=mixed[:, block])
        if target.sign is not None:
            direct = source.write[:, heads.columns(heads.kv(head))] @ target.read[heads.columns(head)]
            signed.addcmul_(direct, source.weights.total(mixed.flatten(0, 1)))
    if target.attr_abs is not None:
        target.attr_abs.add_(signed)
    write = source.write.unflatten(1, (len(heads.value), -1)).repeat_interleave(heads.attention.n_groups, dim=1)
    movement = write * source.weights.total(received)[:, :, None]
    target.attr.add_(movement.flatten(1) @ target.read)


def add_queries_(source: Source, target: Target, heads: Heads, table: PairTable, workspace: Workspace) -> None:
    """Add an edge block from queries, which act at their own position: pair by pair, as in an MLP."""
    sums = PushedSums(target, source.pairs.n_sources)
    n_heads, batch, seq_len, width = heads.query.shape
    scale = width**-0.5
    for block, slots in zip(heads.blocks, table.slots, strict=True):
        past = slice(0, block.stop)
        per_slot = batch * (2 * block.stop + 2 * n_heads * width + 2 * target.read.shape[1])
        for piece in workspace.pieces(slots.shape[1], per_slot * target.read.element_size()):
            chosen = table.chosen(slots[:, piece], block)
            moved = target.read.new_empty(batch, chosen.weight.shape[1], n_heads * width)
            for head in range(n_heads):
                columns, kv_head = heads.columns(head), heads.kv(head)
                direction = chosen.of_sources(source.write[:, columns]).mul_(scale)
                scores = heads.rotated(direction, chosen.position) @ heads.key[kv_head][:, past].transpose(1, 2)
                scores.mul_(chosen.of_block(heads.pattern(head, block, past).transpose(1, 2)))
                out = chosen.of_block(heads.out[head][:, block])
                change = scores @ heads.value[kv_head][:, past]
                moved[:, :, columns] = change.sub_(out.mul_(scores.sum(-1, keepdim=True)))
            moved.mul_(chosen.weight[..., None])
            sums.push_(chosen.source.flatten(), chosen.flat_position.flatten(), moved.flatten(0, 1))
    sums.close()


def add_keys_(source: Source, target: Target, heads: Heads, table: PairTable, workspace: Workspace) -> None:
    """Add an edge block from keys, which act at all later positions.

    The effect on a target, A[p, q] l[p, q] (V . v[q] - V . z[p]), is a product of small factors: it is never formed for
    single positions p.
    """
    sums = PushedSums(target, source.pairs.n_sources)
    n_heads, batch, seq_len, _ = heads.query.shape
    for head in range(n_heads):
        columns, kv_head = heads.columns(head), heads.kv(head)
        read = target.read[columns]
        of_value = heads.value[kv_head] @ read
        of_out = heads.out[head] @ read
        sign = None if target.sign is None else target.sign.view_as(of_out)
        if sign is not None:
            of_out.mul_(sign)
        for block, slots in zip(heads.blocks, table.slots, strict=True):
            later = slice(block.start, seq_len)
            pattern = heads.pattern(head, later, block)
            per_slot = batch * (2 * (seq_len - block.start) + 3 * target.read.shape[1])
            for piece in workspace.pieces(slots.shape[1], per_slot * target.read.element_size()):
                chosen = table.chosen(slots[:, piece], block)
                direction = chosen.of_sources(source.write[:, heads.columns(kv_head)])
                direction = heads.rotated(direction, chosen.position).mul_(chosen.weight[..., None])
                moved = direction @ heads.query[head][:, later].transpose(1, 2)
                moved.mul_(chosen.of_block(pattern))
                sources = chosen.source.flatten()
                change = chosen.of_block(heads.value[kv_head][:, block]).mul_(moved.sum(-1, keepdim=True))
                change.baddbmm_(moved, heads.out[head][:, later], alpha=-1)
                sums.move_(sources, change.flatten(0, 1), columns)
                if sign is not None:
                    effect = (moved @ sign[:, later]).mul_(chosen.of_block(of_value[:, block]))
                    effect.baddbmm_(moved, of_out[:, later], alpha=-1)
                    sums.sign_(sources, effect.flatten(0, 1))
    sums.close()
