from dataclasses import replace

import pytest
import torch

from lit_attr.attribution.autograd import AutogradEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.forward_mode.engine import ForwardModeEngine
from lit_attr.topology.address import EMBED
from tests.attribution.brute_force import brute_force
from tests.attribution.closed_form.examples import assert_close, random_alive, random_ci, unit_size
from tests.attribution.named import attributions, named_result, without_abs
from tests.huggingface_toys import huggingface_model
from tests.sums import all_alive, layout_of, zero_sums
from tests.toys import ARCHITECTURES, random_tokens, toy_model

# A short vocabulary, so that tokens repeat within a row and across rows.
TOKENS = random_tokens(3, 7, vocab=5)
PARTIAL = {
    "all": ["h.*.*.*_*"],
    "only MLPs": ["h.*.mlp.*_*"],
    "only attention": ["h.*.attn.*_proj"],
    "only o": ["h.*.attn.o_proj"],
    "only q": ["h.*.attn.q_proj"],
    "q, k and v": ["h.*.attn.q_proj", "h.*.attn.k_proj", "h.*.attn.v_proj"],
    "only down": ["h.*.mlp.down_proj"],
    "one block": ["h.1.*.*_*"],
    "alternating": ["h.0.mlp.*_*", "h.1.attn.*_proj"],
}


def partial_model(architecture, name, dtype=torch.float64):
    modules = [{"module_pattern": pattern, "C": 4 + i} for i, pattern in enumerate(PARTIAL[name])]
    return unit_size(toy_model(architecture, dtype, module_info=modules))


def harvest(model, ci, tokens=TOKENS, alive=None, per_pass=8, metrics="both"):
    """Every edge block, those with a closed form included."""
    topology = trace_topology(model)
    sums = zero_sums(topology, model.unembedding.dtype, metrics=metrics, alive=alive)
    engine = ForwardModeEngine(model, layout_of(topology, alive=alive), per_pass)
    engine.add_(sums, model.component_forward(tokens, graph=False), ci)
    return named_result(sums, model, alive, topology)


def by_definition(model, ci, tokens=TOKENS, alive=None):
    topology = trace_topology(model)
    sums = zero_sums(topology, model.unembedding.dtype, alive=alive)
    AutogradEngine(layout_of(topology, alive=alive), 100).add_(sums, model.component_forward(tokens), ci)
    return named_result(sums, model, alive, topology)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", PARTIAL)
def test_equals_autograd(architecture, name):
    model = partial_model(architecture, name)
    for seed, (density, share) in enumerate([(0.15, 0.6), (1.0, 1.0)]):
        ci = random_ci(model, TOKENS, density, seed)
        alive = random_alive(model, share, seed=seed)
        expected = by_definition(model, ci, alive=alive)
        assert any(tensor.any() for metric, tensor in expected.items() if metric.startswith("attr/"))
        assert_close(harvest(model, ci, alive=alive), expected, 1e-10)
        assert_close(harvest(model, ci, alive=alive, metrics="attr"), without_abs(expected), 1e-10)


def test_nothing_is_active():
    model = partial_model("LlamaSimpleMLP", "only MLPs")
    ci = random_ci(model, TOKENS, 0.0)
    found = harvest(model, ci)
    assert found["attr/embed->output"].any()
    assert not found["attr/0.mlp.down->1.mlp.up"].any()
    assert_close(found, by_definition(model, ci), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gpt2", "mistral, window", "qwen3", "gpt-neox"])
@pytest.mark.parametrize("patterns", [["*.mlp.*", "*.glu.*"], ["*.attn.*"], ["*.attn.o"]])
def test_equals_autograd_on_models_of_transformers(variant, patterns):
    model = unit_size(huggingface_model(variant, patterns=patterns))
    ci = random_ci(model, TOKENS, 0.4)
    assert_close(harvest(model, ci), by_definition(model, ci), 1e-10)


@pytest.mark.parametrize("name", ["only MLPs", "only attention"])
def test_without_anatomy(name, monkeypatch):
    model = partial_model("LlamaSimple", name)
    ci = random_ci(model, TOKENS, 0.4)
    expected = by_definition(model, ci)
    monkeypatch.setattr(type(model), "anatomy", lambda self: None)
    assert_close(harvest(model, ci), expected, 1e-10)


@pytest.mark.parametrize(("architecture", "name"), [("LlamaSimpleMLP", "only MLPs"), ("GPT2Simple", "only attention")])
def test_equals_brute_force(architecture, name):
    modules = [{"module_pattern": pattern, "C": 3} for pattern in PARTIAL[name]]
    model, tokens = toy_model(architecture, module_info=modules), TOKENS[:2, :4]
    expected = attributions(brute_force(model, tokens))
    for metrics, right in (("both", expected), ("attr", without_abs(expected))):
        found = attributions(harvest(model, model.causal_importance(tokens), tokens, metrics=metrics))
        assert found.keys() == right.keys()
        for name, theirs in right.items():
            torch.testing.assert_close(found[name], theirs, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("name", ["only MLPs", "only attention"])
def test_float32_is_close_to_float64(name):
    tokens = random_tokens(4, 8)
    models = [partial_model("LlamaSimpleMLP", name, dtype) for dtype in (torch.float32, torch.float64)]
    models[1].load_state_dict({key: value.double() for key, value in models[0].state_dict().items()})
    ci = random_ci(models[0], tokens, 0.5)
    found, expected = (harvest(model, {k: v.to(model.unembedding) for k, v in ci.items()}, tokens) for model in models)
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", ["only MLPs", "only attention"])
def test_targets_at_rest_have_no_sign(name):
    model = partial_model("LlamaSimpleMLP", name)
    target = "1.mlp.up" if name == "only MLPs" else "1.attn.q"
    ci, topology = random_ci(model, TOKENS, 1.0), trace_topology(model)
    capture = model.component_forward(TOKENS, graph=False)
    resting = {**capture.pre, target: capture.pre[target].clone()}
    resting[target][..., 1] = 0
    sums, moving = zero_sums(topology, torch.float64), harvest(model, ci)
    engine = ForwardModeEngine(model, layout_of(topology), 4)
    engine.add_(sums, replace(capture, pre=resting), ci)
    still = named_result(sums, model)
    source = next(source for source in topology.sources[target] if source != EMBED)
    assert moving[f"attr_abs/{source}->{target}"][1].any()
    assert not still[f"attr_abs/{source}->{target}"][1].any()
    assert not still[f"attr_abs/embed->{target}"][1].any()
    name = f"attr/{source}->{target}"
    torch.testing.assert_close(still[name], moving[name], rtol=1e-12, atol=1e-12)


def test_dead_targets_and_dead_layers_keep_zeros():
    model = partial_model("LlamaSimpleMLP", "only MLPs")
    ci = random_ci(model, TOKENS, 0.5)
    topology = trace_topology(model)
    alive = all_alive(topology)
    alive["1.mlp.up"][:] = False
    alive["1.mlp.down"][1] = False
    sums = zero_sums(topology, torch.float64, alive=alive)
    engine = ForwardModeEngine(model, layout_of(topology, alive=alive), 8)
    engine.add_(sums, model.component_forward(TOKENS, graph=False), ci)
    assert "1.mlp.up" not in sums.attr
    found = named_result(sums, model, alive)
    for name in ("attr/embed->1.mlp.up", "attr/0.mlp.down->1.mlp.up", "attr_abs/0.mlp.down->1.mlp.up"):
        assert not found[name].any()
    for name in ("attr/1.mlp.up->1.mlp.down", "attr_abs/1.mlp.up->1.mlp.down"):
        assert not found[name][1].any()
        assert found[name][0].any()
