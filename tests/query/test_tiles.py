"""The walk: every edge is met once, with the numbers of questions about single edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.errors import StorageError
from lit_attr.query.tiles import LayerEdges, parts, tiles
from lit_attr.storage.blocks import Blocks
from lit_attr.topology.choice import Measure
from tests.query.examples import storages
from tests.storage.examples import random_storage


def walks(blocks, metric):
    """All edges, from both sides: those of each layer's keys to all their neighbours."""
    for layer in ["embed", *blocks.content.ci_sum, "output"]:
        for direction, others in (("sources", blocks.source_layers), ("targets", blocks.target_layers)):
            if neighbours := others(layer, metric):
                yield LayerEdges.between(blocks, direction, layer, neighbours)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(storages(), st.sampled_from(("attr", "attr_abs")), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_every_edge_is_met_once(storage, metric, n_keys, width, of_one_layer):
    blocks = Blocks(storage)
    for edges in walks(blocks, metric):
        n_neighbours = len(edges.neighbours)
        met, flat = [], []
        for keys in parts(len(edges.keys), n_keys):
            for tile in tiles(blocks, edges, metric, keys, width, of_one_layer=of_one_layer):
                rows, columns = tile.raw.shape
                assert tile.normalized.shape == (rows, columns) == (keys.stop - keys.start, columns)
                assert columns <= width
                full = tile.first + columns == n_neighbours or columns == width
                assert len(tile.pieces) == 1 if of_one_layer else full
                positions = tile.neighbours(torch.arange(columns))
                neighbours = edges.neighbours.keys(positions.numpy())
                assert [(n.layer, n.index) for n in neighbours] == [
                    (piece.layer, index) for piece in tile.pieces for index in range(piece.part.start, piece.part.stop)
                ]
                met += [(key, int(position)) for key in range(keys.start, keys.stop) for position in positions]
                flat += tile.flat(torch.arange(rows * columns)).tolist()
                for piece in tile.pieces:
                    source, target = edges.pair(piece.layer)
                    places = edges.sources_and_targets(keys, piece.part)
                    for normalized, values in ((False, tile.raw), (True, tile.normalized)):
                        block = blocks.tile(source, target, Measure(metric, normalized))[places[1], places[0]]
                        block = block if edges.direction == "sources" else block.T
                        assert torch.equal(values[:, piece.columns], block)
        assert sorted(met) == [(k, n) for k in range(len(edges.keys)) for n in range(n_neighbours)]
        assert flat == [key * n_neighbours + position for key, position in met]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_named(value):
    storage = random_storage()
    storage.regular_attr["0.mlp.up"]["0.attn.q"][1, 0] = value
    blocks = Blocks(storage)
    for direction, layer, others in (("sources", "0.mlp.up", ["0.attn.q"]), ("targets", "0.attn.q", ["0.mlp.up"])):
        edges = LayerEdges.between(blocks, direction, layer, others)
        with pytest.raises(StorageError, match=f"{direction} of {layer}: the stored sums are not finite"):
            list(tiles(blocks, edges, "attr", slice(0, len(edges.keys)), 8))
