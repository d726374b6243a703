"""How large the pieces are in which the closed forms are computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Shares of the workspace: what follows the number of positions, sources x targets, and the pairs at work.
_POSITIONS, _BLOCK, _PAIRS = 0.5, 0.25, 0.25
# On a CPU, pieces that stay in its caches, in bytes.
_CPU_PIECE = 3 << 22


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

    def pieces(self, n_items: int, bytes_per_item: int) -> Iterator[slice]:
        """Cut items into pieces.

        Args:
            n_items: How many there are.
            bytes_per_item: All temporaries that one item needs.
        """
        limit = int(self.nbytes * _PAIRS)
        if self.device.type == "cpu":
            limit = min(limit, _CPU_PIECE)
        return evenly(n_items, max(limit // bytes_per_item, 1))


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
