"""The weights w[p, s] of source components at positions: activation times causal importance, mostly zero."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lit_attr.attribution.closed_form.workspace import Workspace
from lit_attr.attribution.edge_sums import add_rows_

# Share of non-zero entries above which the product of a dense matrix is cheaper than gathering rows. CPU: rates of both
# measured on two cores (160 and 45 GFLOP/s). GPU: modelled, rows come from the second-level cache at 5 TB/s.
_DENSE_ABOVE_ON_CPU, _DENSE_ABOVE = 0.28, 0.05
# Longer sums are cut into parts of so many terms: rounding grows with the number of terms added one by one.
_LONGEST_SUM = 256


@dataclass(frozen=True)
class SparseWeights:
    """Only the entries that are not zero, sorted by source, then position.

    Attributes:
        position: Position of each entry.
        source: Source component of each entry.
        weight: Value of each entry.
        n_sources: Number of sources, those without an entry included.
        offsets: Where each partial sum's entries begin, and the number of all.
        partial: The source of each partial sum; None if each source has one.
    """

    position: Int[Tensor, " pair"]
    source: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]
    n_sources: int
    offsets: Int[Tensor, " bound"]
    partial: Int[Tensor, " part"] | None

    @classmethod
    def of(
        cls,
        position: Int[Tensor, " pair"],
        source: Int[Tensor, " pair"],
        weight: Float[Tensor, " pair"],
        n_sources: int,
        longest: int,
    ) -> "SparseWeights":
        """From entries sorted by source, then position.

        Args:
            position: Position of each entry.
            source: Source component of each entry.
            weight: Value of each entry.
            n_sources: Number of sources, those without an entry included.
            longest: No source has more entries than these.
        """
        offsets = torch.searchsorted(source, torch.arange(n_sources + 1, device=source.device))
        partial = None
        if longest > _LONGEST_SUM:
            cuts = torch.arange(_LONGEST_SUM, len(source), _LONGEST_SUM, device=source.device)
            offsets = torch.cat([offsets, cuts]).sort().values
            partial = source[offsets[:-1].clamp_max(len(source) - 1)]
        return cls(position, source, weight, n_sources, offsets, partial)

    @classmethod
    def of_places(
        cls,
        place: Int[Tensor, " pair"],
        weight: Float[Tensor, " pair"],
        n_components: int,
        longest: int,
        components: Int[Tensor, " source"] | None = None,
    ) -> "SparseWeights":
        """From entries of a whole layer, sorted by place.

        Args:
            place: Place of each entry in a matrix of positions by components of the layer.
            weight: Value of each entry.
            n_components: Number of components.
            longest: No component has more entries than these.
            components: The components that have any, ascending, which are the sources; None for all.
        """
        order = (place % n_components).argsort(stable=True)
        place, weight = place[order], weight[order]
        position, source = place // n_components, place % n_components
        if components is None:
            return cls.of(position, source, weight, n_components, longest)
        number = torch.empty(n_components, dtype=torch.int64, device=place.device)
        number[components] = torch.arange(len(components), device=place.device)
        return cls.of(position, number[source], weight, len(components), longest)

    def dense(self, n_positions: int) -> "DenseWeights":
        """All entries of a number of positions, the zeros among them."""
        matrix = self.weight.new_zeros(n_positions, self.n_sources)
        matrix[self.position, self.source] = self.weight
        return DenseWeights(matrix)

    @property
    def has_long_sums(self) -> bool:
        """Whether sums over the entries of a source are cut into parts."""
        return self.partial is not None

    def scaled(self, factor: Float[Tensor, " position"]) -> "SparseWeights":
        """`w[p, s] * factor[p]`."""
        return replace(self, weight=self.weight * factor[self.position])

    def along(
        self, left: Float[Tensor, "position width"], right: Float[Tensor, "source width"], workspace: Workspace
    ) -> "SparseWeights":
        """`w[p, s] * (left[p] . right[s])`."""
        product = torch.empty_like(self.weight)
        for piece in workspace.pieces(len(product), 3 * left.shape[1] * left.element_size()):
            rows = left.index_select(0, self.position[piece])
            torch.sum(rows.mul_(right.index_select(0, self.source[piece])), dim=1, out=product[piece])
        return replace(self, weight=self.weight * product)

    def total(self, values: Float[Tensor, "position target"]) -> Float[Tensor, "source target"]:
        """`sum_p w[p, s] values[p, t]`."""
        sums = F.embedding_bag(
            self.position, values, self.offsets, mode="sum", per_sample_weights=self.weight, include_last_offset=True
        )
        if self.partial is None:
            return sums
        total = sums.new_zeros(self.n_sources, sums.shape[1])
        add_rows_(total, self.partial, sums)
        return total


@dataclass(frozen=True)
class DenseWeights:
    """All entries; for causal importances that are rarely zero.

    Attributes:
        matrix: The entries.
    """

    matrix: Float[Tensor, "position source"]

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return self.matrix.shape[1]

    def scaled(self, factor: Float[Tensor, " position"]) -> "DenseWeights":
        """`w[p, s] * factor[p]`."""
        return DenseWeights(self.matrix * factor[:, None])

    def along(
        self, left: Float[Tensor, "position width"], right: Float[Tensor, "source width"], workspace: Workspace
    ) -> "DenseWeights":
        """`w[p, s] * (left[p] . right[s])`."""
        return DenseWeights((left @ right.T).mul_(self.matrix))

    def total(self, values: Float[Tensor, "position target"]) -> Float[Tensor, "source target"]:
        """`sum_p w[p, s] values[p, t]`."""
        if values.shape[1] == 1:  # Products with a single vector add their terms one by one.
            return (self.matrix * values).sum(0)[:, None]
        return self.matrix.T @ values


Weights = SparseWeights | DenseWeights


def is_dense(n_pairs: int, n_weights: int, device: torch.device) -> bool:
    """Whether sums over positions cost less with all weights than with those that are not zero alone."""
    limit = _DENSE_ABOVE_ON_CPU if device.type == "cpu" else _DENSE_ABOVE
    return n_pairs > limit * n_weights
