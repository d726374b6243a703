"""LlamaSimpleMLP and LlamaSimple: pre-norm transformers with RMSNorm, rotary positions and grouped queries."""

from dataclasses import dataclass
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy, Attention, Mlp
from lit_attr.decomposition.targets.attention import CausalSelfAttention
from lit_attr.decomposition.targets.layers import GeluMLP, RMSNorm, Rotary, SwiGLU
from lit_attr.decomposition.targets.target_model import ConfiguredTarget, TargetConfig


@dataclass(frozen=True)
class LlamaSimpleMLPConfig(TargetConfig):
    """The entries of `model_config.yaml`; `rotary_dim` does not change what is computed."""

    n_intermediate: int = 3072
    mlp_bias: bool = False
    attn_bias: bool = False
    rotary_adjacent_pairs: bool = False
    rotary_dim: int = 64
    rotary_base: float = 10000.0
    n_ctx: int = 1024
    n_key_value_heads: int = 3
    use_grouped_query_attention: bool = True
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True)
class LlamaSimpleConfig(LlamaSimpleMLPConfig):
    """The entries of `model_config.yaml` for a gated MLP, whose hidden layer is narrower by default."""

    n_intermediate: int = 2048


class _Block(nn.Module):
    def __init__(self, config: LlamaSimpleMLPConfig, mlp: type[GeluMLP] | type[SwiGLU]) -> None:
        super().__init__()
        grouped = config.use_grouped_query_attention
        self.rms_1 = RMSNorm(config.n_embd, config.rms_norm_eps)
        self.attn = CausalSelfAttention(
            config.n_embd,
            config.n_head,
            n_kv_heads=config.n_key_value_heads if grouped else config.n_head,
            bias=config.attn_bias,
            fused=not grouped,
        )
        self.rms_2 = RMSNorm(config.n_embd, config.rms_norm_eps)
        self.mlp = mlp(config.n_embd, config.n_intermediate, bias=config.mlp_bias)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = x + self.attn(self.rms_1(x), rotary)
        return x + self.mlp(self.rms_2(x))

    def anatomy(self, index: int, rotary: Rotary) -> tuple[Attention, Mlp]:
        return (
            self.attn.anatomy(index, self.rms_1.anatomy(f"h.{index}.rms_1"), rotary),
            self.mlp.anatomy(index, self.rms_2.anatomy(f"h.{index}.rms_2")),
        )


class LlamaSimpleMLP(ConfiguredTarget):
    """Llama-style transformer with a plain GELU MLP; the unembedding is tied to the embedding.

    Args:
        config: Shape of the model.
    """

    mlp: type[GeluMLP] | type[SwiGLU] = GeluMLP

    def __init__(self, config: LlamaSimpleMLPConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(_Block(config, self.mlp) for _ in range(config.n_layer))
        self.ln_f = RMSNorm(config.n_embd, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight
        # One table for all blocks, and outside of them, so that patterns such as `h.*.attn.*` match matrices alone.
        self.rotary = Rotary(
            config.n_embd // config.n_head,
            config.rotary_base,
            config.n_ctx,
            adjacent_pairs=config.rotary_adjacent_pairs,
        )

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the next token.

        Raises:
            DataError: If a sequence is longer than the context.
        """
        self.check_context(tokens)
        x = self.wte(tokens)
        for block in self.h:
            x = block(x, self.rotary)
        return self.lm_head(self.ln_f(x))

    def anatomy(self) -> Anatomy:
        """The model's anatomy: what lies between its matrices."""
        blocks = cast("list[_Block]", self.h)
        sublayers = [s for index, block in enumerate(blocks) for s in block.anatomy(index, self.rotary)]
        return Anatomy.serial(sublayers, self.ln_f.anatomy("ln_f"))


class LlamaSimple(LlamaSimpleMLP):
    """Llama-style transformer with a SwiGLU MLP; the unembedding is tied to the embedding."""

    mlp = SwiGLU
