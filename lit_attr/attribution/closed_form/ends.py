"""The two ends of an edge block, as the closed forms see them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.weights import SparseWeights, Weights


@dataclass(frozen=True)
class SourceEnd:
    """A layer that feeds another, over the positions of some sequences.

    Attributes:
        write: What a unit of each source component adds to the layer's output.
        weights: Of the components at the positions, in the cheaper representation.
        pairs: The same weights, as pairs.
    """

    write: Float[Tensor, "source d_out"]
    weights: Weights
    pairs: SparseWeights


@dataclass(frozen=True)
class Destination:
    """Where an edge block's sums are.

    Attributes:
        table: All of them, source by target, as a view.
        rows: The sources at work; None for all.
        columns: The targets at work.
    """

    table: Float[Tensor, "_source _target"]
    rows: Int[Tensor, " source"] | None
    columns: slice | Int[Tensor, " target"]

    def add_(self, values: Float[Tensor, "source target"]) -> None:
        """Add values in place."""
        if isinstance(self.columns, slice):
            table = self.table[:, self.columns]
            if self.rows is None:
                table.add_(values)
            else:
                table.index_add_(0, self.rows, values)
        elif self.rows is None:
            self.table.index_add_(1, self.columns, values)
        else:
            self.table[self.rows[:, None], self.columns] += values


@dataclass(frozen=True)
class TargetEnd:
    """Components that are targets, over the positions of some sequences.

    Attributes:
        read: Their read vectors.
        y: Their activations.
        sign: Of the activations; None where `attr_abs` is not defined.
        attr: Where `attr` goes.
        attr_abs: Where `attr_abs` goes; None where it is not defined.
    """

    read: Float[Tensor, "d_in target"]
    y: Float[Tensor, "position target"]
    sign: Float[Tensor, "position target"] | None
    attr: Destination
    attr_abs: Destination | None


class PushedSums:
    """Sums over pairs of what each moves in the input of a target's matrix, at one position.

    `attr` is linear in that movement, so it is summed before the read vectors meet it; `attr_abs` is summed after.

    Pairs are added one by one: where they are many for a source, float32 would round too much.
    """

    def __init__(self, target: TargetEnd, pairs: SparseWeights) -> None:
        self.target = target
        dtype = target.read.dtype if pairs.partial is None else torch.float64
        self._moved, self._signed = (
            target.read.new_zeros(pairs.n_sources, width, dtype=dtype) for width in target.read.shape
        )

    def move_(self, sources: Int[Tensor, " pair"], movement: Float[Tensor, "pair d_in"]) -> None:
        """Add to `attr`.

        Args:
            sources: Of the pairs.
            movement: Of the input, summed over positions.
        """
        self._moved.index_add_(0, sources, movement.to(self._moved.dtype))

    def sign_(self, sources: Int[Tensor, " pair"], effect: Float[Tensor, "pair target"]) -> None:
        """Add to `attr_abs`.

        Args:
            sources: Of the pairs.
            effect: On the targets, times their signs, summed over positions.
        """
        self._signed.index_add_(0, sources, effect.to(self._signed.dtype))

    def push_(
        self,
        sources: Int[Tensor, " pair"],
        movement: Float[Tensor, "pair d_in"],
        sign: Float[Tensor, "pair target"] | None,
    ) -> None:
        """Add to both, where each pair moves the input at one position only.

        Args:
            sources: Of the pairs.
            movement: Of the input.
            sign: Of the targets at the pair's position; overwritten.
        """
        self.move_(sources, movement)
        if sign is not None:
            self.sign_(sources, sign.mul_(movement @ self.target.read))

    def close(self) -> None:
        """Write the sums to where they belong."""
        read = self.target.read
        self.target.attr.add_(self._moved.to(read.dtype) @ read)
        if self.target.attr_abs is not None:
            self.target.attr_abs.add_(self._signed.to(read.dtype))
