"""The forward that a decomposition is trained through: a target whose matrices are masked sums of components."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.components import LinearComponents

_LEAK = 0.01


class _MaskedMatrix(nn.Module):
    """Components in a matrix's place; the activations are multiplied with a mask that is set before each forward."""

    mask: Float[Tensor, "batch seq component"]

    def __init__(self, components: LinearComponents) -> None:
        super().__init__()
        self.components = components

    def forward(self, x: Float[Tensor, "batch seq d_in"]) -> Float[Tensor, "batch seq d_out"]:
        return self.components.write(self.components.read(x) * self.mask)


class MaskedTarget(nn.Module):
    """A copy of a target model with components in the place of its matrices.

    Args:
        target: The target model, which is left as it is.
        components: Path of each decomposed matrix to its components.
    """

    def __init__(self, target: nn.Module, components: Mapping[str, LinearComponents]) -> None:
        super().__init__()
        self.model = copy.deepcopy(target)
        self.matrices = {path: _MaskedMatrix(part) for path, part in components.items()}
        for path, matrix in self.matrices.items():
            parent, _, name = path.rpartition(".")
            setattr(self.model.get_submodule(parent), name, matrix)

    def forward(
        self, tokens: Int[Tensor, "batch seq"], masks: Mapping[str, Float[Tensor, "batch seq _"]]
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the next word with each component multiplied by its mask; biases are added whole."""
        for path, matrix in self.matrices.items():
            matrix.mask = masks[path]
        return self.model(tokens)


class _LeakyClamp(torch.autograd.Function):
    """Clamp to [0, 1]; below 0 a small part of the gradient passes where it would raise the value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch's own signature
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        below = torch.where(grad < 0, _LEAK * grad, 0.0)
        return torch.where(x <= 0, below, torch.where(x <= 1, grad, 0.0))


def lower_leaky(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Causal importance as the masks use it: `leaky_hard` with the gradient that it is trained with."""
    return _LeakyClamp.apply(x)


def upper_leaky(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Causal importance as the penalty on it uses it: above 1 it still falls, slowly, towards 1."""
    return torch.where(x > 1, 1 + _LEAK * (x - 1), x.clamp(0, 1))
