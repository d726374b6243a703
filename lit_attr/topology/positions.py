"""Positions: layers that are laid end to end, so that one number stands for a component or token of any of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from lit_attr.topology.address import ComponentKey
from lit_attr.topology.live import LiveSet


@dataclass(frozen=True, eq=False)
class Positions:
    """Layers laid end to end, each with the components, or token ids, that have a place in tables.

    Attributes:
        layers: Names of the layers, in the order in which they lie.
        members: Which components, or token ids, of each have a place.
    """

    layers: tuple[str, ...]
    members: tuple[LiveSet, ...]

    @classmethod
    def of(cls, named: Iterable[tuple[str, LiveSet]]) -> "Positions":
        """The positions of some layers, which come with their members."""
        layers, members = zip(*named, strict=True) if (named := list(named)) else ((), ())
        return cls(layers, members)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of places of each layer."""
        return tuple(map(len, self.members))

    @cached_property
    def starts(self) -> Int[np.ndarray, " _layer"]:
        """Position of the first place of each layer."""
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
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        indices = positions - self.starts[numbers]
        for number, members in enumerate(self.members):
            if members.ids is not None:
                in_layer = numbers == number
                indices[in_layer] = members.ids.numpy()[indices[in_layer]]
        return numbers, indices

    def of_key(self, key: ComponentKey) -> int | None:
        """The position of a component or token of one of the layers; None for one that has no place."""
        number = self.layers.index(key.layer)
        place = self.members[number].place(key.index)
        return None if place is None else int(self.starts[number]) + place

    def keys(self, positions: Int[np.ndarray, " _position"]) -> list[ComponentKey]:
        """The keys at some positions."""
        numbers, indices = self.locate(positions)
        return [ComponentKey(self.layers[n], i) for n, i in zip(numbers.tolist(), indices.tolist(), strict=True)]
