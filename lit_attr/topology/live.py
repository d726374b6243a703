"""Which components, or token ids, of a layer have a place in tables: all others are zero everywhere."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LiveSet:
    """The components, or token ids, of a layer that have a place in tables.

    Attributes:
        n_all: Number of components, or token ids, of the layer.
        ids: The ones that have a place, ascending, int64; None for all of them.
    """

    n_all: int
    ids: Int[Tensor, " live"] | None = None

    def __len__(self) -> int:
        return self.n_all if self.ids is None else len(self.ids)

    def place(self, index: int) -> int | None:
        """The place of a component; None for one that has none.

        Args:
            index: Component index, or token id.
        """
        if self.ids is None:
            return index if 0 <= index < self.n_all else None
        place = int(torch.searchsorted(self.ids, index))
        return place if place < len(self.ids) and self.ids[place] == index else None

    def indices(self, places: Int[Tensor, "*axes"]) -> Int[Tensor, "*axes"]:
        """The components at some places."""
        return places if self.ids is None else self.ids[places]

    @property
    def all_indices(self) -> Int[Tensor, " live"]:
        """The components that have a place, ascending."""
        return torch.arange(self.n_all) if self.ids is None else self.ids

    @property
    def others(self) -> Int[Tensor, " dead"]:
        """The components that have no place, ascending."""
        if self.ids is None:
            return torch.empty(0, dtype=torch.int64)
        is_other = torch.ones(self.n_all, dtype=torch.bool)
        is_other[self.ids] = False
        return is_other.nonzero()[:, 0]
