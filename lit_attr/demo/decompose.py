"""Training a decomposition: components that sum to the target's matrices, few of which matter at any position."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.components import LinearComponents
from lit_attr.demo.masked import MaskedTarget, lower_leaky, upper_leaky
from lit_attr.demo.target import cosine

_EPS = 1e-12


@dataclass(frozen=True)
class DecompositionTraining:
    """How a decomposition is trained.

    Attributes:
        steps: Optimisation steps.
        batch_size: Stories in a step.
        learning_rate: At its height.
        faithfulness_steps: Steps before the others, on the faithfulness alone.
        faithfulness: Coefficient of the mean squared error of the matrices.
        importance: Coefficient of the penalty on causal importances, once it is fully there.
        anneal_end: Part of the steps after which that is so; it grows linearly from zero.
        p_start: Exponent of the penalty at the first step.
        p_end: The same at `anneal_end`; the smaller, the more it counts components rather than sums importances.
    """

    steps: int = 6000
    batch_size: int = 32
    learning_rate: float = 2e-3
    faithfulness_steps: int = 300
    faithfulness: float = 1e3
    importance: float = 1e-3
    anneal_end: float = 0.6
    p_start: float = 1.0
    p_end: float = 0.5


def faithfulness_error(target: nn.Module, components: Mapping[str, LinearComponents]) -> Tensor:
    """Mean squared difference between the entries of the matrices and of their sums of components."""
    squared, count = torch.zeros(()), 0
    for path, part in components.items():
        weight = target.get_submodule(path).get_parameter("weight")
        squared = squared + (weight.T - part.V @ part.U).square().sum()
        count += weight.numel()
    return squared / count


def kl_to(reference: Float[Tensor, "*axes vocab"], logits: Float[Tensor, "*axes vocab"]) -> Tensor:
    """Mean Kullback-Leibler divergence of the distributions from the reference's, in nats per position."""
    log_p, log_q = reference.log_softmax(-1), logits.log_softmax(-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1).mean()
