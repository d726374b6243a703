"""The walk over the edges of a result: tile by tile, in memory that does not grow with it.

Whatever looks at all edges walks here: the index, the sums and strongest edges of pairs of layers, tables of edges.
Only what is stored is met: edges from other sources are zero, those to other targets were not measured. Components and
token ids are named by their places.

Each says how large its tiles are. A tile has keys of one layer as rows, and as columns their neighbours, which may be
of several layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.storage.blocks import Blocks
from lit_attr.storage.top_k import check_finite
from lit_attr.topology.choice import Measure
from lit_attr.topology.live import LiveSet
from lit_attr.topology.positions import Positions
from lit_attr.topology.words import AttrMetric, Direction


@dataclass(frozen=True)
class LayerEdges:
    """All edges between the keys of one layer and their sources, or their targets, in some layers.

    Attributes:
        direction: Whether the neighbours are the keys' sources or their targets.
        layer: Layer of the keys.
        keys: Which components, or token ids, of that layer have a place.
        neighbours: Layers of the neighbours, laid end to end, with those of their components that have a place.
    """

    direction: Direction
    layer: str
    keys: LiveSet
    neighbours: Positions

    @classmethod
    def between(cls, blocks: Blocks, direction: Direction, layer: str, others: Sequence[str]) -> "LayerEdges":
        """The edges between the keys of a layer and neighbours in other layers."""
        of_keys, of_others = blocks.content.stored_sources, blocks.content.stored_targets
        if direction == "sources":
            of_keys, of_others = of_others, of_keys
        return cls(direction, layer, of_keys(layer), Positions.of((other, of_others(other)) for other in others))

    def pair(self, neighbour: str) -> tuple[str, str]:
        """Source and target layer of the edges between the keys and a layer of neighbours."""
        return (self.layer, neighbour) if self.direction == "targets" else (neighbour, self.layer)

    def sources_and_targets(self, keys: slice, neighbours: slice) -> tuple[slice, slice]:
        """The places of some keys and of some neighbours, sources first."""
        return (keys, neighbours) if self.direction == "targets" else (neighbours, keys)

    def turned(self, block: Float[Tensor, "_a _b"]) -> Float[Tensor, "_c _d"]:
        """A block with targets as rows, turned so that keys are its rows; or the other way round."""
        return block.T if self.direction == "targets" else block


@dataclass(frozen=True)
class Piece:
    """Columns of a tile that are of one layer.

    Attributes:
        layer: Layer of the neighbours.
        part: Places of its components, or token ids.
        columns: Where they are in the tile.
    """

    layer: str
    part: slice
    columns: slice


@dataclass(frozen=True)
class Tile:
    """The edges between some keys and some neighbours, all of them finite.

    Attributes:
        edges: What the tile is a part of.
        keys: Places of the keys.
        first: Position of the first neighbour; the others follow.
        pieces: The columns, layer by layer.
        raw: Raw attributions; may be the file's own bytes, which must not be written to.
        normalized: Normalised attributions.
    """

    edges: LayerEdges
    keys: slice
    first: int
    pieces: tuple[Piece, ...]
    raw: Float[Tensor, "key neighbour"]
    normalized: Float[Tensor, "key neighbour"]

    def neighbours(self, columns: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Positions of the neighbours in some columns."""
        return self.first + columns

    def flat(self, places: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Places among all edges, counted key by key, of some places of the tile, counted in the same way."""
        width = self.raw.shape[1]
        keys = self.keys.start + torch.div(places, width, rounding_mode="floor")
        return keys * len(self.edges.neighbours) + self.first + places % width


def parts(size: int, step: int) -> Iterator[slice]:
    """The parts of `size` places, each with `step` of them, the last one with fewer."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def tiles(
    blocks: Blocks, edges: LayerEdges, metric: AttrMetric, keys: slice, width: int, *, of_one_layer: bool = False
) -> Iterator[Tile]:
    """Walk over all neighbours of some keys.

    Args:
        blocks: Blocks of the result.
        edges: Which edges.
        metric: `attr` or `attr_abs`.
        keys: Places of some keys.
        width: Columns of a tile at most.
        of_one_layer: Whether the columns of a tile are of one layer; otherwise every tile but the last one is full.
            Long rows are ranked several times as fast as many short ones.

    Raises:
        StorageError: If a value is not finite.
    """
    first = 0
    for pieces in _groups(edges.neighbours, width, of_one_layer=of_one_layer):
        # Without a name here: who drops a tile before asking for the next one holds one at a time.
        yield _tile(blocks, edges, metric, keys, first, pieces)
        first += pieces[-1].columns.stop


def _groups(neighbours: Positions, width: int, *, of_one_layer: bool) -> Iterator[tuple[Piece, ...]]:
    """The columns of each tile."""
    group: list[Piece] = []
    end = 0
    for layer, size in neighbours:
        start = 0
        while start < size:
            stop = min(start + width - end, size)
            group.append(Piece(layer, slice(start, stop), slice(end, end + stop - start)))
            start, end = stop, group[-1].columns.stop
            if end == width or of_one_layer:
                yield tuple(group)
                group, end = [], 0
    if group:
        yield tuple(group)


def _tile(
    blocks: Blocks, edges: LayerEdges, metric: AttrMetric, keys: slice, first: int, pieces: tuple[Piece, ...]
) -> Tile:
    """A tile with exactly the numbers that questions about single keys are answered with."""
    raw_sums = Measure(metric, normalized=False)
    if edges.direction == "sources" and len(pieces) == 1:  # as they lie in the file: nothing needs to be copied
        pair, places = edges.pair(pieces[0].layer), edges.sources_and_targets(keys, pieces[0].part)
        raw = blocks.tile(*pair, raw_sums, *places)
        normalized = blocks.normalisation.apply(raw, *pair, *places)
    else:
        raw, normalized = torch.empty(2, keys.stop - keys.start, pieces[-1].columns.stop)
        for piece in pieces:
            pair, places = edges.pair(piece.layer), edges.sources_and_targets(keys, piece.part)
            raw_part, normalized_part = raw[:, piece.columns], normalized[:, piece.columns]
            raw_part.copy_(edges.turned(blocks.tile(*pair, raw_sums, *places)))
            blocks.normalisation.apply(edges.turned(raw_part), *pair, *places, out=edges.turned(normalized_part))
    check_finite(normalized, f"{edges.direction} of {edges.layer}")  # where a raw value is not finite, this is not
    return Tile(edges, keys, first, pieces, raw, normalized)
