import numpy as np
import pytest
import torch

from lit_attr.topology.address import ComponentKey
from lit_attr.topology.live import LiveSet
from lit_attr.topology.positions import Positions


@pytest.mark.parametrize("sizes", [(), (3,), (2, 0, 3), (0, 1), (4, 1, 2)])
@pytest.mark.parametrize("are_all", [True, False])
def test_every_position_is_one_component_in_order(sizes, are_all):
    sets = [LiveSet(size) if are_all else LiveSet(9, torch.arange(size) * 2 + 1) for size in sizes]
    layers = [(f"{n}.mlp.up", members) for n, members in enumerate(sets)]
    positions = Positions.of(layers)
    expected = [ComponentKey(layer, index) for layer, members in layers for index in members.all_indices.tolist()]
    assert len(positions) == len(expected)
    assert [*positions] == [(layer, len(members)) for layer, members in layers]
    assert positions.keys(np.arange(len(expected))) == expected
    for layer, start, members in zip(positions.layers, positions.starts, sets, strict=True):
        if len(members):
            assert positions.keys(np.array([start])) == [ComponentKey(layer, int(members.all_indices[0]))]


def test_positions_in_any_order():
    sets = LiveSet(5), LiveSet(9, torch.tensor([3, 8]))
    numbers, indices = Positions(("embed", "0.mlp.up"), sets).locate(np.array([6, 0, 4]))
    assert numbers.tolist() == [1, 0, 0]
    assert indices.tolist() == [8, 0, 4]
