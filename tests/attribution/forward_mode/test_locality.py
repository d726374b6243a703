"""Paths that are said to stay at a position are followed by gradients."""

import pytest
import torch

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.forward_mode.locality import mixes_positions
from lit_attr.topology.address import EMBED, OUTPUT
from tests.attribution.forward_mode.test_engine import PARTIAL, TOKENS, partial_model
from tests.huggingface_toys import huggingface_model


def mixing(model, source, target, capture):
    """Whether anything at the last position depends on what another position adds."""
    value = capture.residual if target == OUTPUT else capture.pre[target]
    leaf = capture.embed if source == EMBED else capture.post[source]
    (gradient,) = torch.autograd.grad(value[:, -1].square().sum(), leaf, retain_graph=True)
    return bool(gradient[:, :-1].any())


def assert_follows_gradients(model, exact=True):
    topology, capture = trace_topology(model), model.component_forward(TOKENS)
    for target, sources in topology.sources.items():
        for source in sources:
            said = mixes_positions(source, target, model.anatomy(), topology.n_components)
            found = mixing(model, source, target, capture)
            # The query's own path stays at its position; it is pushed with those of keys and values.
            local_query = source.endswith("attn.q")
            assert said == found or (said and (local_query or not exact)), (source, target)


@pytest.mark.parametrize("architecture", ["LlamaSimple", "GPT2Simple"])
@pytest.mark.parametrize("name", PARTIAL)
def test_follows_gradients(architecture, name):
    assert_follows_gradients(partial_model(architecture, name))


@pytest.mark.parametrize("variant", ["gpt2", "qwen3", "gpt-neox"])
@pytest.mark.parametrize("patterns", [["*.mlp.*", "*.glu.*"], ["*.attn.*"], ["*.attn.o", "*.mlp.down", "*.glu.down"]])
def test_parallel_sublayers_are_never_taken_for_local(variant, patterns):
    assert_follows_gradients(huggingface_model(variant, patterns=patterns), exact=False)


def test_unknown_paths_may_mix():
    assert mixes_positions(EMBED, OUTPUT, None, [])
