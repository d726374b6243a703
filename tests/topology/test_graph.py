from lit_attr.topology.graph import Topology

TOPOLOGY = Topology(
    n_components={"0.mlp.up": 3, "0.mlp.down": 4},
    sources={"0.mlp.up": ("embed",), "output": ("embed", "0.mlp.down"), "0.mlp.down": ("0.mlp.up",)},
    vocab_size=11,
    d_model=8,
    inputs={"0.mlp.up": "0.mlp.up", "output": "output", "0.mlp.down": "0.mlp.down"},
    widths={"0.mlp.up": 8, "output": 8, "0.mlp.down": 32},
)


def test_component_targets_are_all_targets_but_the_output_in_their_order():
    assert TOPOLOGY.component_targets == ["0.mlp.up", "0.mlp.down"]


def test_readers_are_the_targets_of_each_input():
    assert TOPOLOGY.readers == {"0.mlp.up": ["0.mlp.up"], "output": ["output"], "0.mlp.down": ["0.mlp.down"]}


def test_restricted_to_some_edge_blocks():
    some = TOPOLOGY.restricted({"output": ("0.mlp.down",), "0.mlp.up": ("embed",)})
    assert some.sources == {"output": ("0.mlp.down",), "0.mlp.up": ("embed",)}
    assert some.inputs == {"output": "output", "0.mlp.up": "0.mlp.up"}
    assert some.widths == {"output": 8, "0.mlp.up": 8}
    assert some.n_components == TOPOLOGY.n_components
