"""How many causal importances of a batch are not zero, and where: all that the host must wait for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.attribution.closed_form.pair_blocks import position_blocks


@dataclass(frozen=True)
class PairCounts:
    """The pairs of a component and a position whose causal importance is not zero, counted, on the host.

    Attributes:
        by_block: Layer to their number in each sequence and block of positions.
        longest: Layer to the greatest number that one component has, in each sequence.
        components: Layer to the components that have any, ascending.
    """

    by_block: Mapping[str, Int[np.ndarray, "batch block"]]
    longest: Mapping[str, Int[np.ndarray, " batch"]]
    components: Mapping[str, Int[np.ndarray, " _component"]]

    @classmethod
    def of(cls, ci: Mapping[str, Float[Tensor, "batch seq _"]], layers: Collection[str]) -> "PairCounts":
        """Count the pairs of some layers; the host waits for the device once."""
        columns, of_components = [], []
        for layer in layers:
            # As floats, whose sums are faster than those of booleans, and exact up to 2^24.
            is_pair = torch.ne(ci[layer], 0, out=torch.empty_like(ci[layer], dtype=torch.float32))
            at_position, by_component = is_pair.sum(2), is_pair.sum(1)
            by_block = [at_position[:, block].sum(1) for block in position_blocks(at_position.shape[1])]
            columns.append(torch.stack([*by_block, by_component.amax(1)], 1))
            of_components.append(by_component.amax(0))
        if not columns:
            return cls({}, {}, {})
        n_rows, n_columns = columns[0].shape
        counted = torch.cat([*(column.flatten() for column in columns), *of_components]).cpu().numpy().astype(np.int64)
        ends = np.cumsum([n_rows * n_columns] * len(columns) + [len(most) for most in of_components])
        pieces = np.split(counted, ends[:-1])
        tables = [piece.reshape(n_rows, n_columns) for piece in pieces[: len(columns)]]
        return cls(
            {layer: table[:, :-1] for layer, table in zip(layers, tables, strict=True)},
            {layer: table[:, -1] for layer, table in zip(layers, tables, strict=True)},
            {layer: np.flatnonzero(most) for layer, most in zip(layers, pieces[len(columns) :], strict=True)},
        )

    def __or__(self, other: "PairCounts") -> "PairCounts":
        """These counts, and those of other layers."""
        return PairCounts(
            {**self.by_block, **other.by_block},
            {**self.longest, **other.longest},
            {**self.components, **other.components},
        )

    @property
    def most(self) -> int:
        """The most pairs of a sequence, over all layers together."""
        totals = [counts.sum(1) for counts in self.by_block.values()]
        return int(np.sum(totals, axis=0).max()) if totals else 0

    @property
    def most_of_a_layer(self) -> int:
        """The most pairs of a layer in a sequence."""
        return max((int(counts.sum(1).max()) for counts in self.by_block.values()), default=0)

    def places(self, layer: str, rows: slice) -> slice:
        """Where the pairs of some sequences are among all pairs of a layer."""
        first, length = (int(self.by_block[layer][some].sum()) for some in (slice(0, rows.start), rows))
        return slice(first, first + length)

    def longest_sum(self, layer: str, rows: slice) -> int:
        """No component of a layer has more pairs in some sequences."""
        return int(self.longest[layer][rows].sum())

    def sizes(self, layer: str, rows: slice) -> list[int]:
        """The most pairs of a layer in each block, over some sequences."""
        return self.by_block[layer][rows].max(0).tolist()
