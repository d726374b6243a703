"""Positions: layers that are laid end to end, so that one number stands for a component or token of any of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from lit_attr.topology.address import ComponentKey


@dataclass(frozen=True)
class Positions:
    """Layers laid end to end.

    Attributes:
        layers: Names of the layers, in the order in which they lie.
        sizes: Number of components, or of token ids, of each.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sized: Iterable[tuple[str, int]]) -> "Positions":
        """The positions of some layers, which come with their sizes."""
        layers, sizes = zip(*sized, strict=True) if (sized := list(sized)) else ((), ())
        return cls(layers, sizes)

    @cached_property
    def starts(self) -> Int[np.ndarray, " _layer"]:
        """Position of the first component of each layer."""
        return np.cumsum((0, *self.sizes), dtype=np.int64)[:-1]

    def __len__(self) -> int:
        return sum(self.sizes)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return zip(self.layers, self.sizes, strict=True)

    def locate(
        self, positions: Int[np.ndarray, " _position"]
    ) -> tuple[Int[np.ndarray, " _position"], Int[np.ndarray, " _position"]]:
        """What stands at some positions.

        Returns:
            Number of the layer of each, and component index or token id in it.
        """
        places = np.searchsorted(self.starts, positions, side="right") - 1
        return places, positions - self.starts[places]

    def keys(self, positions: Int[np.ndarray, " _position"]) -> list[ComponentKey]:
        """The keys at some positions."""
        places, indices = self.locate(positions)
        return [ComponentKey(self.layers[p], i) for p, i in zip(places.tolist(), indices.tolist(), strict=True)]
