from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.decomposition.targets.layers import LayerNorm, RMSNorm
from tests.toys import ARCHITECTURES, MODEL_OPTIONS, random_tokens, run_options, toy_model

FORWARDS = ["causal_importance", "component_forward"]


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> DecomposedModel:
    return toy_model(request.param)


def condition(model: nn.Module) -> dict[str, Any]:
    """All of a model that a forward could leave changed."""
    hooks = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
    assert {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks"} <= set(hooks)
    return {
        path: (
            {name: dict(getattr(module, name)) for name in hooks},
            vars(module).get("forward"),
            sorted(vars(module)),
            module.training,
            [(name, p.requires_grad, p.grad, p._version) for name, p in module.named_parameters(recurse=False)],
        )
        for path, module in model.named_modules()
    }


@pytest.mark.parametrize("forward", FORWARDS)
def test_forward_leaves_the_model_as_it_was(model: DecomposedModel, forward: str):
    before = condition(model)
    getattr(model, forward)(random_tokens(2))
    assert condition(model) == before


@pytest.mark.parametrize("where", ["wte", "h.0.mlp", "h.1.attn.o_proj", "ln_f", "lm_head"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_forward_that_fails_leaves_the_model_as_it_was(model: DecomposedModel, forward: str, where: str):
    def fail(*args: object) -> None:
        raise RuntimeError("stopped on purpose")

    before = condition(model)
    handle = model.target_model.get_submodule(where).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stopped on purpose"):
        getattr(model, forward)(random_tokens(2))
    handle.remove()
    assert condition(model) == before


@pytest.mark.parametrize("forward", FORWARDS)
def test_forward_that_fails_does_not_change_later_ones(model: DecomposedModel, forward: str):
    tokens = random_tokens(2)
    before = model.target_model(tokens), model.component_forward(tokens).logits
    with pytest.raises(IndexError):
        getattr(model, forward)(tokens + 11)
    after = model.target_model(tokens), model.component_forward(tokens).logits
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def lossless(architecture: str) -> DecomposedModel:
    """A model whose components are the rows that the target's own matrices multiply."""
    widths = {"mlp.down_proj": MODEL_OPTIONS[architecture].get("n_intermediate", 32)}
    modules = [
        {**info, "C": widths.get(info["module_pattern"].removeprefix("h.*."), 8)}
        for info in run_options(architecture)["module_info"]
    ]
    model = toy_model(architecture, module_info=modules)
    for layer, path in model.paths.items():
        matrix, components = model.target_model.get_submodule(path), model.components(layer)
        components.V.copy_(torch.eye(matrix.in_features))
        components.U.copy_(matrix.weight.T)
        if matrix.bias is not None:
            components.bias.copy_(matrix.bias)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_component_forward_of_a_lossless_decomposition_is_the_target_forward(architecture: str):
    model, tokens = lossless(architecture), random_tokens(3)
    torch.testing.assert_close(model.component_forward(tokens).logits, model.target_model(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_component_forward_of_a_lossy_decomposition_is_not_the_target_forward(architecture: str):
    model, tokens = toy_model(architecture), random_tokens(3)
    assert (model.component_forward(tokens).logits - model.target_model(tokens)).abs().max() > 0.1


def test_capture_is_keyed_by_layer_in_module_order(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    assert [list(capture.pre), list(capture.post)] == [list(model.n_components)] * 2
    assert {layer: x.shape for layer, x in capture.pre.items()} == {
        layer: (2, 8, count) for layer, count in model.n_components.items()
    }


def test_post_activations_are_leaves_with_the_values_of_pre(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    for layer, post in capture.post.items():
        assert post.is_leaf
        assert post.requires_grad
        assert torch.equal(post, capture.pre[layer])


def test_embeddings_are_leaves_of_the_tokens_alone(model: DecomposedModel):
    tokens = random_tokens(2)
    embed = model.component_forward(tokens).embed
    assert embed.is_leaf
    assert embed.requires_grad
    assert torch.equal(embed, model.target_model.wte.weight[tokens])


def test_residual_is_what_the_unembedding_reads(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    torch.testing.assert_close(capture.residual @ model.unembedding, capture.logits, rtol=0, atol=1e-12)
    assert capture.residual.requires_grad
    assert not capture.logits.requires_grad


def test_graph_is_cut_at_every_matrix(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    down = next(layer for layer in model.paths if layer.startswith("0.") and layer.endswith("down"))
    for layer, post in capture.post.items():
        (gradient,) = torch.autograd.grad(capture.pre[down].sum(), post, retain_graph=True, allow_unused=True)
        assert (gradient is not None) == (layer in ("0.mlp.up", "0.glu.up", "0.glu.gate")), layer


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_callers_gradient_mode_does_not_matter(model: DecomposedModel, mode: Callable[[], Any]):
    tokens = random_tokens(2)
    with mode():
        ci, capture = model.causal_importance(tokens), model.component_forward(tokens)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert not any(values.requires_grad for values in ci.values())
    assert all(x.requires_grad for x in (capture.embed, capture.residual, *capture.pre.values()))


def test_causal_importance_is_of_the_target_forward_not_of_the_component_forward(model: DecomposedModel):
    tokens = random_tokens(2)
    before = model.causal_importance(tokens)
    for layer in model.paths:
        model.components(layer).U.zero_()
    after: dict[str, Tensor] = model.causal_importance(tokens)
    assert all(torch.equal(before[layer], after[layer]) for layer in model.paths)


def test_unembedding_is_a_transposed_view_of_the_tied_weight(model: DecomposedModel):
    assert model.unembedding.shape == (model.d_model, model.vocab_size)
    assert model.unembedding.data_ptr() == model.target_model.wte.weight.data_ptr()
    assert torch.equal(model.unembedding, model.target_model.wte.weight.T)


def test_forward_without_graph_gives_the_same_values(model: DecomposedModel):
    tokens = random_tokens(2)
    plain, graph = model.component_forward(tokens, graph=False), model.component_forward(tokens)
    for field in fields(Capture):
        if field.name == "inputs":
            continue
        found, expected = getattr(plain, field.name), getattr(graph, field.name)
        pairs = [(found, expected)] if isinstance(found, Tensor) else [(found[key], expected[key]) for key in expected]
        assert all(torch.equal(a, b) for a, b in pairs), field.name
        assert all(a.grad_fn is None for a, _ in pairs), field.name
    assert all(pre.grad_fn is not None for layer, pre in graph.pre.items())


def test_inputs_are_what_the_matrices_read(model: DecomposedModel):
    """With a graph alone; matrices behind one norm read one tensor."""
    assert not model.component_forward(random_tokens(2), graph=False).inputs
    capture = model.component_forward(random_tokens(2))
    assert capture.inputs.keys() == set(model.paths)
    for layer, x in capture.inputs.items():
        torch.testing.assert_close(x @ model.components(layer).V, capture.pre[layer], rtol=1e-12, atol=1e-12)
    assert capture.inputs["1.attn.q"] is capture.inputs["1.attn.k"] is capture.inputs["1.attn.v"]


def test_stream_is_what_the_norms_read(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    norms = [name for name, module in model.target_model.named_modules() if isinstance(module, RMSNorm | LayerNorm)]
    assert sorted(capture.stream) == sorted(norms)
    for path, stream in capture.stream.items():
        assert not stream.requires_grad
        read = model.target_model.get_submodule(path)(stream)
        readers = [layer for layer in model.paths if norm_of(model, layer) == path]
        assert readers or path == "ln_f"
        for layer in readers:
            assert torch.equal(read @ model.components(layer).V, capture.pre[layer])
    assert torch.equal(model.target_model.ln_f(capture.stream["ln_f"]), capture.residual)


def norm_of(model: DecomposedModel, layer: str) -> str | None:
    return next((s.norm.path for s in model.anatomy().sublayers if layer in s.readers), None)


def test_inner_is_what_the_matrices_that_read_the_stream_give(model: DecomposedModel):
    capture = model.component_forward(random_tokens(2))
    assert set(capture.inner) == {layer for layer in model.paths if not layer.endswith((".o", ".down"))}
    for layer, out in capture.inner.items():
        assert not out.requires_grad
        assert torch.equal(out, model.components(layer).write(capture.post[layer]))


def test_inner_is_there_for_matrices_beside_decomposed_ones():
    model = toy_model("LlamaSimple", module_info=[{"module_pattern": "h.0.attn.q_proj", "C": 3}])
    capture = model.component_forward(random_tokens(2))
    assert set(capture.inner) == {"0.attn.q", "0.attn.k", "0.attn.v"}
    read = model.target_model.h[0].rms_1(capture.embed)
    for matrix in "kv":
        expected = model.target_model.h[0].attn.get_submodule(f"{matrix}_proj")(read)
        assert torch.equal(capture.inner[f"0.attn.{matrix}"], expected)
