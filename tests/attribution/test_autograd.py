import pytest
import torch

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.connectivity import trace_topology
from tests.attribution.brute_force import brute_force
from tests.attribution.named import assert_equal, attributions, named_result, without_abs
from tests.sums import all_alive, layout_of, named_by_source, zero_sums
from tests.toys import ARCHITECTURES, VOCAB, random_tokens, toy_model


def engine_sums(model, tokens, targets_per_pass=4, alive=None, into=None, metrics="both"):
    topology = trace_topology(model)
    sums = zero_sums(topology, torch.float64, metrics=metrics, alive=alive) if into is None else into
    engine = AutogradEngine(layout_of(topology, alive=alive), targets_per_pass)
    add_batch_(sums, model, topology, engine, tokens)
    return sums


def harvest(model, tokens, *args, alive=None, **options):
    """The result that is made of the engine's sums."""
    return named_result(engine_sums(model, tokens, *args, alive=alive, **options), model, alive)


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
    assert any(float(tensor.abs().max()) > 0.1 for name, tensor in expected.items() if name.startswith("attr_abs"))
    assert_equal(harvest(model, TOKENS), expected)
    assert_equal(harvest(model, TOKENS, metrics="attr"), without_abs(expected))


def test_attr_and_attr_abs_differ_where_signs_do():
    named = harvest(toy_model(), TOKENS)
    assert not torch.allclose(named["attr/0.attn.o->1.mlp.up"], named["attr_abs/0.attn.o->1.mlp.up"])


@pytest.mark.parametrize("targets_per_pass", [1, 2, 100])
def test_targets_per_pass_invariance(targets_per_pass):
    model = toy_model("GPT2Simple")
    assert_equal(harvest(model, TOKENS, targets_per_pass), harvest(model, TOKENS, 3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_size_and_order_invariance(architecture):
    model, tokens = toy_model(architecture), random_tokens(5, 6)
    whole = engine_sums(model, tokens)
    parts = None
    for rows in reversed(tokens.split(2)):
        parts = engine_sums(model, rows, into=parts)
    assert_equal(named_by_source(parts), named_by_source(whole))


@pytest.mark.parametrize("metrics", ["both", "attr"])
def test_dead_targets_keep_rows_of_zeros_and_others_their_values(metrics):
    model = toy_model()
    whole = brute_force(model, TOKENS)
    alive = all_alive(trace_topology(model))
    alive["1.mlp.up"][1] = False
    for layer in "qkv":  # all that read one input
        alive[f"0.attn.{layer}"][:] = False
    expected = dead_to_zero(whole if metrics == "both" else without_abs(whole), alive)
    assert_equal(harvest(model, TOKENS, alive=alive, metrics=metrics), expected)
    # Dead targets are still sources, and still counted.
    assert expected["attr/1.mlp.up->1.mlp.down"][:, 1].any()
    assert expected["ci/0.attn.q"].any()
    sums = engine_sums(model, TOKENS, alive=alive, metrics=metrics)
    assert "0.attn.q" not in sums.attr  # no gradient is taken for what nothing reads


def dead_to_zero(named, alive):
    """A result with other targets."""
    gated = dict(named)
    for name in attributions(named):
        target = name.partition("->")[2]
        if target != "output":
            gated[name] = named[name] * alive[target][:, None]
    return gated


def test_sources_without_causal_importance_get_nothing():
    model = toy_model()
    topology = trace_topology(model)
    sums = zero_sums(topology, torch.float64)
    ci = model.causal_importance(TOKENS)
    ci["0.mlp.up"][..., 2] = 0
    AutogradEngine(layout_of(topology), 4).add_(sums, model.component_forward(TOKENS), ci)
    assert 2 not in sums.live["0.mlp.up"].ids
    for table in (sums.attr["0.mlp.down"]["0.mlp.up"], sums.attr_abs["0.mlp.down"]["0.mlp.up"]):
        assert len(table.numbers) == len(sums.live["0.mlp.up"]) == topology.n_components["0.mlp.up"] - 1
        assert table.numbers.any(1).all()


def test_truncated_engine_takes_one_pass_per_input_and_layer():
    model = toy_model()
    topology = trace_topology(model)
    alive = all_alive(topology)
    alive["1.mlp.up"][0] = False
    truncated = AutogradEngine(layout_of(topology, alive=alive), 1).truncated()
    sums = zero_sums(topology, torch.float64, alive=alive)
    truncated.add_(sums, model.component_forward(TOKENS), model.causal_importance(TOKENS))
    for table in (*sums.attr["1.attn.q"].values(), *sums.attr["output"].values(), *sums.attr["1.mlp.down"].values()):
        assert table.numbers.any(0).nonzero()[:, 0].tolist() == [0]
    for layer, first in (("1.mlp.up", 1), ("1.attn.k", 0)):
        assert sums.layout.targets[layer][0] == first
        for table in sums.attr_abs[layer].values():
            assert table.numbers.any(0).nonzero()[:, 0].tolist() == [0]


def test_tokens_that_do_not_occur_get_nothing():
    named = harvest(toy_model(), TOKENS)
    absent = torch.ones(VOCAB, dtype=torch.bool)
    absent[TOKENS.unique()] = False
    assert absent.any()
    assert not named["attr/embed->0.mlp.up"][:, absent].any()
    assert not named["attr/embed->output"][:, absent].any()


def test_first_norm_without_positions_leaves_only_its_epsilon():
    """The residual stream is the embedding there: an RMSNorm removes all of it but eps / (mean square + eps)."""
    model = toy_model("LlamaSimpleMLP")
    found, capture = harvest(model, TOKENS)["attr/embed->0.attn.v"], model.component_forward(TOKENS)
    eps = model.target_model.config.rms_norm_eps
    h = capture.embed.detach()
    factor = eps / (h.square().mean(-1) + eps)
    expected = torch.zeros_like(found)
    for row in range(TOKENS.shape[0]):
        for position in range(TOKENS.shape[1]):
            expected[:, TOKENS[row, position]] += (
                factor[row, position] * capture.pre["0.attn.v"][row, position].detach()
            )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-15)
