"""Tiny models of `transformers` with random weights, and decomposed models over them."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import nn

from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.huggingface.target import as_target
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.topology.paths import path_table

VOCAB, CONTEXT = 11, 70
_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_SHAPE = {
    **{"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": CONTEXT, **_ENDS},
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_GPT2 = {
    **{"vocab_size": VOCAB, "n_embd": 16, "n_inner": 12, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    **_ENDS,
}
_LAYERS = ["full_attention", "sliding_attention"]
_YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}

# Name to class and the entries of its configuration.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", _GPT2),
    "gpt2, scores by layer": ("GPT2LMHeadModel", {**_GPT2, "scale_attn_by_inverse_layer_idx": True}),
    "llama": ("LlamaForCausalLM", _GROUPED),
    "llama, biases, wide heads": (
        "LlamaForCausalLM",
        {**_GROUPED, "attention_bias": True, "mlp_bias": True, "head_dim": 6, "hidden_act": "gelu"},
    ),
    "llama, yarn": ("LlamaForCausalLM", {**_GROUPED, "rope_parameters": _YARN}),
    "mistral, window": ("MistralForCausalLM", {**_GROUPED, "sliding_window": 3}),
    "mistral": ("MistralForCausalLM", {**_GROUPED, "sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED),
    "qwen2, windows": (
        "Qwen2ForCausalLM",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 2, "layer_types": _LAYERS},
    ),
    "qwen3": ("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 6}),
    "gpt-neox": ("GPTNeoXForCausalLM", {**_SHAPE, "rotary_pct": 0.5}),
    "gpt-neox, serial": ("GPTNeoXForCausalLM", {**_SHAPE, "rotary_pct": 1.0, "use_parallel_residual": False}),
}


def huggingface_config(variant: str) -> Any:
    """The configuration of a variant."""
    architecture, options = VARIANTS[variant]
    config = getattr(transformers, architecture).config_class(**options, architectures=[architecture])
    config._attn_implementation = "eager"
    return config


def huggingface_target(variant: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> TargetModel:
    """A target model whose every weight is random, norms and biases included."""
    architecture, _ = VARIANTS[variant]
    model = getattr(transformers, architecture)(huggingface_config(variant)).to(dtype)
    target = as_target(model, path_table(architecture))
    randomise(target, seed)
    if dtype == torch.float64:
        _compute_in_float64(target)
    return target


def randomise(module: nn.Module, seed: int) -> None:
    """Draw every parameter anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.5)


def _compute_in_float64(target: TargetModel) -> None:
    """The library's norms and softmaxes ask for `torch.float32` whatever the model is in."""
    forward = target.forward

    def wide(tokens: torch.Tensor) -> torch.Tensor:
        with patch.object(torch, "float32", torch.float64):
            return forward(tokens)

    target.forward = wide  # type: ignore[method-assign]


def huggingface_model(
    variant: str, dtype: torch.dtype = torch.float64, seed: int = 0, patterns: Iterable[str] = ("*",)
) -> DecomposedModel:
    """A target with random components in place of the matrices whose addresses match."""
    architecture, _ = VARIANTS[variant]
    target, table = huggingface_target(variant, dtype, seed), path_table(architecture)
    components = {}
    for block in range(2):
        for number, matrix in enumerate(table.blocks):
            path = table.path(f"{block}.{matrix}")
            if any(fnmatchcase(f"{block}.{matrix}", pattern) for pattern in patterns):
                components[path] = _components(target.get_submodule(path), 3 + number)
    config = RunConfig(architecture, None, (), {}, "hard", "continuous")
    model = DecomposedModel(target, table, components, RandomCi(components), config, VOCAB, CONTEXT).to(dtype)
    randomise(model._components, seed + 1)
    for part in components.values():
        if part.bias is not None:
            part.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))
    return model


class RandomCi(nn.Module):
    """Causal importances that are linear in a matrix's input, by random weights."""

    def __init__(self, components: Mapping[str, LinearComponents]) -> None:
        super().__init__()
        self.paths = list(components)
        self.weights = nn.ParameterList(torch.empty(part.V.shape) for part in components.values())
        randomise(self, 5)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        for path, weight in zip(self.paths, self.weights, strict=True):
            yield path, inputs[path] @ weight


def _components(matrix: nn.Module, count: int) -> LinearComponents:
    if isinstance(matrix, nn.Linear):
        return LinearComponents(matrix.in_features, matrix.out_features, count, bias=matrix.bias is not None)
    d_in, d_out = matrix.get_parameter("weight").shape
    return LinearComponents(d_in, d_out, count, bias=True)
