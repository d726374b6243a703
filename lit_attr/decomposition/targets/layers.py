"""Layers that the target models share."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.anatomy import Mlp, Norm
from lit_attr.errors import RunFormatError
from lit_attr.topology.address import block_address


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that norms compute in: float32, or the input's own where that is wider."""
    return torch.promote_types(dtype, torch.float32)


class RMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)`, computed in at least float32.

    Args:
        width: Size of the last axis.
        eps: Term added to the mean square.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Normalise over the last axis; the result has the input's dtype before the weight multiplies."""
        wide = x.to(compute_dtype(x.dtype))
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def anatomy(self, path: str) -> Norm:
        """This norm, under the path that it has in its model."""
        return Norm(path, self.weight.detach(), bias=None, eps=self.eps, centred=False)


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias` with the biased variance, computed in at least float32.

    The formula is written out rather than left to the fused kernel, which rounds otherwise than the models were trained
    with: causal-importance functions with large pre-sigmoid values show that in the fifth digit.

    Args:
        width: Size of the last axis.
        eps: Term added to the variance.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Normalise over the last axis; the result has the input's dtype before the weight multiplies."""
        wide = x.to(compute_dtype(x.dtype))
        variance = wide.var(-1, keepdim=True, unbiased=False)
        normalised = (wide - wide.mean(-1, keepdim=True)) / torch.sqrt(variance + self.eps)
        return normalised.to(x.dtype) * self.weight + self.bias

    def anatomy(self, path: str) -> Norm:
        """This norm, under the path that it has in its model."""
        return Norm(path, self.weight.detach(), bias=self.bias.detach(), eps=self.eps, centred=True)


class Rotary(nn.Module):
    """Rotary position embedding of queries and keys.

    Args:
        head_width: Width of a head; even.
        base: Base of the geometric series of frequencies.
        n_positions: Number of positions with a rotation of their own; later ones repeat the last.
        adjacent_pairs: Whether pairs (2j, 2j+1) are rotated instead of (j, j + half).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, base: float, n_positions: int, *, adjacent_pairs: bool) -> None:
        super().__init__()
        self.adjacent_pairs = adjacent_pairs
        if head_width % 2:
            raise RunFormatError(f"rotary positions need an even head width, found {head_width}")
        half = head_width // 2
        # The tables are float32 in every precision: they are part of the model's definition.
        frequency = base ** (torch.arange(half, dtype=torch.float32) / half)
        angle = torch.arange(n_positions, dtype=torch.float32)[:, None] / frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(
        self, x: Float[Tensor, "*axes vector width"], positions: Int[Tensor, "*places vector"] | None = None
    ) -> Float[Tensor, "*axes vector width"]:
        """Rotate each vector by the angles of its position.

        Args:
            x: Vectors of one head's width.
            positions: Positions of the vectors; 0, 1, 2... where not given.
        """
        if positions is None:
            positions = torch.arange(x.shape[-2], device=x.device)
        positions = positions.clamp(max=len(self.cos) - 1)
        cos, sin = self.cos[positions].to(x.dtype), self.sin[positions].to(x.dtype)
        first, second = (x[..., 0::2], x[..., 1::2]) if self.adjacent_pairs else x.chunk(2, dim=-1)
        rotated = first * cos - second * sin, second * cos + first * sin
        return torch.stack(rotated, dim=-1).flatten(-2) if self.adjacent_pairs else torch.cat(rotated, dim=-1)


class GeluMLP(nn.Module):
    """`down_proj(gelu(c_fc(x)))` with the tanh form of GELU.

    Args:
        width: Width of the residual stream.
        hidden: Width of the hidden layer.
        bias: Whether the projections have biases.
    """

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden, bias=bias)
        self.gelu = nn.GELU(approximate="tanh")
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch seq width"]:
        """Apply the two layers."""
        return self.down_proj(self.gelu(self.c_fc(x)))

    def anatomy(self, block: int, norm: Norm) -> Mlp:
        """The MLP of a block, behind a norm."""
        up, down = (block_address(block, f"mlp.{matrix}") for matrix in ("up", "down"))
        return Mlp(norm, up, gate=None, out=down, activation=self.gelu)


class SwiGLU(nn.Module):
    """`down_proj(silu(gate_proj(x)) * up_proj(x))`.

    Args:
        width: Width of the residual stream.
        hidden: Width of the hidden layer.
        bias: Whether the projections have biases.
    """

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=bias)
        self.up_proj = nn.Linear(width, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch seq width"]:
        """Apply the gated layer."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    def anatomy(self, block: int, norm: Norm) -> Mlp:
        """The MLP of a block, behind a norm."""
        gate, up, down = (block_address(block, f"glu.{matrix}") for matrix in ("gate", "up", "down"))
        return Mlp(norm, up, gate=gate, out=down, activation=F.silu)
