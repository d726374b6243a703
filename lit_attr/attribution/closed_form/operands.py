"""The two sides of edge blocks, as the closed forms see them: components that write, and components that read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.weights import SparseWeights, Weights
from lit_attr.attribution.edge_sums import add_at_, add_rows_


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
class ReaderLayer:
    """A target layer's place among components that read one input.

    Attributes:
        layer: The layer.
        place: Where its components are among all of them.
        columns: Their columns in the sums of the layer.
    """

    layer: str
    place: slice
    columns: slice


@dataclass(frozen=True)
class Readers:
    """Components that read one input, those of all its target layers side by side, over positions of some sequences.

    Attributes:
        read: Read vectors.
        y: Activations.
        layers: The layers that they belong to.
    """

    read: Float[Tensor, "d_in target"]
    y: Float[Tensor, "position target"]
    layers: Sequence[ReaderLayer]

    @cached_property
    def sign(self) -> Float[Tensor, "position target"]:
        """Signs of the activations."""
        return self.y.sign()

    def add_(
        self,
        tables: Mapping[str, Float[Tensor, "_source _target"]],
        sources: Int[Tensor, " source"] | None,
        values: Float[Tensor, "source target"],
    ) -> None:
        """Add to the sums of `attr_abs`.

        Args:
            tables: Layer to the sums of an edge block from one source layer, with a column for each target.
            sources: Rows that are added to; None for all.
            values: What is added.
        """
        for layer in self.layers:
            add_at_(tables[layer.layer], sources, layer.columns, values[:, layer.place])


class PairSums:
    """Sums by source of what single pairs do.

    Pairs are added one by one: where they are many for a source, float32 would round too much.

    Args:
        pairs: All pairs of the source layer.
        width: Number of values of each pair.
    """

    def __init__(self, pairs: SparseWeights, width: int) -> None:
        self._dtype = pairs.weight.dtype
        dtype = torch.float64 if pairs.has_long_sums else self._dtype
        self._sums = pairs.weight.new_zeros(pairs.n_sources, width, dtype=dtype)

    def add_(self, sources: Int[Tensor, " pair"], values: Float[Tensor, "pair width"]) -> None:
        """Add values of pairs.

        Args:
            sources: Source of each pair.
            values: Values of each pair.
        """
        add_rows_(self._sums, sources, values.to(self._sums.dtype))

    @property
    def total(self) -> Float[Tensor, "source width"]:
        """The sums."""
        return self._sums.to(self._dtype)
