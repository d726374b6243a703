"""Read vectors: what turns sums of `attr` in read space into those of single targets."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class ReadVectors:
    """How the components that are targets read their inputs.

    Attributes:
        inputs: Target layer to the name of its input; see `Topology.inputs`.
        vectors: Target layer of components to their read vectors.
        alive: Layer to the components that are targets; nothing is attributed to the others.
    """

    inputs: Mapping[str, str]
    vectors: Mapping[str, Float[Tensor, "_width _component"]]
    alive: Mapping[str, Bool[Tensor, " _component"]]

    def of_targets(self, layer: str) -> Float[Tensor, "width target"]:
        """The read vectors of a layer's targets, in float64.

        Args:
            layer: Layer of components.
        """
        return self.vectors[layer][:, self.alive[layer]].to(torch.float64)
