"""The loop that engines are measured against computes what they compute."""

import pytest
import torch

from benchmarks.plain_loop import PlainLoop
from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.batch import add_batch_with_ci_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.sums import Sums
from tests.toys import random_tokens, toy_model


def stored_blocks(storage):
    """Metric, target and source of each edge block to its values, target by source."""
    blocks = {("attr", OUTPUT, source): values for source, values in storage.unembed_attr.items()}
    blocks["attr", OUTPUT, EMBED] = storage.embed_unembed_attr
    for metric, regular, embed in (
        ("attr", storage.regular_attr, storage.embed_attr),
        ("attr_abs", storage.regular_attr_abs, storage.embed_attr_abs),
    ):
        blocks |= {(metric, t, s): values for t, sources in regular.items() for s, values in sources.items()}
        blocks |= {(metric, t, EMBED): values for t, values in embed.items()}
    return blocks


@pytest.mark.parametrize("architecture", ["LlamaSimpleMLP", "GPT2Simple"])
def test_numbers_of_the_engine(architecture):
    model, tokens = toy_model(architecture), random_tokens(3, 6, vocab=5)
    topology, ci = trace_topology(model), model.causal_importance(tokens)
    sums = Sums.zeros(topology, torch.float64)
    alive = {layer: torch.ones(n, dtype=torch.bool) for layer, n in topology.n_components.items()}
    add_batch_with_ci_(sums, model, topology, AutogradEngine(topology, alive, 4), tokens, ci)
    expected = stored_blocks(
        DatasetAttributionStorage.from_sums(sums, read_vectors(model, topology, alive), model.unembedding, 0.0)
    )

    loop = PlainLoop(model.component_forward(tokens), topology, ci)
    loop.run()
    first = PlainLoop(model.component_forward(tokens), topology, ci, ["attr"], most_targets=2)
    first.run()
    tables = {(m, t, s): x for m, targets in loop.tables.items() for t, by in targets.items() for s, x in by.items()}
    assert tables.keys() == expected.keys()
    assert list(first.tables) == ["attr"]
    for (metric, target, source), values in expected.items():
        torch.testing.assert_close(tables[metric, target, source], values, rtol=1e-10, atol=1e-10)
        if metric == "attr":
            torch.testing.assert_close(first.tables["attr"][target][source], values[:2], rtol=1e-10, atol=1e-10)
