from lit_attr.plots.labels import full_label, short_label
from lit_attr.query.answers import Node


def node(layer, index, token=None):
    return Node(f"{layer}:{index}", layer, index, token)


def test_tokens_and_indices():
    assert full_label(node("0.mlp.up", 3)) == "0.mlp.up:3"
    assert full_label(node("embed", 3, " girl")) == 'embed:" girl"'


def test_what_cannot_be_drawn_is_spelled_out():
    found = [short_label(node("embed", n, text)) for n, text in enumerate(("\n", "é→", "你", "x" * 40))]
    assert found == ['"\\n"', '"é→"', '"\\u4f60"', f'"{"x" * 17}…"']
