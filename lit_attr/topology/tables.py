"""Tables of sums with a row for each source that was ever active: all others are zero, and need none."""

from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# By how much a table grows that is too small: copies stay few, and what is not used yet below a quarter (on a CPU that
# takes no memory; see `zeros`).
_GROWTH = 1.25


class LiveRows:
    """The sources of a layer that have a row, in the order in which they came.

    All tables of a layer share one object, so that a source has the same row in all of them.

    Args:
        n_all: Number of components, or token ids, of the layer.
        ids: Sources that have a row from the beginning.
    """

    def __init__(self, n_all: int, ids: Int[np.ndarray, " live"] | None = None) -> None:
        self.n_all = n_all
        self.ids: Int[np.ndarray, " live"] = np.zeros(0, dtype=np.int64)
        self._row = np.full(n_all, -1, dtype=np.int64)
        if ids is not None:
            self.rows(ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_of(self) -> Int[np.ndarray, " source"]:
        """The row of each component, or token id, of the layer; -1 for those that have none."""
        return self._row

    def rows(self, ids: Int[np.ndarray, " source"]) -> Int[np.ndarray, " source"]:
        """The rows of some sources; those that have none get one.

        Args:
            ids: Components, or token ids, each once.
        """
        new = ids[self._row[ids] < 0]
        if len(new):
            self._row[new] = np.arange(len(self.ids), len(self.ids) + len(new))
            self.ids = np.concatenate([self.ids, new])
        return self._row[ids]

    def clear(self) -> None:
        """Let no source have a row."""
        self.ids = self.ids[:0]
        self._row.fill(-1)


class Table:
    """Sums by source, which grow with the sources that have a row.

    Args:
        live: The sources that have one.
        width: Number of columns.
        dtype: Floating-point type.
        device: Device that keeps them.
    """

    def __init__(self, live: LiveRows, width: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.live = live
        self._numbers = zeros((len(live), width), dtype, device)

    @classmethod
    def around(cls, live: LiveRows, numbers: Float[Tensor, "row width"]) -> "Table":
        """A table of numbers that are there.

        Args:
            live: The sources that have a row.
            numbers: A row for each of them.
        """
        table = cls.__new__(cls)
        table.live, table._numbers = live, numbers
        return table

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._numbers.shape[1]

    @property
    def numbers(self) -> Float[Tensor, "row width"]:
        """The sums, to be updated in place; until a source comes that has no row yet."""
        if len(self.live) > len(self._numbers):
            grown = min(self.live.n_all, max(len(self.live), int(len(self._numbers) * _GROWTH)))
            old, self._numbers = self._numbers, zeros((grown, self.width), self._numbers.dtype, self._numbers.device)
            self._numbers[: len(old)] = old
        return self._numbers[: len(self.live)]

    def forget(self) -> None:
        """Set all to zero, and give the memory back."""
        self._numbers = self._numbers.new_zeros(0, self.width)

    def replace(self, numbers: Float[Tensor, "row width"]) -> None:
        """Take other sums in place of these.

        Args:
            numbers: A row for each source that has one.
        """
        self._numbers = numbers

    def to(self, device: torch.device) -> "Table":
        """This table on another device; itself where it is there already."""
        numbers = self._numbers.to(device)
        return self if numbers is self._numbers else Table.around(self.live, numbers)


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros that take memory on a CPU only where something is added: torch would write all of them.

    Args:
        shape: Sizes of the axes.
        dtype: Type of the numbers.
        device: Device that keeps them.
    """
    if torch.device(device).type != "cpu" or 0 in shape:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)
