"""Sums by name as a result has them: what every way to compute them is compared in."""

from collections.abc import Mapping

from torch import Tensor

from lit_attr.attribution.batch import read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.sums import Sums
from tests.sums import all_alive

# `attr/embed->0.mlp.up` and its like to sums, target by source; and normalisers, named as in `Sums.named`.
Named = dict[str, Tensor]


def named_result(
    sums: Sums,
    model: DecomposedModel,
    alive: Mapping[str, Tensor] | None = None,
    topology: Topology | None = None,
) -> Named:
    """The result that is made of sums; all components are targets where nothing else is said."""
    topology = topology or trace_topology(model)
    read = read_vectors(model, topology, alive or all_alive(topology))
    storage = DatasetAttributionStorage.from_sums(sums, read, model.unembedding, 0.0)
    blocks = {
        "attr": {**storage.regular_attr, OUTPUT: {**storage.unembed_attr, EMBED: storage.embed_unembed_attr}},
        "attr_abs": storage.regular_attr_abs,
    }
    named = {
        f"{metric}/{source}->{target}": block
        for metric, by_target in blocks.items()
        for target, by_source in by_target.items()
        for source, block in by_source.items()
    }
    for metric, from_tokens in (("attr", storage.embed_attr), ("attr_abs", storage.embed_attr_abs)):
        named |= {f"{metric}/{EMBED}->{target}": block for target, block in from_tokens.items()}
    for name, by_layer in (("ci", storage.ci_sum), ("act_sq", storage.component_act_sq_sum)):
        named |= {f"{name}/{layer}": tensor for layer, tensor in by_layer.items()}
    named |= {"logit_sq": storage.logit_sq_sum, "token_count": storage.embed_token_count, "n_tokens": sums.n_tokens}
    return named


def attributions(named: Named) -> Named:
    """Those of edges, without normalisers."""
    return {name: tensor for name, tensor in named.items() if "->" in name}


def without_abs(named: Named) -> Named:
    """What a harvest of `attr` alone has."""
    return {name: tensor for name, tensor in named.items() if not name.startswith("attr_abs/")}


def assert_equal(found: Named, expected: Named, tolerance: float = 1e-12) -> None:
    """The same tensors, each relative to its own largest number, or to 1."""
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        mine = found[name]
        scale = max(float(theirs.abs().max()), 1.0)
        assert float((mine - theirs).abs().max()) / scale < tolerance, name
