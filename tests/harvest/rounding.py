"""Signs that rounding decides: where two machines may give a target another `attr_abs`, and by how much exactly."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.address import EMBED


@dataclass(frozen=True)
class Activation:
    """Where a target is active: in a row of the tokens, at a position."""

    layer: str
    target: int
    row: int
    position: int


@dataclass(frozen=True)
class BySign:
    """The `attr_abs` of a target by the sign of one of its activations.

    Attributes:
        at: The activation.
        plus: Source to sums, where the sign is plus.
        minus: The same where it is minus: twice the position's contribution less.
    """

    at: Activation
    plus: Mapping[str, Tensor]
    minus: Mapping[str, Tensor]

    def stored(self, result: DatasetAttributionStorage) -> dict[str, Tensor]:
        """The sums in a result: views."""
        layer, target = self.at.layer, self.at.target
        return {
            source: (result.embed_attr_abs[layer] if source == EMBED else result.regular_attr_abs[layer][source])[
                target
            ]
            for source in self.plus
        }

    def is_minus(self, result: DatasetAttributionStorage) -> bool:
        """Whether the sums of a result are those of this sign."""
        stored = self.stored(result)
        plus, minus = (
            sum(float((sums - expected[source]).square().sum()) for source, sums in stored.items())
            for expected in (self.plus, self.minus)
        )
        return minus < plus

    def add_flips_(self, result: DatasetAttributionStorage, times: float) -> None:
        """Change the sums of a result by what a change from minus to plus adds, so many times."""
        for source, sums in self.stored(result).items():
            sums += times * (self.plus[source] - self.minus[source])


class Float64:
    """A forward of all tokens in float64."""

    def __init__(self, model: DecomposedModel, tokens: Tensor) -> None:
        self.model = deepcopy(model).double()
        self.topology = trace_topology(self.model)
        self.ci = self.model.causal_importance(tokens)
        self.capture = self.model.component_forward(tokens)

    def undecided(self) -> list[Activation]:
        """Activations whose sign depends on the machine: below a float32 epsilon of the sizes of their terms."""
        found = []
        for layer in self.topology.component_targets:
            terms = self.capture.inputs[layer].detach().abs() @ self.model.components(layer).V.abs()
            is_nothing = self.capture.pre[layer].detach().abs() < torch.finfo(torch.float32).eps * terms
            found += [Activation(layer, target, row, at) for row, at, target in is_nothing.nonzero().tolist()]
        return found

    def by_sign(self, at: Activation) -> BySign:
        """A target's sums, if one of its activations were of either sign."""
        activation = self.capture.pre[at.layer][..., at.target]
        signs = activation.detach().sign()
        sums = []
        for sign in (1.0, -1.0):
            signs[at.row, at.position] = sign
            sums.append(self._sums(at.layer, (activation * signs).sum()))
        return BySign(at, *sums)

    def _sums(self, layer: str, value: Tensor) -> dict[str, Tensor]:
        """Gradients times activations times causal importances, summed over positions, or over those of each token."""
        leaves = {
            source: self.capture.embed if source == EMBED else self.capture.post[source]
            for source in self.topology.sources[layer]
        }
        gradients = torch.autograd.grad(value, list(leaves.values()), retain_graph=True)
        sums = {}
        for (source, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            effect = gradient * leaf.detach()
            if source == EMBED:
                by_token = effect.new_zeros(self.topology.vocab_size)
                sums[source] = by_token.index_add_(0, self.capture.tokens.flatten(), effect.sum(-1).flatten())
            else:
                sums[source] = (effect * self.ci[source]).sum((0, 1))
        return sums


def all_plus(result: DatasetAttributionStorage, undecided: Sequence[BySign]) -> DatasetAttributionStorage:
    """A result as it is where every undecided sign is plus: those that are minus in it, as its sums say, are turned."""
    result = deepcopy(result)
    for sums in undecided:
        if sums.is_minus(result):
            sums.add_flips_(result, 1)
    return result
