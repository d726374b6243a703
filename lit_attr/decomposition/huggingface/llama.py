"""Llama, Mistral, Qwen2 and Qwen3: RMSNorm, rotary positions, grouped queries, gated MLPs."""

from typing import Any

from torch import nn

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp, Norm, Projection
from lit_attr.decomposition.huggingface.rotary import HuggingFaceRotary
from lit_attr.topology.address import block_address


def llama_anatomy(model: Any) -> Anatomy:  # noqa: ANN401 - classes of an optional library
    """The anatomy of a model of the Llama shape: what lies between its matrices.

    Args:
        model: A `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` or `Qwen3ForCausalLM`.

    Raises:
        UnsupportedModelError: If its rotary positions are of an unknown type.
    """
    rotary = HuggingFaceRotary(model.model.rotary_emb)
    sublayers: list[Attention | Mlp] = []
    for block, layer in enumerate(model.model.layers):
        path = f"model.layers.{block}"
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = (
            Projection(block_address(block, f"attn.{name}"), norm=_head_norm(attention, name, path)) for name in "qkv"
        )
        sublayers.append(
            Attention(
                _norm(layer.input_layernorm, f"{path}.input_layernorm"),
                query,
                key,
                value,
                block_address(block, "attn.o"),
                n_heads=model.config.num_attention_heads,
                n_groups=attention.num_key_value_groups,
                head_width=attention.head_dim,
                scale=attention.scaling,
                rotate=rotary,
                window=_window(model.config, attention),
            )
        )
        gate, up, down = (block_address(block, f"glu.{name}") for name in ("gate", "up", "down"))
        norm = _norm(layer.post_attention_layernorm, f"{path}.post_attention_layernorm")
        sublayers.append(Mlp(norm, up, gate, down, mlp.act_fn))
    return Anatomy.serial(sublayers, _norm(model.model.norm, "model.norm"))


def _norm(module: Any, path: str) -> Norm:  # noqa: ANN401
    return Norm(path, module.weight.detach(), bias=None, eps=module.variance_epsilon, centred=False)


def _head_norm(attention: nn.Module, name: str, block: str) -> Norm | None:
    module = getattr(attention, f"{name}_norm", None)
    return module and _norm(module, f"{block}.self_attn.{name}_norm")


def _window(config: Any, attention: Any) -> int | None:  # noqa: ANN401
    """How far a query sees: by layer in Qwen, everywhere in Mistral."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return config.sliding_window if config.model_type == "mistral" else None
