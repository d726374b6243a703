"""Walking through all edges of a stored harvest, tile by tile, in memory that does not grow with it."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.storage.blocks import Blocks
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

# Sources of a tile, and numbers of a tile: 8 MB in float32, and some times that while it is worked on.
_N_SOURCES = 8192
_TILE = 1 << 21


def target_layers(blocks: Blocks) -> list[str]:
    """All layers that anything feeds, the output last."""
    return [*(layer for layer in blocks.content.ci_sum if blocks.source_layers(layer, "attr")), OUTPUT]


def rows_of_tiles(blocks: Blocks, sources: Sequence[str], target: str) -> Iterator[slice]:
    """Parts of a target layer, so small that with the widest tile of some source layers they make one tile."""
    width = min(max((blocks.size(layer) for layer in sources), default=0), _N_SOURCES)
    if width:
        yield from _slices(blocks.size(target), max(_TILE // width, 1))


def tiles(
    blocks: Blocks, source: str, target: str, metric: AttrMetric, rows: slice
) -> Iterator[tuple[Int[Tensor, " _source"], Float[Tensor, "_target _source"], Float[Tensor, "_target _source"]]]:
    """Source indices, raw and normalised attributions to some components of a target layer, tile by tile.

    Args:
        blocks: Of the stored harvest.
        source: Layer that feeds the target.
        target: Layer.
        metric: `attr` or `attr_abs`.
        rows: Which components, or token ids, of the target layer.
    """
    raw_sums = Measure(metric, normalized=False)
    for columns in _slices(blocks.size(source), _N_SOURCES):
        raw = blocks.tile(source, target, raw_sums, columns, rows)
        yield torch.arange(columns.start, columns.stop), raw, blocks.normalized(raw, source, target, columns, rows)


def _slices(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))
