"""GPT-2 of `transformers`: LayerNorm, learned positions, one matrix for queries, keys and values."""

from typing import Any

import torch

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp, Norm, Projection
from lit_attr.topology.address import block_address


def gpt2_anatomy(model: Any) -> Anatomy:  # noqa: ANN401 - a class of an optional library
    """The anatomy of a `GPT2LMHeadModel`: what lies between its matrices."""
    sublayers: list[Attention | Mlp] = []
    for block, layer in enumerate(model.transformer.h):
        path, attention = f"transformer.h.{block}", layer.attn
        fused = block_address(block, "attn_fused.qkv")
        columns = torch.arange(3 * attention.embed_dim, device=model.device).chunk(3)
        query, key, value = (Projection(fused, part) for part in columns)
        sublayers.append(
            Attention(
                layer_norm(layer.ln_1, f"{path}.ln_1"),
                query,
                key,
                value,
                block_address(block, "attn_fused.o"),
                n_heads=attention.num_heads,
                n_groups=1,
                head_width=attention.head_dim,
                scale=attention.scaling,
            )
        )
        up, down = (block_address(block, f"mlp.{name}") for name in ("up", "down"))
        sublayers.append(Mlp(layer_norm(layer.ln_2, f"{path}.ln_2"), up, None, down, layer.mlp.act))
    return Anatomy.serial(sublayers, layer_norm(model.transformer.ln_f, "transformer.ln_f"))


def layer_norm(module: torch.nn.LayerNorm, path: str) -> Norm:
    """The anatomy of a LayerNorm, under the path that it has in its model."""
    bias = None if module.bias is None else module.bias.detach()
    return Norm(path, module.weight.detach(), bias, module.eps, centred=True)
