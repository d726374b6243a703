import random

import pytest
import torch

from lit_attr.errors import ConfigurationError
from lit_attr.topology.address import EMBED
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.shards import deal

KINDS = ("attn.q", "attn.o", "mlp.up")


def topology_of(n_layers, chance):
    """Each layer reads an input of its own or that of the one before, and all layers before that input."""
    layers = [f"{block}.{kind}" for block in range(n_layers) for kind in KINDS]
    counts = {layer: chance.randint(1, 60) for layer in layers}
    sources, inputs, widths = {}, {}, {}
    for place, layer in enumerate(layers):
        shares = place > 0 and chance.random() < 0.4
        inputs[layer] = inputs[layers[place - 1]] if shares else layer
        sources[layer] = sources[layers[place - 1]] if shares else (EMBED, *layers[:place])
        widths.setdefault(inputs[layer], 8)
    sources["output"], inputs["output"], widths["output"] = (EMBED, *layers), "output", 8
    return Topology(counts, sources, 50, 8, inputs, widths)


def load_of(layout):
    topology = layout.topology
    rows = {**topology.n_components, EMBED: topology.vocab_size}
    attr = sum(
        rows[source] * topology.widths[name]
        for name in layout.inputs
        for source in topology.sources[topology.readers[name][0]]
    )
    return attr, sum(rows[source] * len(ids) for t, ids in layout.targets.items() for source in topology.sources[t])


@pytest.mark.parametrize("seed", range(40))
def test_shards_are_disjoint_complete_and_even(seed):
    """The heaviest is above the mean by no more than a column of each kind, or by what a stretch of inputs weighs."""
    chance = random.Random(seed)
    topology = topology_of(chance.randint(1, 4), chance)
    alive = {layer: torch.rand(n) < chance.random() for layer, n in topology.n_components.items()}
    whole = Layout.of(topology, alive, chance.choice(["both", "attr"]))
    n_shards = chance.randint(1, len(whole.inputs))
    shards = deal(whole, n_shards)
    assert len(shards) == n_shards
    assert tuple(name for shard in shards for name in shard.inputs) == whole.inputs
    for layer, ids in whole.targets.items():
        assert torch.equal(torch.cat([shard.targets[layer] for shard in shards]), ids)
    assert all(list(shard.targets) == list(whole.targets) for shard in shards)
    loads = [load_of(shard) for shard in shards]
    column = max(sum({**topology.n_components, EMBED: 50}[s] for s in sources) for sources in topology.sources.values())
    heaviest_inputs = max(attr for attr, _ in loads)
    assert max(attr + absolute for attr, absolute in loads) <= max(
        sum(map(sum, loads)) / n_shards + column * len(KINDS), heaviest_inputs
    )


def test_each_kind_of_matrix_is_dealt_out_by_itself():
    """One is read from far more sources than another, which costs more time."""
    layers = [f"{block}.{kind}" for block in range(12) for kind in ("mlp.up", "mlp.down")]
    ups = layers[::2]
    sources = {
        layer: (EMBED, *layers[1:place:2]) if layer in ups else (layers[place - 1],)
        for place, layer in enumerate(layers)
    }
    inputs = {layer: layer for layer in layers}
    topology = Topology(dict.fromkeys(layers, 600), sources, 600, 1, inputs, dict.fromkeys(layers, 1))
    shards = deal(Layout.of(topology, {layer: torch.ones(600, dtype=bool) for layer in layers}, "both"), 4)
    n_downs = [sum(len(ids) for layer, ids in shard.targets.items() if layer not in ups) for shard in shards]
    assert max(n_downs) - min(n_downs) < 0.03 * sum(n_downs)
    totals = [sum(load_of(shard)) for shard in shards]
    assert max(totals) - min(totals) < 0.001 * sum(totals)


def test_inputs_are_cut_as_evenly_as_can_be():
    """Against all ways to cut them."""
    chance = random.Random(1)
    for _ in range(30):
        topology = topology_of(chance.randint(1, 3), chance)
        whole = Layout.of(
            topology, {layer: torch.ones(n, dtype=bool) for layer, n in topology.n_components.items()}, "attr"
        )
        n = len(whole.inputs)
        if n < 3:
            continue
        ways = [(a, b) for a in range(1, n - 1) for b in range(a + 1, n)]
        cut = [[Layout(topology, whole.inputs[i:j], {}) for i, j in ((0, a), (a, b), (b, n))] for a, b in ways]
        best = min(max(load_of(shard)[0] for shard in shards) for shards in cut)
        assert max(load_of(shard)[0] for shard in deal(whole, 3)) == best


def test_no_shard_is_empty():
    chance = random.Random(2)
    topology = topology_of(3, chance)
    no_targets = {layer: torch.zeros(n, dtype=bool) for layer, n in topology.n_components.items()}
    whole = Layout.of(topology, no_targets, "both")
    n = len(whole.inputs)
    assert all(shard.inputs for shard in deal(whole, n))
    with pytest.raises(
        ConfigurationError, match=rf"target_shards is {n + 1}, too many for the {n} inputs .* and 0 targ"
    ):
        deal(whole, n + 1)


def test_a_large_layer_is_split_within():
    topology = Topology({"0.mlp.up": 90}, {"0.mlp.up": ("embed",)}, 5, 4, {"0.mlp.up": "0.mlp.up"}, {"0.mlp.up": 4})
    shards = deal(Layout.of(topology, {"0.mlp.up": torch.ones(90, dtype=bool)}, "both"), 3)
    assert [shard.inputs for shard in shards] == [("0.mlp.up",), (), ()]
    # 450 numbers of attr_abs and 20 of attr.
    assert [len(shard.targets["0.mlp.up"]) for shard in shards] == [27, 32, 31]
    assert torch.equal(torch.cat([shard.targets["0.mlp.up"] for shard in shards]), torch.arange(90))
