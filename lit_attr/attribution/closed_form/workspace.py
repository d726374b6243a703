"""How large the pieces are in which the closed forms are computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Shares of the workspace: what follows the number of positions, sources x targets, attention patterns, and the pairs at
# work.
_POSITIONS, _BLOCK, _PATTERN, _PAIRS = 0.5, 0.25, 0.125, 0.125
# On a CPU, pieces that stay in its caches, in bytes.
_CPU_PIECE = 5 << 20
# On a CPU, results of products: larger ones are computed at half the rate.
_CPU_RESULT = 1 << 21


@dataclass(frozen=True)
class Workspace:
    """Memory for temporaries.

    Attributes:
        nbytes: The most that may be in use at once, beside inputs and sums.
        device: Device that holds it.
    """

    nbytes: int
    device: torch.device

    @property
    def for_positions(self) -> int:
        """Bytes for everything whose size follows the number of positions."""
        return int(self.nbytes * _POSITIONS)

    @property
    def for_block(self) -> int:
        """Bytes for temporaries of the shape sources x targets."""
        return int(self.nbytes * _BLOCK)

    @property
    def for_pattern(self) -> int:
        """Bytes for the attention pattern of all heads, where it fits."""
        return int(self.nbytes * _PATTERN)

    def pieces(self, n_items: int, bytes_per_item: int, together: int = 1) -> Iterator[slice]:
        """Cut items into pieces.

        Args:
            n_items: How many there are.
            bytes_per_item: All temporaries that one item needs.
            together: Items that are taken at once where the workspace holds them, whatever the caches hold.
        """
        fitting = int(self.nbytes * _PAIRS) // bytes_per_item
        if self.device.type == "cpu":
            fitting = min(fitting, max(_CPU_PIECE // bytes_per_item, together))
        return evenly(n_items, max(fitting, 1))

    def in_cache(self, n_items: int, bytes_per_item: int) -> int:
        """How many items, of so many, a CPU's caches hold; elsewhere all."""
        return n_items if self.device.type != "cpu" else max(1, min(n_items, _CPU_RESULT // bytes_per_item))

    @property
    def n_threads(self) -> int:
        """How many matrices the device multiplies at once in a batched product."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1


def evenly(n_items: int, at_most: int) -> Iterator[slice]:
    """Slices of nearly equal size, none larger than a maximum.

    Example:
        >>> list(evenly(7, 3))
        [slice(0, 3, None), slice(3, 6, None), slice(6, 7, None)]
        >>> list(evenly(8, 6))
        [slice(0, 4, None), slice(4, 8, None)]
    """
    if n_items:
        size = -(-n_items // -(-n_items // at_most))
        for start in range(0, n_items, size):
            yield slice(start, min(start + size, n_items))
