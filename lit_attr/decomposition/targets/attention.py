"""Causal self-attention of the target models."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.anatomy import Attention, Norm, Projection
from lit_attr.decomposition.targets.layers import Rotary, compute_dtype
from lit_attr.errors import RunFormatError
from lit_attr.topology.address import block_address


class _CausalAttention(torch.autograd.Function):
    """`softmax(q k^T / sqrt(width)) v` over the same and earlier positions.

    The value comes from the fused kernel, with which target models were trained and decomposed. Fused kernels have no
    batching rule for their gradient, which engines need for many targets at once: so the gradient is written out.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401 - torch's own signature
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        dtype = compute_dtype(grad_z.dtype)
        q, k, v = (saved.to(dtype) for saved in ctx.saved_tensors)
        scale = q.shape[-1] ** -0.5
        future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        pattern = (q @ k.transpose(-1, -2) * scale).masked_fill(future, float("-inf")).softmax(-1)
        grad_z = grad_z.to(dtype)
        grad_v = pattern.transpose(-1, -2) @ grad_z
        grad_pattern = grad_z @ v.transpose(-1, -2)
        grad_scores = pattern * (grad_pattern - (grad_pattern * pattern).sum(-1, keepdim=True)) * scale
        gradients = grad_scores @ k, grad_scores.transpose(-1, -2) @ q, grad_v
        grad_q, grad_k, grad_v = (g.to(s.dtype) for g, s in zip(gradients, ctx.saved_tensors, strict=True))
        return grad_q, grad_k, grad_v


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, with grouped keys and values and rotary positions where asked for.

    Args:
        width: Width of the residual stream.
        n_heads: Number of query heads.
        n_kv_heads: Number of key and value heads; query head j uses head `j // (n_heads / n_kv_heads)`.
        bias: Whether the projections have biases.
        fused: Whether there is one `c_attn` matrix instead of `q_proj`, `k_proj`, `v_proj`.
    """

    def __init__(self, width: int, n_heads: int, n_kv_heads: int, *, bias: bool, fused: bool = False) -> None:
        super().__init__()
        if width % n_heads or n_heads % n_kv_heads:
            raise RunFormatError(
                f"n_head ({n_heads}) must divide n_embd ({width}), and n_key_value_heads ({n_kv_heads}) n_head"
            )
        self.n_heads = n_heads
        self.head_width = width // n_heads
        self.n_groups = n_heads // n_kv_heads
        kv_width = n_kv_heads * self.head_width
        self.fused = fused
        if fused:
            self.c_attn = nn.Linear(width, width + 2 * kv_width, bias=bias)
            self.split = [width, kv_width, kv_width]
        else:
            self.q_proj = nn.Linear(width, width, bias=bias)
            self.k_proj = nn.Linear(width, kv_width, bias=bias)
            self.v_proj = nn.Linear(width, kv_width, bias=bias)
        self.o_proj = nn.Linear(width, width, bias=bias)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_width)).transpose(-2, -3)

    def forward(
        self, x: Float[Tensor, "batch seq width"], rotary: Rotary | None = None
    ) -> Float[Tensor, "batch seq width"]:
        """Attend to the same and earlier positions; queries and keys are rotated if `rotary` is given."""
        projected = (
            self.c_attn(x).split(self.split, -1) if self.fused else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        q, k, v = (self._heads(part) for part in projected)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        if self.n_groups > 1:
            k, v = k.repeat_interleave(self.n_groups, -3), v.repeat_interleave(self.n_groups, -3)
        z: Tensor = _CausalAttention.apply(q, k, v)
        return self.o_proj(z.transpose(-2, -3).flatten(-2))

    def anatomy(self, block: int, norm: Norm, rotary: Rotary | None = None) -> Attention:
        """The attention of a block, behind a norm."""
        query, key, value = (Projection(block_address(block, f"attn.{matrix}")) for matrix in "qkv")
        return Attention(
            norm,
            query,
            key,
            value,
            block_address(block, "attn.o"),
            n_heads=self.n_heads,
            n_groups=self.n_groups,
            head_width=self.head_width,
            scale=self.head_width**-0.5,
            rotate=rotary,
        )
