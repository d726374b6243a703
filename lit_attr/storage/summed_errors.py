"""Standard errors of the sums of a harvest, from the squares of its groups.

With x and c of each group, X and C of all (see `lit_attr.topology.squares`), and M = sum of (x - c X / C)^2 / c, the
variance of the ratio X / C is estimated by

    M / (C (n - 1)),   n = C^2 / sum of c^2.

Were the variance of x proportional to c, as it is where occurrences are independent, M over the number of groups less
one would be enough. n, the effective number of groups, is smaller where groups weigh differently; with it the estimate
is also right where the variance grows as c^2, as it does where occurrences in a group are alike. The standard error
that is stored has the unit of X: C times that of the ratio.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.storage.summed import TILE, Piece, SummedEdges
from lit_attr.topology.live import LiveSet
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.tables import Table

# The squares of a table are rounded one after the other: their sum is off by so many roundings of it, and one more for
# the root of the number of groups. Less than that is not taken for a spread.
_ROUNDINGS = 8.0
# In place of the weight of what did not occur, whose sums are zero.
_TINY = 1e-300


@dataclass(frozen=True)
class Weights:
    """What the sources of a layer weigh, all of them.

    Attributes:
        total: C of each source.
        squares: The sum over groups of c^2.
    """

    total: Float[Tensor, " component"]
    squares: Float[Tensor, " component"]

    @property
    def n_groups(self) -> Float[Tensor, " component"]:
        """Effective number of groups in which each source occurred; 0 for what did not occur."""
        return torch.where(self.squares > 0, self.total.square() / self.squares, 0.0)

    @property
    def scale(self) -> Float[Tensor, " component"]:
        """What M is multiplied with to be a variance of sums; 0 where one group says nothing of a spread."""
        return torch.where(self.n_groups > 1, self.total / (self.n_groups - 1), 0.0)


@dataclass(frozen=True)
class SummedErrors(SummedEdges):
    """Standard errors of the edges between two layers of components.

    Attributes:
        edges: The sums; what is inherited are their squares.
        weights: What the sources weigh.
        n_groups: Number of all groups.
    """

    edges: SummedEdges
    weights: Weights
    n_groups: int

    def _finished(self, piece: Piece, targets: slice = slice(None)) -> Float[Tensor, "source target"]:
        """The standard errors of some of the sources, for some of the targets."""
        squares, sums = super()._finished(piece, targets), self.edges._finished(piece, targets)
        return self._errors(squares, sums, self.sources.all_indices[piece][:, None])

    def at(self, targets: Int[Tensor, " edge"], sources: Int[Tensor, " edge"]) -> Float[Tensor, " edge"]:
        """Standard errors of single edges; arguments as for sums."""
        squares, sums = super().at(targets, sources), self.edges.at(targets, sources)
        return self._errors(squares, sums, self.sources.all_indices[sources])

    def _errors(
        self, squares: Float[Tensor, "*axes"], sums: Float[Tensor, "*axes"], ids: Int[Tensor, "..."]
    ) -> Float[Tensor, "*axes"]:
        """Standard errors from squares and finished sums, by the indices of sources."""
        squares, sums = squares.double(), sums / self.edges.factor
        total, scale = self.weights.total[ids], self.weights.scale[ids]
        epsilon = max((torch.finfo(table.numbers.dtype).eps for table in self.parts.values()), default=0.0)
        least = squares * (epsilon * (_ROUNDINGS + self.n_groups**0.5))
        spread = torch.maximum(squares - sums.square() / total.clamp(min=_TINY), least)
        return (spread * scale).sqrt() * self.edges.factor


@dataclass(frozen=True)
class SummedVectors:
    """What the standard errors of a layer's edges into output tokens come from: vectors by block.

    Attributes:
        parts: Name of a part to its sums by block.
        by_block: What each source of the layer weighs in each block.
        sources: The sources that any part has.
        d_model: Width of the residual stream.
        is_dense: Whether the result has a row for every source.
    """

    parts: Mapping[str, Table]
    by_block: Float[Tensor, "component block"]
    sources: LiveSet
    d_model: int
    is_dense: bool

    @property
    def weights(self) -> Weights:
        """What the sources weigh, with blocks as groups."""
        return Weights(self.by_block.sum(1), self.by_block.square().sum(1))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors."""
        return torch.float64

    @property
    def shape(self) -> torch.Size:
        """Shape in the result."""
        return torch.Size([self.sources.n_all if self.is_dense else len(self.sources), N_BLOCKS * self.d_model])

    def by_part(self) -> Iterator[tuple[str, Float[Tensor, "row column"]]]:
        """Name of each part, and its sums."""
        yield from ((name, table.numbers) for name, table in self.parts.items())

    def tiles(self) -> Iterator[tuple[int, Float[Tensor, "row column"]]]:
        """The finished rows in pieces, and where each begins."""
        step = max(TILE // self.shape[1], 1)
        for start in range(0, len(self.sources), step):
            rows = self.rows(slice(start, start + step))
            if not self.is_dense:
                yield start * self.shape[1], rows.view(1, -1)
                continue
            for source, row in zip(self.sources.all_indices[start : start + step].tolist(), rows, strict=True):
                yield source * self.shape[1], row[None]

    def rows(self, piece: Piece) -> Float[Tensor, "source block_x_d_model"]:
        """The vectors of some of the sources: deviations of blocks, scaled so that their length is a standard error.

        Args:
            piece: Places of sources.
        """
        ids = self.sources.all_indices[piece]
        sums = torch.zeros(len(ids), N_BLOCKS * self.d_model, dtype=torch.float64)
        for table in self.parts.values():
            rows = torch.from_numpy(table.live.row_of[ids.numpy()])
            there = (rows >= 0).nonzero()[:, 0]
            sums.index_add_(0, there, table.numbers[rows[there]].double())
        blocks, by_block = sums.view(len(ids), N_BLOCKS, self.d_model), self.by_block[ids]
        deviations = (
            blocks
            - blocks.sum(1, keepdim=True) * (by_block / by_block.sum(1, keepdim=True).clamp(min=_TINY))[:, :, None]
        )
        scales = torch.where(by_block > 0, self.weights.scale[ids, None] / by_block, 0.0).sqrt()
        return (deviations * scales[:, :, None]).flatten(1)
