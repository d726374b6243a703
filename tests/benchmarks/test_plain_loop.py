"""The loop that engines are measured against computes what they compute."""

import pytest
import torch

from benchmarks.plain_loop import PlainLoop
from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.batch import add_batch_with_ci_
from lit_attr.attribution.connectivity import trace_topology
from tests.attribution.named import assert_equal, attributions, named_result
from tests.sums import full_sums, layout_of
from tests.toys import random_tokens, toy_model


def named(loop):
    return {
        f"{metric}/{source}->{target}": table
        for metric, by_target in loop.tables.items()
        for target, by_source in by_target.items()
        for source, table in by_source.items()
    }


@pytest.mark.parametrize("architecture", ["LlamaSimpleMLP", "GPT2Simple"])
def test_numbers_of_the_engine(architecture):
    model, tokens = toy_model(architecture), random_tokens(3, 6, vocab=5)
    topology, ci = trace_topology(model), model.causal_importance(tokens)
    sums = full_sums(topology, torch.float64)
    engine = AutogradEngine(layout_of(topology), 4)
    add_batch_with_ci_(sums, model, topology, engine, tokens, ci)
    expected = attributions(named_result(sums, model))

    loop = PlainLoop(model.component_forward(tokens), topology, ci)
    loop.run()
    assert_equal(named(loop), expected, 1e-10)
    first = PlainLoop(model.component_forward(tokens), topology, ci, ["attr"], most_targets=2)
    first.run()
    assert_equal(named(first), {name: x[:2] for name, x in expected.items() if name.startswith("attr/")}, 1e-10)
