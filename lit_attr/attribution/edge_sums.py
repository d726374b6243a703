"""Where an engine adds the attributions that it has computed of one edge block."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class EdgeSums:
    """The entries of an edge block that are being added to, for one metric.

    Attributes:
        table: Sums of the whole edge block, source by target, as a view; see `Sums.edge`.
        sources: Rows that are added to; None for all.
        targets: Columns that are added to.
    """

    table: Float[Tensor, "_source _target"]
    sources: Int[Tensor, " source"] | None
    targets: slice | Int[Tensor, " target"]

    def add_(self, values: Float[Tensor, "source target"]) -> None:
        """Add values in place.

        Args:
            values: In any floating-point type.
        """
        values = values.to(self.table.dtype)
        if isinstance(self.targets, slice):
            table = self.table[:, self.targets]
            if self.sources is None:
                table.add_(values)
            else:
                table.index_add_(0, self.sources, values)
        elif self.sources is None:
            self.table.index_add_(1, self.targets, values)
        else:
            self.table[self.sources[:, None], self.targets] += values
