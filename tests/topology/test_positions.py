import numpy as np
import pytest

from lit_attr.topology.address import ComponentKey
from lit_attr.topology.positions import Positions


@pytest.mark.parametrize("sizes", [(), (3,), (2, 0, 3), (0, 1), (4, 1, 2)])
def test_every_position_is_one_component_in_order(sizes):
    layers = [(f"{n}.mlp.up", size) for n, size in enumerate(sizes)]
    positions = Positions.of(layers)
    expected = [ComponentKey(layer, index) for layer, size in layers for index in range(size)]
    assert len(positions) == len(expected)
    assert [*positions] == layers
    assert positions.keys(np.arange(len(expected))) == expected
    for layer, start in zip(positions.layers, positions.starts, strict=True):
        if (layer, 0) in [(key.layer, key.index) for key in expected]:
            assert positions.keys(np.array([start])) == [ComponentKey(layer, 0)]


def test_positions_in_any_order():
    places, indices = Positions(("embed", "0.mlp.up"), (5, 2)).locate(np.array([6, 0, 4]))
    assert places.tolist() == [1, 0, 0]
    assert indices.tolist() == [1, 0, 4]
