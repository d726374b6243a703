"""How many sequences and targets are taken at once, so that temporaries stay within the workspace."""

import math
from dataclasses import dataclass

import torch

from lit_attr.attribution.closed_form.heads import SHORTEST_BLOCK
from lit_attr.attribution.closed_form.pair_blocks import position_blocks
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.errors import ConfigurationError

# Temporaries at the peak, in tensors of each shape.
_PER_TARGET, _PER_INPUT, _PER_STREAM, _PER_SOURCE, _PER_PATTERN = 6, 5, 12, 4, 3
# Bytes of each pair: as it is kept for all source layers, and while those of one layer are laid out and used.
_KEPT_PER_PAIR, _USED_PER_PAIR = 24, 96
_MB = 1 << 20


@dataclass(frozen=True)
class Widths:
    """The largest sizes of a model and a batch.

    Attributes:
        seq_len: Positions of a sequence.
        n_pairs: Non-zero weights of all source layers together in a sequence.
        n_layer_pairs: Non-zero weights of a single source layer in a sequence.
        source: Components of a source layer, or token ids.
        target: Targets that read one input.
        input: Width of an input: of the stream, a hidden layer, or the outputs of all heads.
        stream: Width of the residual stream, or of all heads together.
        heads: Heads of an attention.
        itemsize: Bytes of a number.
    """

    seq_len: int
    n_pairs: int
    n_layer_pairs: int
    source: int
    target: int
    input: int
    stream: int
    heads: int
    itemsize: int


def rows_and_targets(widths: Widths, workspace: Workspace) -> tuple[int, int]:
    """How many sequences, and at most how many targets of a layer, to take at once.

    Raises:
        ConfigurationError: If the workspace does not hold one sequence and one target.
    """
    needs = _Needs.of(widths)
    n_targets = min(
        widths.target,
        (workspace.for_positions - needs.row) // needs.target_row,
        (workspace.for_block - needs.block) // needs.target_block,
    )
    if n_targets < 1:
        raise ConfigurationError(
            f"sequences of {widths.seq_len} tokens need a workspace of at least "
            f"{math.ceil(least_workspace(widths) / _MB)} MB, found "
            f"{workspace.nbytes / _MB:.0f} MB: raise --model.workspace_mb (and --model.memory_gb, which contains it)"
        )
    return workspace.for_positions // (needs.row + needs.target_row * n_targets), n_targets


def least_workspace(widths: Widths) -> float:
    """Bytes of the smallest workspace that holds one sequence and one target."""
    needs, unit = _Needs.of(widths), Workspace(1 << 40, torch.device("cpu"))
    return unit.nbytes * max(
        (needs.row + needs.target_row) / unit.for_positions, (needs.block + needs.target_block) / unit.for_block
    )


@dataclass(frozen=True)
class _Needs:
    """Bytes of temporaries: of a sequence and of each target in it, of a block of sources and of each target in it."""

    row: int
    target_row: int
    block: int
    target_block: int

    @classmethod
    def of(cls, widths: Widths) -> "_Needs":
        item, seq_len, d_in = widths.itemsize, widths.seq_len, max(widths.input, widths.stream)
        fixed = (
            _PER_INPUT * widths.input
            + _PER_STREAM * widths.stream
            + _PER_SOURCE * widths.source
            + _PER_PATTERN * position_blocks(seq_len, SHORTEST_BLOCK)[0].stop
        )
        of_pairs = _KEPT_PER_PAIR * widths.n_pairs + _USED_PER_PAIR * widths.n_layer_pairs
        return cls(
            row=seq_len * item * fixed + of_pairs,
            target_row=seq_len * item * (_PER_TARGET + 2 * widths.heads),
            block=item * widths.source * d_in,
            target_block=item * (4 * widths.source + 2 * d_in),
        )
