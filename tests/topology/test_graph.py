from lit_attr.topology.graph import Topology

TOPOLOGY = Topology(
    n_components={"0.mlp.up": 3, "0.mlp.down": 4},
    sources={"0.mlp.up": ("embed",), "output": ("embed", "0.mlp.down"), "0.mlp.down": ("0.mlp.up",)},
    vocab_size=11,
    d_model=8,
)


def test_component_targets_are_all_targets_but_the_output_in_their_order():
    assert TOPOLOGY.component_targets == ["0.mlp.up", "0.mlp.down"]


def test_component_sources_leave_the_embedding_out():
    assert [TOPOLOGY.component_sources(t) for t in TOPOLOGY.sources] == [[], ["0.mlp.down"], ["0.mlp.up"]]


def test_targets_fed_by_the_embedding_are_those_that_list_it():
    fed = [t for t in ("0.mlp.up", "0.mlp.down", "output", "no.such.layer") if TOPOLOGY.fed_by_embedding(t)]
    assert fed == ["0.mlp.up", "output"]
