"""Figures that say how good a decomposition is."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lit_attr.decomposition.model import DecomposedModel
from tools.demo.masked import MaskedTarget
from tools.demo.objective import faithfulness_error, kl_to
from tools.demo.target import next_word_loss


@dataclass(frozen=True)
class Figures:
    """How good a decomposition is, on some stories.

    Attributes:
        target_cross_entropy: Mean cross-entropy of the target on each next word, in nats.
        faithfulness: Mean squared difference between the entries of the matrices and of their sums of components.
        kl_all_ones: Divergence of the forward with all components on from the target, in nats per position.
        kl_ci: Divergence of the forward with each component multiplied by its causal importance, in nats per position.
        l0: Mean number of components of all matrices with a causal importance above zero at a position.
        l0_by_layer: Canonical layer to the part of `l0` that its matrix contributes.
        n_components: Number of components of all matrices.
        n_alive: Number of components whose causal importance is above zero anywhere.
    """

    target_cross_entropy: float
    faithfulness: float
    kl_all_ones: float
    kl_ci: float
    l0: float
    l0_by_layer: dict[str, float]
    n_components: int
    n_alive: int


@torch.no_grad()
def measure(model: DecomposedModel, tokens: Int[Tensor, "story seq"]) -> Figures:
    """Measure a decomposition.

    Args:
        model: The decomposition with its target.
        tokens: Stories.
    """
    target = model.target_model
    components = {path: model.components(layer) for layer, path in model.paths.items()}
    masked = MaskedTarget(target, components)
    importances = model.causal_importance(tokens)
    by_path = {path: importances[layer] for layer, path in model.paths.items()}
    reference = target(tokens)
    active = {layer: (values > 0).sum(-1).float().mean().item() for layer, values in importances.items()}
    return Figures(
        target_cross_entropy=next_word_loss(target, tokens).item(),
        faithfulness=faithfulness_error(target, components).item(),
        kl_all_ones=kl_to(reference, masked(tokens, {p: torch.ones_like(ci) for p, ci in by_path.items()})).item(),
        kl_ci=kl_to(reference, masked(tokens, by_path)).item(),
        l0=sum(active.values()),
        l0_by_layer=active,
        n_components=sum(model.n_components.values()),
        n_alive=sum(int((values > 0).any(0).any(0).sum()) for values in importances.values()),
    )
