"""Forwards in float64 against plain ones: nothing in them is narrower than its input."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.ci import layers as ci_layers
from lit_attr.decomposition.targets.layers import LayerNorm, RMSNorm
from tests.decomposition import plain
from tests.toys import MODEL_OPTIONS, random_tokens, toy_model

WIDE = {"n_embd": 16, "n_layer": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "two groups of heads": ("LlamaSimpleMLP", {}),
    "adjacent pairs": ("LlamaSimpleMLP", {"rotary_adjacent_pairs": True, "rotary_base": 7.0}),
    "halves": ("LlamaSimpleMLP", {"rotary_base": 7.0}),
    "an ignored rotary_dim": ("LlamaSimpleMLP", {"rotary_dim": 2, "flash_attention": False}),
    "biases": ("LlamaSimpleMLP", {"attn_bias": True, "mlp_bias": True}),
    "one group of heads": ("LlamaSimpleMLP", {"n_key_value_heads": 1}),
    "every head its own group": ("LlamaSimpleMLP", {"n_key_value_heads": 4}),
    "positions that end early": ("LlamaSimpleMLP", {"n_ctx": 3}),
    "a large epsilon": ("LlamaSimpleMLP", {"rms_norm_eps": 0.5}),
    "gates": ("LlamaSimple", {"mlp_bias": True}),
    "learned positions": ("GPT2Simple", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_target_forward_is_the_plain_one(name: str):
    architecture, changes = CASES[name]
    options = MODEL_OPTIONS[architecture] | WIDE | changes
    model, tokens = toy_model(architecture, model_options=options), random_tokens(3)
    expected, _ = plain.target_forward(model.state_dict(), options, tokens)
    torch.testing.assert_close(model.target_model(tokens), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_component_forward_is_the_plain_one(name: str):
    architecture, changes = CASES[name]
    options = MODEL_OPTIONS[architecture] | WIDE | changes
    model, tokens = toy_model(architecture, model_options=options), random_tokens(3)
    state = model.state_dict()
    capture = model.component_forward(tokens)
    expected, inputs = plain.target_forward(state, options, tokens, components=True)
    torch.testing.assert_close(capture.logits, expected, rtol=0, atol=1e-10)
    for layer, path in model.paths.items():
        pre = inputs[path] @ state[f"_components.{path.replace('.', '-')}.V"]
        torch.testing.assert_close(capture.pre[layer].detach(), pre, rtol=0, atol=1e-10)


def affine(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return module.to(dtype).requires_grad_(False)


NORMS: dict[str, tuple[Callable[[torch.dtype], Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "RMSNorm": (
        lambda dtype: affine(RMSNorm(8, 1e-6), dtype),
        lambda x: plain.rms_norm(x, 1e-6, affine(RMSNorm(8, 1e-6), torch.float64).weight),
    ),
    "LayerNorm": (
        lambda dtype: affine(LayerNorm(8, 1e-5), dtype),
        lambda x: plain.layer_norm(x, *affine(LayerNorm(8, 1e-5), torch.float64).parameters()),
    ),
    "RMSNorm of a CI function": (
        lambda dtype: affine(ci_layers.RMSNorm(8), dtype),
        lambda x: plain.rms_norm(x, 2.220446049250313e-16, affine(ci_layers.RMSNorm(8), torch.float64).weight),
    ),
    "rms_normalise": (lambda dtype: ci_layers.rms_normalise, lambda x: plain.rms_norm(x, 2.220446049250313e-16)),
}


def some_rows(scale: float = 1.0) -> Tensor:
    return torch.randn(5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_norm_of_float64_is_exact(name: str, scale: float):
    build, expected = NORMS[name]
    torch.testing.assert_close(
        build(torch.float64)(some_rows(scale)), expected(some_rows(scale)), rtol=1e-14, atol=1e-14
    )


@pytest.mark.parametrize("name", NORMS)
def test_norm_of_float64_is_not_that_of_float32(name: str):
    build, _ = NORMS[name]
    difference = build(torch.float64)(some_rows()) - build(torch.float32)(some_rows().float())
    assert 1e-9 < difference.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["RMSNorm of a CI function", "rms_normalise"])
def test_epsilon_of_a_ci_norm_is_that_of_the_computing_type(name: str):
    build, _ = NORMS[name]
    tiny = torch.full((1, 1, 8), 1e-4)
    weight = affine(ci_layers.RMSNorm(8), torch.float32).weight if "RMSNorm" in name else torch.ones(8)
    expected = weight * (1e-8 / (1e-8 + 1.1920929e-07)) ** 0.5
    torch.testing.assert_close(build(torch.float32)(tiny)[0, 0], expected)
    torch.testing.assert_close(build(torch.bfloat16)(tiny.bfloat16())[0, 0].float(), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", NORMS)
def test_norm_of_float16_computes_in_float32(name: str):
    rows = torch.tensor([[[300.0, -400, 500, -600, 300, -400, 500, 600]]]).half()  # the squares overflow float16
    build, expected = NORMS[name]
    found = build(torch.float16)(rows)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected(rows.double()), rtol=0.004, atol=0.001)
