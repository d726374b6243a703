"""Building blocks of causal-importance functions. Weights are stored (in, out), as in the checkpoints."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.targets.layers import compute_dtype
from lit_attr.decomposition.widening import Widens, linear
from lit_attr.errors import DataError, RunFormatError


class Linear(Widens):
    """`x @ W + b`.

    Args:
        d_in: Input width.
        d_out: Output width.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(d_in, d_out) * d_in**-0.5)
        self.b = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_out"]:
        """Apply the map."""
        return self.some(x, slice(None))

    def some(self, x: Float[Tensor, "*axes d_in"], columns: slice) -> Float[Tensor, "*axes column"]:
        """Some of the outputs.

        Args:
            x: Vectors.
            columns: Which outputs.
        """
        return linear(x, self.W[:, columns].T) + self.b[columns]


class ParallelLinear(Widens):
    """One linear map for each component: `x[..., c, :] @ W[c] + b[c]`.

    Args:
        n_components: Number of maps.
        d_in: Input width of each.
        d_out: Output width of each.
    """

    def __init__(self, n_components: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(n_components, d_in, d_out) * d_in**-0.5)
        self.b = nn.Parameter(torch.zeros(n_components, d_out))

    def forward(self, x: Float[Tensor, "*axes #component d_in"]) -> Float[Tensor, "*axes component d_out"]:
        """Apply each map to its own input, or all to the same where the component axis has length 1."""
        weight, bias = (parameter.to(compute_dtype(parameter.dtype)) for parameter in (self.W, self.b))
        if x.shape[-2] == 1:
            return torch.einsum("...i,cio->...co", x.squeeze(-2), weight) + bias
        return torch.einsum("...ci,cio->...co", x, weight) + bias


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given widths with exact (erf) GELUs between them."""
    return _interleave([Linear(d_in, d_out) for d_in, d_out in pairwise(widths)])


def parallel_mlp(n_components: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with exact (erf) GELUs between them, with weights of its own for each component."""
    return _interleave([ParallelLinear(n_components, d_in, d_out) for d_in, d_out in pairwise(widths)])


def _interleave(layers: Sequence[nn.Module]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [layer, nn.GELU()]
    return nn.Sequential(*modules[:-1])


def rms_normalise(x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
    """`x / sqrt(mean(x^2) + eps)` in at least float32, with that dtype's machine epsilon as eps."""
    wide = x.to(compute_dtype(x.dtype))
    eps = torch.finfo(wide.dtype).eps
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_normalise` followed by a learned weight.

    Args:
        width: Size of the last axis.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        """Normalise and scale."""
        return rms_normalise(x) * self.weight


class _Rope(nn.Module):
    inv_freq: Tensor

    def __init__(self, head_width: int, base: float) -> None:
        super().__init__()
        exponent = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
        self.register_buffer("inv_freq", base**-exponent)

    def forward(self, x: Tensor) -> Tensor:
        position = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
        # Outside autocast, and in float32 or better: a rounded angle is a wrong angle.
        angle = position[:, None] * self.inv_freq.to(compute_dtype(self.inv_freq.dtype))
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class BidirectionalAttention(nn.Module):
    """Multi-head attention over the whole row, with rotary positions and no biases.

    Args:
        width: Width of the input and the output.
        n_heads: Number of heads.
        max_len: Longest row.
        rope_base: Base of the rotary frequencies.
    """

    def __init__(self, width: int, n_heads: int, max_len: int, rope_base: float) -> None:
        super().__init__()
        if width % n_heads or (width // n_heads) % 2:
            raise RunFormatError(f"CI attention: {n_heads} heads must divide the width {width} into even parts")
        self.max_len = max_len
        self.head_width = width // n_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.rope = _Rope(self.head_width, rope_base)

    def forward(self, x: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch seq width"]:
        """Attend to all positions of the row.

        Raises:
            DataError: If the row is longer than `max_len`.
        """
        if x.shape[-2] > self.max_len:
            raise DataError(
                f"sequences of {x.shape[-2]} tokens are longer than the {self.max_len} that the run's "
                "causal-importance transformer allows (max_len)"
            )
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_width)).transpose(-2, -3)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        z = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v)
        return self.out_proj(z.transpose(-2, -3).flatten(-2))
