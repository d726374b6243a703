"""Closed forms of the models of `transformers`, against gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form.edges import closed_edges
from lit_attr.attribution.connectivity import trace_topology
from tests.attribution.brute_force import brute_force
from tests.attribution.closed_form.examples import (
    assert_close,
    both_engines,
    closed_form_sums,
    random_alive,
    random_ci,
)
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
)
def test_equals_autograd(variant, density, seq_len, n_rows, share_alive, seed):
    model = huggingface_model(variant, seed=seed)
    tokens = random_tokens(n_rows, seq_len, seed, VOCAB)
    alive = random_alive(model, share_alive, seed=seed)
    found, expected = both_engines(model, tokens, random_ci(model, tokens, density, seed), alive)
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
    expected = brute_force(model, tokens)
    found = closed_form_sums(model, tokens, model.causal_importance(tokens))
    compared = 0
    for (name, mine), (_, theirs) in zip(found.named(), expected.named(), strict=True):
        if name.startswith("attr"):
            assert float((mine - theirs).abs().max()) < 1e-11 * max(float(theirs.abs().max()), 1.0), name
            compared += 1
    assert compared > 25
