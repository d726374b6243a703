"""Closed forms of the models of `transformers`, against gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.edge_blocks import closed_edges
from lit_attr.attribution.connectivity import trace_topology
from tests.attribution.brute_force import brute_force
from tests.attribution.closed_form.examples import (
    assert_close,
    both_engines,
    closed_form_sums,
    random_alive,
    random_ci,
)
from tests.attribution.named import assert_equal, attributions, named_result
from tests.huggingface_toys import VARIANTS, VOCAB, huggingface_model
from tests.toys import random_tokens


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_has_a_closed_form(variant):
    model = huggingface_model(variant)
    topology = trace_topology(model)
    closed = {(edge.source, edge.target) for edge in closed_edges(topology, model.anatomy())}
    assert closed == {(source, target) for target, sources in topology.sources.items() for source in sources}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=4, deadline=None)
@given(
    density=st.sampled_from([0.05, 0.4, 1.0]),
    seq_len=st.one_of(st.integers(1, 9), st.just(65)),
    n_rows=st.integers(1, 3),
    share_alive=st.sampled_from([1.0, 0.6]),
    seed=st.integers(0, 100),
    metrics=st.sampled_from(["both", "attr"]),
)
def test_equals_autograd(variant, density, seq_len, n_rows, share_alive, seed, metrics):
    model = huggingface_model(variant, seed=seed)
    tokens = random_tokens(n_rows, seq_len, seed, VOCAB)
    alive = random_alive(model, share_alive, seed=seed)
    found, expected = both_engines(model, tokens, random_ci(model, tokens, density, seed), alive, metrics=metrics)
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_autograd_in_float32(variant):
    model = huggingface_model(variant, torch.float32)
    tokens = random_tokens(2, 20, vocab=VOCAB)
    found, expected = both_engines(model, tokens, random_ci(model, tokens, 0.3))
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_brute_force(variant):
    model = huggingface_model(variant)
    tokens = random_tokens(2, 4, vocab=VOCAB)
    expected = attributions(brute_force(model, tokens))
    assert len(expected) > 25
    sums = closed_form_sums(model, tokens, model.causal_importance(tokens))
    assert_equal(attributions(named_result(sums, model)), expected, 1e-11)


PARTS = {
    "mlp": ["*.mlp.*", "*.glu.*"],
    "attention": ["*.attn.*", "*.attn_fused.*"],
    "outputs": ["*.attn.o", "*.attn_fused.o", "*.down"],
    "queries or fused": ["*.attn.q", "*.attn_fused.qkv"],
    "first block": ["0.*"],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", ["gpt2", "qwen3", "mistral, window", "gpt-neox", "gpt-neox, serial"])
def test_closed_blocks_of_partial_decompositions(variant, part):
    """What is taken for closed equals gradients; the rest stays zero."""
    model = huggingface_model(variant, patterns=PARTS[part])
    tokens = random_tokens(2, 6, vocab=VOCAB)
    found, expected = both_engines(model, tokens, random_ci(model, tokens, 0.5))
    closed = {f"{e.source}->{e.target}" for e in closed_edges(trace_topology(model), model.anatomy())}
    assert closed
    right = {
        name: theirs if name.partition("/")[2] in closed else torch.zeros_like(theirs)
        for name, theirs in attributions(expected).items()
    }
    assert_equal(attributions(found), right, 1e-10)


def test_what_stands_beside_an_open_sublayer_is_no_path_through_it():
    """In GPT-NeoX an MLP does not read what the attention of its block writes."""
    model = huggingface_model("gpt-neox", patterns=PARTS["mlp"])
    closed = {(e.source, e.target) for e in closed_edges(trace_topology(model), model.anatomy())}
    assert {("embed", "0.mlp.up"), ("0.mlp.down", "1.mlp.up"), ("1.mlp.down", "output")} <= closed
    assert not {("embed", "1.mlp.up"), ("0.mlp.down", "output")} & closed
