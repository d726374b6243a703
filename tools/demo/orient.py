"""Orienting components: a sign for each.

A component is the product of a direction that it reads and one that it writes; turning both around leaves it as it is,
but turns the sign of its activation and of every attribution *to* it. A product of attributions along a chain means
something only if the components between were given a sign, and the natural one makes a component's activation positive
where it matters.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.decomposition.model import DecomposedModel


@torch.no_grad()
def orient_(model: DecomposedModel, tokens: Int[Tensor, "story seq"]) -> None:
    """Turn components around so that their activations, weighted with causal importance, do not sum to less than zero.

    The causal importances must not be computed from activations, as those of type `mlp` are.

    Args:
        model: The decomposition, which is changed in place; what it computes stays the same.
        tokens: Stories to sum over.
    """
    importances = model.causal_importance(tokens)
    activations = model.component_forward(tokens).post
    for layer, ci in importances.items():
        components = model.components(layer)
        sign = torch.where((ci * activations[layer]).sum((0, 1)) < 0, -1.0, 1.0)
        components.V.mul_(sign)
        components.U.mul_(sign[:, None])
