from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_attr.attribution.closed_form import pair_blocks
from lit_attr.topology.sums import Sums
from tests.attribution.brute_force import brute_force
from tests.attribution.closed_form.examples import (
    VOCAB,
    architecture_options,
    assert_close,
    both_engines,
    closed_form_engine,
    closed_form_sums,
    densities,
    random_alive,
    random_ci,
    token_batches,
    toys,
    unit_size,
)
from tests.attribution.named import assert_equal, attributions, named_result, without_abs
from tests.attribution.test_autograd import TOKENS, VARIANTS
from tests.toys import ARCHITECTURES, random_tokens, toy_model

SIXTEEN_EACH = [{"module_pattern": f"h.*.{name}.*_*", "C": 16} for name in ("attn", "mlp")]
DECOMPOSED = ["plain", "gated", "layer norm", "adjacent pairs, biases"]


@settings(max_examples=60, deadline=None)
@given(
    toy=toys(),
    tokens=token_batches,
    density=densities,
    share_alive=st.sampled_from([1.0, 0.6, 0.0]),
    n_dead_layers=st.integers(0, 2),
    seed=st.integers(0, 1000),
    metrics=st.sampled_from(["both", "attr"]),
)
def test_equals_autograd(toy, tokens, density, share_alive, n_dead_layers, seed, metrics):
    model = toy_model(**toy)
    ci = random_ci(model, tokens, density, seed)
    layers = list(model.paths)
    dead = [layers[(seed + i) % len(layers)] for i in range(n_dead_layers)]
    alive = random_alive(model, share_alive, dead, seed)
    found, expected = both_engines(model, tokens, ci, alive, metrics=metrics)
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_autograd_in_float32(architecture, seed, density):
    options = architecture_options(4, 2, 8, 48, 2, architecture, attn_bias=True, mlp_bias=True)
    modules = [{"module_pattern": f"h.*.{name}.*_*", "C": 20} for name in ("attn", "mlp")]
    model = unit_size(toy_model(architecture, torch.float32, seed, options, module_info=modules))
    tokens = random_tokens(3, 40, vocab=VOCAB, seed=seed)
    ci = random_ci(model, tokens, density, seed)
    found, expected = both_engines(model, tokens, ci)
    assert_close(found, in_float64(model, tokens, ci), 1e-6)
    if density > 0.02:  # Over a handful of pairs, gradients in float32 are themselves up to 3e-6 off those in float64.
        assert_close(found, expected, 2e-6)


def in_float64(model, tokens, ci):
    """The closed forms of the same float32 capture, computed in float64."""
    engine = closed_form_engine(model)
    sums = Sums.zeros(engine.layout, torch.float64)
    engine.add_(sums, model.component_forward(tokens, graph=False), ci)
    return named_result(sums, model)


@pytest.mark.slow
def test_float32_over_thousands_of_positions():
    """Components and tokens at nearly every position: what they feed is a sum of 8,000 terms."""
    options = architecture_options(2, 2, 8, 24, 2, "LlamaSimpleMLP")
    model = unit_size(toy_model("LlamaSimpleMLP", torch.float32, 3, options, module_info=SIXTEEN_EACH))
    tokens = random_tokens(128, 64, vocab=2)
    for density in (0.25, 0.95):
        ci = random_ci(model, tokens, density)
        found = named_result(closed_form_sums(model, tokens, ci), model)
        assert_close(found, in_float64(model, tokens, ci), 1e-6)


@pytest.mark.parametrize("variant", DECOMPOSED)
def test_equals_brute_force(variant, monkeypatch):
    monkeypatch.setattr(pair_blocks, "_SHORTEST_BLOCK", 2)
    architecture, options = VARIANTS[variant]
    model = toy_model(architecture, **options)
    expected = attributions(brute_force(model, TOKENS))
    assert len(expected) > 50
    for metrics, right in (("both", expected), ("attr", without_abs(expected))):
        sums = closed_form_sums(model, TOKENS, model.causal_importance(TOKENS), metrics=metrics)
        assert_equal(attributions(named_result(sums, model)), right)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_targets_at_rest_have_no_sign(architecture, density):
    """Where a read vector is zero, so is the activation, exactly: `attr_abs` is zero, as the gradient of abs has it."""
    model, tokens = toy_model(architecture), random_tokens(2)
    for layer in model.paths:
        model.components(layer).V[:, 1] = 0
    found, expected = both_engines(model, tokens, random_ci(model, tokens, density))
    assert_close(found, expected, 1e-10)
    at_rest = {name: block for name, block in found.items() if "->" in name and not name.endswith("->output")}
    assert len(at_rest) > 50
    assert not any(block[1].any() for block in at_rest.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_positions_where_a_target_is_at_rest_have_no_sign(architecture):
    """Sources of the same position alone: for them it is as if they were not important there."""
    model, tokens, position = toy_model(architecture), random_tokens(2), 3
    ci = random_ci(model, tokens, 1.0)
    engine = closed_form_engine(model)
    at_rest, expected = (Sums.zeros(engine.layout, torch.float64) for _ in range(2))
    capture = model.component_forward(tokens, graph=False)
    engine.add_(expected, capture, {layer: zero_at(values, position) for layer, values in ci.items()})
    pre = {layer: zero_at(values, position) for layer, values in capture.pre.items()}
    engine.add_(at_rest, replace(capture, pre=pre), ci)
    compared = [edge for edges in engine.edges.values() for edge in edges if edge.kind in ("stream", "mlp")]
    for edge in compared:
        if edge.source != "embed" and edge.target != "output":
            for reader in engine.layout.topology.readers[edge.target]:
                found, right = (sums.attr_abs[reader][edge.source].numbers for sums in (at_rest, expected))
                torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-12)


def zero_at(values, position):
    values = values.clone()
    values[:, position] = 0
    return values


def test_streams_without_any_variance():
    """Embedding rows of one value each: LayerNorms see nothing but their epsilon."""
    model, tokens = toy_model("GPT2Simple"), random_tokens(2, 5)
    model.target_model.wte.weight.copy_(torch.arange(11)[:, None].expand(-1, 8))
    model.target_model.wpe.weight.zero_()
    found, expected = both_engines(model, tokens, random_ci(model, tokens, 0.5))
    assert expected["attr/embed->0.attn.v"].abs().max() < 1e-9
    assert_close(found, expected, 1e-10, smallest=1.0)


def test_sequences_of_one_token():
    model, tokens = toy_model(), random_tokens(3, 1)
    found, expected = both_engines(model, tokens, random_ci(model, tokens, 1.0))
    assert found["attr/0.attn.v->0.attn.o"].any()
    assert found["attr/0.attn.q->0.attn.o"].abs().max() < 1e-14  # nothing to choose between
    assert_close(found, expected, 1e-10)
