"""Matrices that are kept in bfloat16, and widened for each product alone: half the memory, and the same numbers."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional as F

from lit_attr.decomposition.targets.layers import compute_dtype

# Numbers of a matrix that are looked at at once.
_CHUNK = 1 << 22


class Widens(nn.Module):
    """A module whose own matrices may be kept in bfloat16, since it widens them for what it computes."""


def linear(
    x: Float[Tensor, "*axes d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "*axes d_out"]:
    """`x @ weight.T + bias`; a graph keeps the weight as it is, not widened.

    Args:
        x: Vectors.
        weight: The matrix.
        bias: Term added to the product, in the dtype of `x`.
    """
    if weight.dtype == x.dtype or _is_autocast(x):
        return F.linear(x, weight, bias)
    return _WidenedLinear.apply(x, weight, bias)


def _is_autocast(x: Tensor) -> bool:
    return is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)


class _WidenedLinear(torch.autograd.Function):
    """`linear` with a weight that has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's own
        (weight,) = ctx.saved_tensors
        return linear(gradient, weight.T), None, None


class WideningLinear(Widens, nn.Linear):
    """A linear layer that widens its weight."""

    def forward(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_out"]:
        """Apply the map."""
        return linear(x, self.weight, self.bias)


class WideningEmbedding(Widens, nn.Embedding):
    """An embedding that widens the rows that are looked up."""

    def forward(self, tokens: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes d_model"]:
        """Look up the rows of token ids."""
        rows = super().forward(tokens)
        return rows.to(compute_dtype(rows.dtype))


_WIDENING: dict[type[nn.Module], type[Widens]] = {nn.Linear: WideningLinear, nn.Embedding: WideningEmbedding}


def keep_bfloat16_(model: nn.Module, is_bfloat16: Callable[[Tensor], bool] | None = None) -> None:
    """Keep matrices in bfloat16 whose every number is one, as all are that were stored in it.

    What the model computes stays the same to the last bit: other parameters and all activations keep their dtype.
    Matrices of modules of unknown classes stay as they are. The whole model may still be widened, by `double`.

    Args:
        model: Frozen model in float32, on the CPU; changed in place.
        is_bfloat16: Whether every number of a matrix is one, for a model on the meta device, which has no numbers; by
            default they are looked at.
    """
    is_kept = is_bfloat16 or _is_bfloat16
    owners: dict[int, list[tuple[nn.Module, nn.Parameter]]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, parameter))
    for places in owners.values():
        known = all(isinstance(module, Widens) or type(module) in _WIDENING for module, _ in places)
        parameter = places[0][1]
        if known and parameter.ndim > 1 and parameter.dtype == torch.float32 and is_kept(parameter.data):
            parameter.data = parameter.data.bfloat16()
            for module, _ in places:
                module.__class__ = _WIDENING.get(type(module), type(module))


def _is_bfloat16(matrix: Tensor) -> bool:
    """Whether every number is one; of nearly all matrices that are not, the first few are not."""
    pieces = chain([matrix[:1]], matrix.split(max(_CHUNK // matrix[0].numel(), 1)))
    return all(piece.equal(piece.bfloat16().float()) for piece in pieces)
