"""The objective of a decomposition: to be faithful, to reconstruct under masks, and to need few components."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.components import LinearComponents
from tools.demo.masked import upper_leaky

# It keeps the gradient of a small power finite at zero.
_EPS = 1e-12


def faithfulness_error(target: nn.Module, components: Mapping[str, LinearComponents]) -> Tensor:
    """Mean squared difference between the entries of the matrices and of their sums of components.

    Args:
        target: The model whose matrices are decomposed.
        components: Path of each matrix to its components.
    """
    weights = {path: target.get_submodule(path).get_parameter("weight") for path in components}
    squared = [(weights[path].T - part.V @ part.U).square().sum() for path, part in components.items()]
    return torch.stack(squared).sum() / sum(weight.numel() for weight in weights.values())


def kl_to(reference: Float[Tensor, "*axes vocab"], logits: Float[Tensor, "*axes vocab"]) -> Tensor:
    """Mean Kullback-Leibler divergence from the reference's distributions, in nats per position."""
    pointwise = F.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none")
    return pointwise.sum(-1).mean()


def importance_penalty(pre_sigmoid: Mapping[str, Float[Tensor, "batch seq _"]], exponent: float) -> Tensor:
    """Sum over all components of a power of their causal importance, on average over positions.

    Args:
        pre_sigmoid: Causal importances of each matrix, before the sigmoid.
        exponent: Exponent of the power; the smaller it is, the more the penalty counts components instead of adding
            importances.
    """
    powers = [(upper_leaky(x) + _EPS).pow(exponent).sum(-1).mean() for x in pre_sigmoid.values()]
    return torch.stack(powers).sum()
