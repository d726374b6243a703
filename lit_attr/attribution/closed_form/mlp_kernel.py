"""Sums of `attr_abs` through an MLP in one Triton kernel: gather, product on tensor cores, sign, sum by source.

A program takes a block of pairs, which are sorted by source, and a block of targets. Each source belongs to the program
in whose block its pairs begin, and no other writes to its row; what a later block has of the same source goes to a row
of that block's own, and is added afterwards in the order of the blocks. So sums are deterministic, and no source takes
longer than another, however uneven their numbers of pairs are.

Tensor cores take TF32. `tf32x3` splits each factor into two such numbers, leaves out the product of the small parts
only, and adds each step along the hidden layer to the sum in float32: as exact as a product in float32.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lit_attr.attribution.closed_form.workspace import Workspace

# The size of a product on tensor cores, by what the compiler makes of it for an H100: no register is spilled in the
# loop, and two programs share a multiprocessor. `BLOCK_GROUP` blocks of pairs pass a block of read vectors together.
BLOCKS = {"BLOCK_PAIR": 64, "BLOCK_TARGET": 128, "BLOCK_HIDDEN": 32, "BLOCK_GROUP": 8}
# Fusing a multiplication with the addition behind it only makes rounding errors smaller.
LAUNCH = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}


def signed_sums(
    position: Int[Tensor, " pair"],
    source: Int[Tensor, " pair"],
    weight: Float[Tensor, " pair"],
    slope: Float[Tensor, "position hidden"],
    write: Float[Tensor, "source hidden"],
    read: Float[Tensor, "hidden target"],
    sign: Float[Tensor, "position target"],
    workspace: Workspace,
) -> Float[Tensor, "source target"]:
    """Sum `weight * sign[position] * ((slope[position] * write[source]) @ read)` over the pairs of each source.

    Args:
        position: Position of each pair.
        source: Source of each pair, ascending.
        weight: Weight of each pair, float32 as all that follow.
        slope: Derivative of the hidden layer.
        write: Write vectors.
        read: Read vectors.
        sign: Signs of the targets' activations.
        workspace: Memory for temporaries.
    """
    slope, write, sign, by_target = slope.contiguous(), write.contiguous(), sign.contiguous(), read.T.contiguous()
    n_hidden, n_targets = read.shape
    sums = write.new_zeros(len(write), n_targets)
    bounds = torch.arange(len(write) + 1, device=source.device)
    size = BLOCKS["BLOCK_PAIR"]
    # Pieces of whole blocks, whose beginnings in memory are aligned alike: the kernel is compiled once.
    for piece in workspace.pieces(-(-len(source) // size), n_targets * (4 + 8)):
        pairs = slice(piece.start * size, piece.stop * size)
        sources = source[pairs]
        first = sources[::size].contiguous()
        continued = sums.new_empty(len(first), n_targets)
        grid = (len(first) * triton.cdiv(n_targets, BLOCKS["BLOCK_TARGET"]),)
        add_blocks_[grid](
            position[pairs], sources, weight[pairs], slope, write, by_target, sign, sums, continued,
            len(sources), n_hidden, n_targets, **BLOCKS, **LAUNCH,
        )  # fmt: skip
        # Block by block: where there are many for a source, float32 would round too much.
        rows, offsets = torch.arange(len(first), device=first.device), torch.searchsorted(first, bounds)
        sums += F.embedding_bag(rows, continued.double(), offsets, mode="sum", include_last_offset=True)
    return sums


# The numbers of pairs and targets change from batch to batch and layer to layer: no variants for multiples of 16.
@triton.jit(do_not_specialize=["n_pairs", "n_targets"])
@no_type_check
def add_blocks_(
    position: tl.tensor,
    source: tl.tensor,
    weight: tl.tensor,
    slope: tl.tensor,
    write: tl.tensor,
    read: tl.tensor,
    sign: tl.tensor,
    sums: tl.tensor,
    continued: tl.tensor,
    n_pairs: tl.tensor,
    n_hidden: tl.tensor,
    n_targets: tl.tensor,
    BLOCK_PAIR: tl.constexpr,
    BLOCK_TARGET: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_GROUP: tl.constexpr,
) -> None:
    """Add one block of pairs and targets to the sums.

    Args:
        position: Position of each pair.
        source: Source of each pair, ascending.
        weight: Weight of each pair.
        slope: Derivative of the hidden layer, position x hidden.
        write: Write vectors, source x hidden.
        read: Read vectors, target x hidden.
        sign: Signs of the targets' activations, position x target.
        sums: Sums, source x target, to which sources are added whose pairs begin in the block.
        continued: Sums of the source that began before the block, block x target, which are written.
        n_pairs: Number of pairs.
        n_hidden: Width of the hidden layer.
        n_targets: Number of targets.
        BLOCK_PAIR: Pairs of a block.
        BLOCK_TARGET: Targets of a block.
        BLOCK_HIDDEN: Entries of the hidden layer that are multiplied at once.
        BLOCK_GROUP: Blocks of pairs that run beside each other.
    """
    n_columns = tl.cdiv(n_targets, BLOCK_TARGET)
    program = tl.program_id(0)
    block, column = tl.swizzle2d(
        program // n_columns, program % n_columns, tl.cdiv(n_pairs, BLOCK_PAIR), n_columns, BLOCK_GROUP
    )
    pair = block * BLOCK_PAIR + tl.arange(0, BLOCK_PAIR)
    pair_inside = pair < n_pairs
    at = tl.load(position + pair, mask=pair_inside, other=0)
    owner = tl.load(source + pair, mask=pair_inside, other=0)
    target = (column * BLOCK_TARGET + tl.arange(0, BLOCK_TARGET)).to(tl.int64)
    target_inside = target < n_targets

    effect = tl.zeros((BLOCK_PAIR, BLOCK_TARGET), tl.float32)
    for first in range(0, n_hidden, BLOCK_HIDDEN):
        hidden = first + tl.arange(0, BLOCK_HIDDEN)
        hidden_inside = hidden < n_hidden
        inside = pair_inside[:, None] & hidden_inside[None, :]
        tangent = tl.load(slope + at[:, None] * n_hidden + hidden[None, :], mask=inside, other=0.0)
        tangent *= tl.load(write + owner[:, None] * n_hidden + hidden[None, :], mask=inside, other=0.0)
        inside = hidden_inside[:, None] & target_inside[None, :]
        vectors = tl.load(read + target[None, :] * n_hidden + hidden[:, None], mask=inside, other=0.0)
        effect = tl.dot(tangent, vectors, effect, input_precision="tf32x3")
    inside = pair_inside[:, None] & target_inside[None, :]
    effect *= tl.load(sign + at[:, None] * n_targets + target[None, :], mask=inside, other=0.0)
    effect *= tl.load(weight + pair, mask=pair_inside, other=0.0)[:, None]

    # The sources of the block, counted from the first that begins in it; -1 is the one that began before.
    before = tl.load(source + pair - 1, mask=pair_inside & (pair > 0), other=-1)
    which = tl.cumsum((owner != before).to(tl.int32), 0) - 1
    total = tl.sum(tl.where((which < 0)[:, None], effect, 0.0), 0)
    tl.store(continued + block.to(tl.int64) * n_targets + target, total, mask=target_inside)
    belongs = (tl.arange(0, BLOCK_PAIR)[:, None] == which[None, :]) & pair_inside[None, :]
    row = tl.max(tl.where(belongs, owner[None, :], -1), 1)
    totals = tl.dot(belongs.to(tl.float32), effect, input_precision="tf32x3")
    rows = sums + row[:, None] * n_targets + target[None, :]
    inside = (row >= 0)[:, None] & target_inside[None, :]
    tl.store(rows, tl.load(rows, mask=inside, other=0.0) + totals, mask=inside)
