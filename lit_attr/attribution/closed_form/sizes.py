"""How many sequences and targets are taken at once, so that temporaries stay within the workspace."""

import math
from dataclasses import dataclass

from lit_attr.attribution.closed_form.heads import SHORTEST_BLOCK
from lit_attr.attribution.closed_form.pair_blocks import position_blocks
from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.errors import ConfigurationError

# Temporaries at the peak, in tensors of each shape.
_PER_TARGET, _PER_INPUT, _PER_STREAM, _PER_SOURCE, _PER_PATTERN = 6, 5, 12, 4, 3
_BYTES_PER_PAIR = 96
_MB = 1 << 20


@dataclass(frozen=True)
class Widths:
    """The largest sizes of a model and a batch.

    Attributes:
        seq_len: Positions of a sequence.
        n_pairs: Non-zero weights of all source layers together in a sequence.
        source: Components of a source layer, or token ids.
        target: Targets that read one input.
        input: Width of an input: of the stream, a hidden layer, or the outputs of all heads.
        stream: Width of the residual stream, or of all heads together.
        heads: Heads of an attention.
        itemsize: Bytes of a number.
    """

    seq_len: int
    n_pairs: int
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
    item, seq_len = widths.itemsize, widths.seq_len
    fixed = (
        _PER_INPUT * widths.input
        + _PER_STREAM * widths.stream
        + _PER_SOURCE * widths.source
        + _PER_PATTERN * position_blocks(seq_len, SHORTEST_BLOCK)[0].stop
    )
    fixed_row = seq_len * item * fixed + _BYTES_PER_PAIR * widths.n_pairs
    target_row = seq_len * item * (_PER_TARGET + 2 * widths.heads)
    d_in = max(widths.input, widths.stream)
    fixed_block = item * widths.source * d_in
    target_block = item * (4 * widths.source + 2 * d_in)
    n_targets = min(
        widths.target,
        (workspace.for_positions - fixed_row) // target_row,
        (workspace.for_block - fixed_block) // target_block,
    )
    if n_targets < 1:
        share = workspace.for_positions / workspace.nbytes, workspace.for_block / workspace.nbytes
        needed = max((fixed_row + target_row) / share[0], (fixed_block + target_block) / share[1])
        raise ConfigurationError(
            f"sequences of {seq_len} tokens need a workspace of at least {math.ceil(needed / _MB)} MB, found "
            f"{workspace.nbytes / _MB:.0f} MB: raise --model.workspace_mb (and --model.memory_gb, which contains it)"
        )
    return workspace.for_positions // (fixed_row + target_row * n_targets), n_targets
