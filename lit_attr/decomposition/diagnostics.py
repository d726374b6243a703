"""How well the components stand for the model: what must hold for attributions between them to mean anything."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.widening import linear

# Above it more than half of a matrix's squared norm is missing from the sum of its components, or should not be in it.
# A trained run may be far from a matrix in directions that its inputs do not have: up to 0.53 in runs whose predictions
# are off by 0.015 nats. Components that are lost, doubled, of the other sign or of another matrix are off by 1 or more.
MAX_WEIGHT_ERROR = 0.7
# In nats a token. Sound runs stay below 0.02; losing the components of one matrix costs 0.1 to 13.
MAX_KL = 0.1
# Numbers of one temporary, 32 MiB in float64.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Diagnostics:
    """How well a decomposition stands for its model, on some sequences.

    Attributes:
        n_tokens: Number of tokens that were looked at.
        mean_ci: Mean causal importance, over tokens and all components.
        dead_share: Share of components whose causal importance is zero at all tokens.
        weight_error: Largest error of a matrix, `|W - V U| / |W|` in Frobenius norms: how far the sum of its components
            is from it.
        worst_matrix: Layer with that error.
        kl: Kullback-Leibler divergence of the forward with all components on from the target's, `KL(target ||
            components)`: mean over tokens, in nats.
    """

    n_tokens: int
    mean_ci: float
    dead_share: float
    weight_error: float
    worst_matrix: str
    kl: float

    def __str__(self) -> str:
        return (
            f"mean CI of the first {self.n_tokens} tokens {self.mean_ci:.3g}, {self.dead_share:.0%} of components have "
            f"none; with all components on, predictions are off by {self.kl:.2g} nats a token (KL divergence), "
            f"matrices by at most {self.weight_error:.2g} of their norm ({self.worst_matrix})"
        )

    def warnings(self) -> list[str]:
        """What is wrong with the decomposition, one sentence for each figure out of bounds; empty for a sound one."""
        problems = []
        if self.dead_share == 1:
            problems.append(
                f"every causal importance is zero on the first {self.n_tokens} tokens: components then get no "
                "attributions as sources"
            )
        # Written so that a figure that is no number is out of bounds.
        if not self.weight_error <= MAX_WEIGHT_ERROR:
            problems.append(
                f"the components of {self.worst_matrix} do not sum to its matrix: the relative error is "
                f"{self.weight_error:.3g}, expected at most {MAX_WEIGHT_ERROR}"
            )
        if not self.kl <= MAX_KL:
            problems.append(
                f"the model with all components on, which is what is attributed, is not the model: their predictions "
                f"differ by {self.kl:.3g} nats a token (KL divergence), expected at most {MAX_KL}"
            )
        return problems

    def entries(self) -> dict[str, Any]:
        """The figures in plain types; None for one that is no finite number."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@torch.no_grad()
def diagnose(model: DecomposedModel, tokens: Int[Tensor, "batch seq"], batch_id: int = 0) -> Diagnostics:
    """Measure how well a decomposition stands for its model.

    Sequences are taken one by one, in the precision of the weights: a forward of the target and one with all components
    on for each.

    Args:
        model: Decomposed model.
        tokens: Token ids, on the device of the model; a few sequences suffice.
        batch_id: Global id of the batch that these are the first rows of; seeds the draws of binomial sampling.
    """
    total_ci = kl = 0.0
    fired: dict[str, Tensor] = {}
    with torch.autocast(tokens.device.type, enabled=False):
        for row, sequence in enumerate(tokens.split(1)):
            logits, ci = model.target_forward(sequence, batch_id, row)
            for layer, values in ci.items():
                total_ci += float(values.sum(dtype=torch.float64))
                here = values.ne(0).any(0).any(0)
                fired[layer] = fired[layer] | here if layer in fired else here
            kl += _kl(logits[0], model.component_forward(sequence, graph=False).logits[0])
        errors = {layer: _weight_error(model, layer) for layer in model.paths}
    masks = torch.cat(list(fired.values()))
    # A matrix that is no number counts as the worst.
    worst = max(errors, key=lambda layer: math.inf if math.isnan(errors[layer]) else errors[layer])
    return Diagnostics(
        n_tokens=tokens.numel(),
        mean_ci=total_ci / (len(masks) * tokens.numel()),
        dead_share=1 - int(masks.sum()) / len(masks),
        weight_error=errors[worst],
        worst_matrix=worst,
        kl=kl / tokens.numel(),
    )


def _kl(target: Float[Tensor, "seq vocab"], components: Float[Tensor, "seq vocab"]) -> float:
    """Sum over positions of the divergence between two predictions, given as logits."""
    total = 0.0
    for piece in _pieces(*target.shape):
        p, q = (logits[piece].double().log_softmax(-1) for logits in (target, components))
        # Ids that a model rules out, by logits of minus infinity, add nothing.
        total += float((p.exp() * (p - q)).masked_fill(p.isneginf(), 0.0).sum())
    return total


def _weight_error(model: DecomposedModel, layer: str) -> float:
    """Relative error of a matrix's components; infinite where the matrix is zero and they are not."""
    weight, components = model.weight(layer), model.components(layer)
    error = norm = 0.0
    for piece in _pieces(*weight.shape):
        rows = weight[piece].to(model.dtype)
        error += float((rows - linear(components.V[piece].to(rows), components.U.T)).square().sum(dtype=torch.float64))
        norm += float(rows.square().sum(dtype=torch.float64))
    if norm == 0:
        return 0.0 if error == 0 else math.inf
    return math.sqrt(error / norm)


def _pieces(n_rows: int, width: int) -> Iterator[slice]:
    """Slices of rows whose numbers fit into one chunk."""
    step = max(_CHUNK // width, 1)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)
