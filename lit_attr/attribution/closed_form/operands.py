"""The two sides of an edge block, as the closed forms see them: components that write, and components that read."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.weights import SparseWeights, Weights
from lit_attr.attribution.edge_sums import EdgeSums


@dataclass(frozen=True)
class SourceComponents:
    """The components of a layer that feeds another, over the positions of some sequences.

    Attributes:
        write: Write vectors: what a unit of each component adds to the layer's output.
        weights: Activations times causal importances, in the cheaper representation.
        pairs: Weights as pairs of a component and a position, whatever `weights` is.
    """

    write: Float[Tensor, "source d_out"]
    weights: Weights
    pairs: SparseWeights


@dataclass(frozen=True)
class TargetComponents:
    """Components of a layer that are targets, over the positions of some sequences.

    Attributes:
        read: Read vectors.
        y: Activations.
        sign: Signs of the activations; None where `attr_abs` is not defined.
        attr: Where `attr` goes.
        attr_abs: Where `attr_abs` goes; None where it is not defined.
    """

    read: Float[Tensor, "d_in target"]
    y: Float[Tensor, "position target"]
    sign: Float[Tensor, "position target"] | None
    attr: EdgeSums
    attr_abs: EdgeSums | None


class PairSums:
    """Sums over pairs of what each pair adds to the input of a target's matrix: the pair's input tangent.

    `attr` is linear in the tangent, so it is summed before the read vectors meet it; `attr_abs` is summed after.

    Pairs are added one by one: where they are many for a source, float32 would round too much.

    Args:
        target: Components that read the input.
        pairs: All pairs of the source layer.
    """

    def __init__(self, target: TargetComponents, pairs: SparseWeights) -> None:
        self.target = target
        dtype = target.read.dtype if pairs.partial is None else torch.float64
        self._tangents, self._signed_effects = (
            target.read.new_zeros(pairs.n_sources, width, dtype=dtype) for width in target.read.shape
        )

    def add_tangents_(self, sources: Int[Tensor, " pair"], tangents: Float[Tensor, "pair d_in"]) -> None:
        """Add to `attr`.

        Args:
            sources: Source of each pair.
            tangents: Input tangents, summed over positions.
        """
        self._tangents.index_add_(0, sources, tangents.to(self._tangents.dtype))

    def add_signed_effects_(self, sources: Int[Tensor, " pair"], effects: Float[Tensor, "pair target"]) -> None:
        """Add to `attr_abs`.

        Args:
            sources: Source of each pair.
            effects: Change of the targets' activations times the signs of these, summed over positions.
        """
        self._signed_effects.index_add_(0, sources, effects.to(self._signed_effects.dtype))

    def add_local_(
        self,
        sources: Int[Tensor, " pair"],
        tangents: Float[Tensor, "pair d_in"],
        sign: Float[Tensor, "pair target"] | None,
    ) -> None:
        """Add to both metrics, where each pair changes the input at one position only.

        Args:
            sources: Source of each pair.
            tangents: Input tangents at that position.
            sign: Signs of the targets' activations at that position; overwritten.
        """
        self.add_tangents_(sources, tangents)
        if sign is not None:
            self.add_signed_effects_(sources, sign.mul_(tangents @ self.target.read))

    def write_out(self) -> None:
        """Add the sums of all pairs to those of the edge block."""
        read = self.target.read
        self.target.attr.add_(self._tangents.to(read.dtype) @ read)
        if self.target.attr_abs is not None:
            self.target.attr_abs.add_(self._signed_effects.to(read.dtype))
