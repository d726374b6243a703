"""The strongest edges of a result, found tile by tile in memory that does not grow with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_attr.query.tiles import LayerEdges, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.top_k import RunningTopK
from lit_attr.topology.address import OUTPUT
from lit_attr.topology.words import AttrMetric

# Sources of a tile, and numbers of a tile: 8 MB in float32, and some times that while it is worked on.
_N_SOURCES = 8192
_TILE = 1 << 21


@dataclass(frozen=True)
class EdgeColumns:
    """How sure edges are; not a number where that is not known.

    Attributes:
        raw: Standard errors of raw attributions.
        normalized: Standard errors of normalised ones.
        n_groups: The effective number of groups of batches in which each source occurred.
        few_groups: Whether these are too few for an interval.
    """

    raw: Float[np.ndarray, " edge"]
    normalized: Float[np.ndarray, " edge"]
    n_groups: Float[np.ndarray, " edge"]
    few_groups: Bool[np.ndarray, " edge"]


@dataclass(frozen=True)
class Edges:
    """Edges into one layer.

    Attributes:
        source_layers: Names of layers.
        source_places: Number of the source's layer among these.
        sources: Component indices or token ids.
        target_layer: Layer of all targets.
        targets: Component indices or token ids.
        raw: Raw attributions.
        normalized: Normalised attributions.
        stored_errors: Stored standard errors, where they come with lists of edges.
        estimates: How sure they are; None where that was not looked up, or the result has no standard errors.
    """

    source_layers: Sequence[str]
    source_places: Int[np.ndarray, " edge"]
    sources: Int[np.ndarray, " edge"]
    target_layer: str
    targets: Int[np.ndarray, " edge"]
    raw: Float[np.ndarray, " edge"]
    normalized: Float[np.ndarray, " edge"]
    stored_errors: Float[np.ndarray, " edge"] | None = None
    estimates: EdgeColumns | None = None


def strongest_of_pairs(blocks: Blocks, metric: AttrMetric, k: int) -> Iterator[Edges]:
    """The edges with the largest normalised magnitudes between every two layers, pair by pair, best first.

    Args:
        blocks: Blocks of the result.
        metric: `attr` or `attr_abs`.
        k: How many edges of a pair at most; edges that are zero are none.

    Raises:
        StorageError: If a value is not finite.
    """
    for target in fed_layers(blocks):
        for source in blocks.source_layers(target, metric):
            edges, top = LayerEdges.between(blocks, "sources", target, [source]), RunningTopK(1, k, "both")
            for rows in _rows(edges):
                for tile in tiles(blocks, edges, metric, rows, _N_SOURCES):
                    top.add(tile.normalized.reshape(1, -1), tile.raw.reshape(1, -1), tile.flat)
            n_sources = len(edges.neighbours)
            places = top.kept.positions[top.has_sign()]
            yield _edges(edges, places // n_sources, places % n_sources, top)


def strongest_of_targets(
    blocks: Blocks, metric: AttrMetric, k: int, layers: Sequence[str] | None = None
) -> Iterator[Edges]:
    """The edges with the largest normalised magnitudes into every component and output token, best first.

    Args:
        blocks: Blocks of the result.
        metric: `attr` or `attr_abs`.
        k: How many edges of a target at most; edges that are zero are none.
        layers: Layers of the targets; all, the output included, if None.

    Yields:
        The edges into some targets at a time.

    Raises:
        StorageError: If a value is not finite.
    """
    for target in fed_layers(blocks) if layers is None else layers:
        edges = LayerEdges.between(blocks, "sources", target, blocks.source_layers(target, metric))
        for rows in _rows(edges):
            top = RunningTopK(rows.stop - rows.start, k, "both")
            for tile in tiles(blocks, edges, metric, rows, _N_SOURCES, of_one_layer=True):
                top.add(tile.normalized, tile.raw, tile.neighbours)
            mask = top.has_sign()
            yield _edges(edges, rows.start + mask.nonzero()[:, 0], top.kept.positions[mask], top)


def fed_layers(blocks: Blocks) -> list[str]:
    """All layers that anything feeds, the output last."""
    return [*(layer for layer in blocks.content.ci_sum if blocks.source_layers(layer, "attr")), OUTPUT]


def _rows(edges: LayerEdges) -> Iterator[slice]:
    """Parts of the targets, so small that with the widest tile of sources they make one tile."""
    if width := min(max(edges.neighbours.sizes, default=0), _N_SOURCES):
        yield from parts(len(edges.keys), max(_TILE // width, 1))


def _edges(edges: LayerEdges, targets: Int[Tensor, " edge"], sources: Int[Tensor, " edge"], top: RunningTopK) -> Edges:
    """The edges that are kept: targets by their places, sources by their positions."""
    places, indices = edges.neighbours.locate(sources.numpy())
    mask, kept = top.has_sign(), top.kept
    raw, normalized = (values[mask].numpy() for values in (kept.raw, kept.values))
    return Edges(
        edges.neighbours.layers, places, indices, edges.layer, edges.keys.indices(targets).numpy(), raw, normalized
    )
