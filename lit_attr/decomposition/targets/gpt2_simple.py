"""GPT2Simple: a pre-norm transformer with LayerNorm, biases and learned positions."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp
from lit_attr.decomposition.targets.attention import CausalSelfAttention
from lit_attr.decomposition.targets.layers import GeluMLP, LayerNorm
from lit_attr.decomposition.targets.target_model import ConfiguredTarget, TargetConfig

_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class GPT2SimpleConfig(TargetConfig):
    """The entries of `model_config.yaml`."""


class _Block(nn.Module):
    def __init__(self, config: GPT2SimpleConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, _LAYER_NORM_EPS)
        self.attn = CausalSelfAttention(config.n_embd, config.n_head, n_kv_heads=config.n_head, bias=True)
        self.ln_2 = LayerNorm(config.n_embd, _LAYER_NORM_EPS)
        self.mlp = GeluMLP(config.n_embd, 4 * config.n_embd, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def anatomy(self, index: int) -> tuple[Attention, Mlp]:
        return (
            self.attn.anatomy(index, self.ln_1.anatomy(f"h.{index}.ln_1")),
            self.mlp.anatomy(index, self.ln_2.anatomy(f"h.{index}.ln_2")),
        )


class GPT2Simple(ConfiguredTarget):
    """GPT-2 with separate query, key and value matrices; the unembedding is tied to the embedding.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: GPT2SimpleConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(_Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, _LAYER_NORM_EPS)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the next token.

        Raises:
            DataError: If a sequence is longer than the context.
        """
        self.check_context(tokens)
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[-1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def anatomy(self) -> Anatomy:
        """The model's anatomy: what lies between its matrices."""
        blocks = cast("list[_Block]", self.h)
        sublayers = [sublayer for index, block in enumerate(blocks) for sublayer in block.anatomy(index)]
        return Anatomy.serial(sublayers, self.ln_f.anatomy("ln_f"))
