import random

import numpy as np
import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.plots.layered import lay_out
from lit_attr.plots.sideways import apart
from lit_attr.topology.address import ComponentKey


def random_graph(n, seed=0):
    generator = random.Random(seed)
    layers = ["embed", "0.attn.q", "0.attn.o", "1.mlp.up", "output"]
    edges = {}
    for _ in range(n):
        low, high = sorted(generator.sample(range(len(layers)), 2))
        pair = ComponentKey(layers[low], generator.randrange(12)), ComponentKey(layers[high], generator.randrange(12))
        edges[pair] = generator.gauss(0, 1)
    return [(*pair, value) for pair, value in edges.items()]


@pytest.mark.parametrize("n", [1, 5, 40, 200])
@pytest.mark.parametrize("label", ["{}", '" token {}"'])
def test_labels_do_not_overlap_and_stay_on_the_page(n, label):
    edges = random_graph(n)
    nodes = {node for source, target, _ in edges for node in (source, target)}
    labels = {node: label.format(node.index) for node in nodes}
    layout = lay_out(edges, labels, 1.0, 6.9)
    assert layout.nodes.keys() == nodes
    rows = list(layout.rows.values())
    assert rows == sorted(rows)
    boxes = []
    for node, place in layout.nodes.items():
        long, short = len(labels[node]) * 0.054 / 2, 0.07
        wide, high = (short, long) if place.upright else (long, short)
        assert place.x - wide >= 1.0
        assert place.x + wide <= 6.9
        assert place.y - high >= 0
        assert place.y + high <= layout.height
        boxes.append((place.x - wide, place.x + wide, place.y - high, place.y + high))
    for one in boxes:
        for other in boxes:
            apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
            assert apart or one is other


def test_neighbours_are_above_each_other():
    edges = [(ComponentKey("embed", n), ComponentKey("output", 9 - n), 1.0) for n in range(10)]
    layout = lay_out(edges, {node: "x" for edge in edges for node in edge[:2]}, 1.0, 6.9)
    for source, target, _ in edges:
        assert layout.nodes[source].x == pytest.approx(layout.nodes[target].x, abs=0.1)


def test_too_many_nodes_for_a_row():
    edges = [(ComponentKey("embed", n), ComponentKey("output", 0), 1.0) for n in range(50)]
    labels = {node: '" token"' for edge in edges for node in edge[:2]}
    with pytest.raises(ConfigurationError, match=r"50 nodes of embed do not fit: expected at most \d+ in a layer"):
        lay_out(edges, labels, 1.0, 6.9)


def test_edges_pass_between_labels():
    edges = random_graph(40)
    layout = lay_out(edges, {node: str(node.index) for edge in edges for node in edge[:2]}, 1.0, 6.9)
    middles = {y: layer for layer, y in layout.rows.items()}
    layers = list(layout.rows)
    for (source, target, _), lanes in zip(edges, layout.lanes, strict=True):
        passed = layers[layers.index(source.layer) + 1 : layers.index(target.layer)]
        assert [middles[y] for _, y in lanes] == passed
        for x, y in lanes:
            near = [abs(place.x - x) for place in layout.nodes.values() if place.y == y]
            assert min(near) > 0.06


def test_a_deep_graph_stays_on_its_page():
    chain = [ComponentKey(f"{block}.mlp.up", 0) for block in range(30)]
    edges = [(source, target, 1.0) for n, source in enumerate(chain) for target in chain[n + 1 :][:2]]
    assert lay_out(edges, dict.fromkeys(chain, "0"), 1.0, 6.9).height <= 9.0


def test_apart_is_the_nearest():
    wanted = np.array([0.0, 0.1, 3.0, 3.1, 3.2, 8.0])
    found = apart(wanted, np.ones(6), -10.0, 10.0)
    assert np.diff(found).min() >= 1 - 1e-9
    assert found == pytest.approx([-0.45, 0.55, 2.1, 3.1, 4.1, 8.0])
    assert apart(np.zeros(2), np.array([1.0, 3.0]), -10.0, 10.0) == pytest.approx([-1.0, 1.0])
    assert apart(np.zeros(2), np.array([1.0, 3.0]), 2.0, 10.0) == pytest.approx([2.5, 4.5])
