import pytest
import torch

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.topology.sums import Sums
from tests.attribution.brute_force import brute_force
from tests.toys import ARCHITECTURES, VOCAB, random_tokens, toy_model


def all_alive(topology):
    return {layer: torch.ones(n, dtype=torch.bool) for layer, n in topology.n_components.items()}


def engine_sums(model, tokens, targets_per_pass=4, alive=None, into=None):
    topology = trace_topology(model)
    sums = Sums.zeros(topology, torch.float64) if into is None else into
    engine = AutogradEngine(topology, alive or all_alive(topology), targets_per_pass)
    add_batch_(sums, model, topology, engine, tokens)
    return sums


def assert_equal(found, expected, tolerance=1e-12):
    for (name, mine), (_, theirs) in zip(found.named(), expected.named(), strict=True):
        scale = max(float(theirs.abs().max()), 1.0)
        assert float((mine - theirs).abs().max()) / scale < tolerance, name


# A short vocabulary, so that tokens repeat within a row and across rows.
TOKENS = random_tokens(2, 4, vocab=5)

VARIANTS = {
    "plain": ("LlamaSimpleMLP", {}),
    "gated": ("LlamaSimple", {}),
    "layer norm": ("GPT2Simple", {}),
    "adjacent pairs, biases": (
        "LlamaSimpleMLP",
        {"model_options": {"rotary_adjacent_pairs": True, "attn_bias": True, "mlp_bias": True}},
    ),
    "only MLPs": ("LlamaSimpleMLP", {"module_info": [{"module_pattern": "h.*.mlp.*_*", "C": 3}]}),
    "only attention": ("GPT2Simple", {"module_info": [{"module_pattern": "h.*.attn.*_proj", "C": 3}]}),
    "one matrix": ("LlamaSimple", {"module_info": [{"module_pattern": "h.1.mlp.up_proj", "C": 3}]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_brute_force(variant):
    architecture, options = VARIANTS[variant]
    model = toy_model(architecture, **options)
    expected = brute_force(model, TOKENS)
    assert any(float(tensor.abs().max()) > 0.1 for name, tensor in expected.named() if name.startswith("attr_abs"))
    assert_equal(engine_sums(model, TOKENS), expected)


def test_attr_and_attr_abs_differ_where_signs_do():
    sums = engine_sums(toy_model(), TOKENS)
    assert not torch.allclose(sums.regular["1.mlp.up"]["0.attn.o"], sums.regular_abs["1.mlp.up"]["0.attn.o"])


@pytest.mark.parametrize("targets_per_pass", [1, 2, 100])
def test_targets_per_pass_invariance(targets_per_pass):
    model = toy_model("GPT2Simple")
    assert_equal(engine_sums(model, TOKENS, targets_per_pass), engine_sums(model, TOKENS, 3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_size_and_order_invariance(architecture):
    model, tokens = toy_model(architecture), random_tokens(5, 6)
    whole = engine_sums(model, tokens)
    parts = None
    for rows in reversed(tokens.split(2)):
        parts = engine_sums(model, rows, into=parts)
    assert_equal(parts, whole)


def test_dead_targets_keep_rows_of_zeros_and_others_their_values():
    model = toy_model()
    whole = engine_sums(model, TOKENS)
    alive = all_alive(trace_topology(model))
    alive["1.mlp.up"][1] = False
    alive["0.attn.q"][:] = False
    gated = engine_sums(model, TOKENS, alive=alive)
    expected = whole.regular["1.mlp.up"]["0.attn.o"].clone()
    expected[1] = 0
    torch.testing.assert_close(gated.regular["1.mlp.up"]["0.attn.o"], expected, rtol=1e-12, atol=1e-12)
    assert not gated.embed["0.attn.q"].any()
    assert not gated.embed_abs["1.mlp.up"][:, 1].any()
    # Dead targets are still sources, and still counted.
    torch.testing.assert_close(gated.regular["1.mlp.down"]["1.mlp.up"], whole.regular["1.mlp.down"]["1.mlp.up"])
    assert gated.ci["0.attn.q"].any()


def test_dimensions_of_the_output_can_be_left_out():
    model = toy_model()
    alive = all_alive(trace_topology(model))
    whole = engine_sums(model, TOKENS)
    some = torch.arange(model.d_model) % 3 == 1
    gated = engine_sums(model, TOKENS, alive={**alive, "output": some})
    for source, block in gated.unembed.items():
        torch.testing.assert_close(block, whole.unembed[source] * some[:, None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gated.embed_unembed, whole.embed_unembed * some, rtol=1e-12, atol=1e-12)
    assert gated.regular["1.mlp.up"]["0.attn.o"].equal(whole.regular["1.mlp.up"]["0.attn.o"])


def test_sources_without_causal_importance_get_nothing():
    model = toy_model()
    topology = trace_topology(model)
    sums = Sums.zeros(topology, torch.float64)
    ci = model.causal_importance(TOKENS)
    ci["0.mlp.up"][..., 2] = 0
    AutogradEngine(topology, all_alive(topology), 4).add_(sums, model.component_forward(TOKENS), ci)
    assert not sums.regular["0.mlp.down"]["0.mlp.up"][:, 2].any()
    assert sums.regular["0.mlp.down"]["0.mlp.up"][:, 1].any()


def test_truncated_engine_takes_one_pass_per_layer():
    topology = trace_topology(toy_model())
    alive = all_alive(topology)
    alive["1.mlp.up"][0] = False
    truncated = AutogradEngine(topology, alive, 1).truncated()
    assert {int(mask.sum()) for mask in truncated.alive.values()} == {1}
    assert truncated.alive["1.mlp.up"].tolist() == [False, True, False]


def test_tokens_that_do_not_occur_get_nothing():
    sums = engine_sums(toy_model(), TOKENS)
    absent = torch.ones(VOCAB, dtype=torch.bool)
    absent[TOKENS.unique()] = False
    assert absent.any()
    assert not sums.embed["0.mlp.up"][absent].any()
    assert not sums.embed_unembed[absent].any()


def test_first_norm_without_positions_leaves_only_its_epsilon():
    """The residual stream is the embedding there: an RMSNorm removes all of it but eps / (mean square + eps)."""
    model = toy_model("LlamaSimpleMLP")
    sums, capture = engine_sums(model, TOKENS), model.component_forward(TOKENS)
    eps = model.target_model.config.rms_norm_eps
    h = capture.embed.detach()
    factor = eps / (h.square().mean(-1) + eps)
    expected = torch.zeros_like(sums.embed["0.attn.v"])
    for row in range(TOKENS.shape[0]):
        for position in range(TOKENS.shape[1]):
            expected[TOKENS[row, position]] += factor[row, position] * capture.pre["0.attn.v"][row, position].detach()
    torch.testing.assert_close(sums.embed["0.attn.v"], expected, rtol=1e-8, atol=1e-15)
