"""GPT2Simple: a pre-norm transformer with LayerNorm, biases and learned positions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.targets.attention import CausalSelfAttention
from lit_attr.decomposition.targets.layers import GeluMLP, LayerNorm, check_context

_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class GPT2SimpleConfig:
    """The entries of `model_config.yaml`; `flash_attention` does not change what is computed."""

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    flash_attention: bool = True


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


class GPT2Simple(nn.Module):
    """GPT-2 with separate query, key and value matrices; the unembedding is tied to the embedding.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: GPT2SimpleConfig) -> None:
        super().__init__()
        self.config = config
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
        check_context(tokens, self.config.block_size)
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[-1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))
