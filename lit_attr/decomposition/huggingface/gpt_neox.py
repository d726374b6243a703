"""GPT-NeoX and Pythia: LayerNorm, rotary positions on a part of each head, attention and MLP side by side."""

from typing import Any

import torch

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp, Projection
from lit_attr.decomposition.huggingface.gpt2 import layer_norm
from lit_attr.decomposition.huggingface.rotary import HuggingFaceRotary
from lit_attr.topology.address import block_address


def gpt_neox_anatomy(model: Any) -> Anatomy:  # noqa: ANN401 - a class of an optional library
    """The anatomy of a `GPTNeoXForCausalLM`: what lies between its matrices.

    Raises:
        UnsupportedModelError: If its rotary positions are of an unknown type.
    """
    rotary = HuggingFaceRotary(model.gpt_neox.rotary_emb)
    stages: list[tuple[Attention | Mlp, ...]] = []
    for block, layer in enumerate(model.gpt_neox.layers):
        path, attention = f"gpt_neox.layers.{block}", layer.attention
        width = attention.head_size
        # The outputs are, head by head, a query, a key and a value.
        heads = torch.arange(3 * model.config.hidden_size, device=model.device).view(-1, 3, width)
        fused = block_address(block, "attn_fused.qkv")
        query, key, value = (Projection(fused, heads[:, part].flatten()) for part in range(3))
        attend = Attention(
            layer_norm(layer.input_layernorm, f"{path}.input_layernorm"),
            query,
            key,
            value,
            block_address(block, "attn_fused.o"),
            n_heads=len(heads),
            n_groups=1,
            head_width=width,
            scale=attention.scaling,
            rotate=rotary,
        )
        up, down = (block_address(block, f"mlp.{name}") for name in ("up", "down"))
        norm = layer_norm(layer.post_attention_layernorm, f"{path}.post_attention_layernorm")
        mlp = Mlp(norm, up, None, down, layer.mlp.act)
        stages += [(attend, mlp)] if layer.use_parallel_residual else [(attend,), (mlp,)]
    return Anatomy(tuple(stages), layer_norm(model.gpt_neox.final_layer_norm, "gpt_neox.final_layer_norm"))
