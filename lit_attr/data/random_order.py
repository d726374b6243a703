"""A random order of rows that is a function of a seed and their number: each place is computed, none is kept."""

import hashlib
from math import isqrt

import numpy as np
from jaxtyping import Int, Integer

MAX_SEED = 2**63 - 1
# Of a Feistel network, in which four rounds of random functions cannot be told from a random order.
_ROUNDS = 8
# The finaliser of splitmix64: shifts and factors that spread every bit of a number over all bits.
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)

Places = Int[np.ndarray, " row"]


class RandomOrder:
    """A random order of rows: a one-to-one map of 0 to `n_rows - 1` onto itself.

    It is the same on every machine and in every version, so that a harvest can go on with it. Numbers are two digits of
    base `ceil(sqrt(n_rows))`, mixed by a Feistel network; where that leads beyond the last row, it goes on from there
    until it comes back.

    Args:
        n_rows: Number of rows, at least 1.
        seed: Which order; from 0 to 2^63 - 1.
    """

    def __init__(self, n_rows: int, seed: int) -> None:
        self.n_rows, self.seed = n_rows, seed
        self._base = np.uint64(isqrt(n_rows - 1) + 1)
        self._keys = np.frombuffer(hashlib.shake_256(str(seed).encode()).digest(8 * _ROUNDS), "<u8").astype(np.uint64)

    def __getitem__(self, numbers: Places) -> Places:
        """The rows that come at these places, from 0, of the order."""
        places = self._mixed(numbers.astype(np.uint64))
        while (beyond := np.flatnonzero(places >= self.n_rows)).size:
            places[beyond] = self._mixed(places[beyond])
        return places.astype(np.int64)

    def _mixed(self, numbers: Integer[np.ndarray, " row"]) -> Integer[np.ndarray, " row"]:
        high, low = np.divmod(numbers, self._base)
        for key in self._keys:
            high, low = low, (high + _spread(low + key) % self._base) % self._base
        return high * self._base + low


def _spread(numbers: Integer[np.ndarray, " row"]) -> Integer[np.ndarray, " row"]:
    for shift, factor in _MIX:
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> _LAST_SHIFT)


def rows_at(rows: Integer[np.ndarray, "row seq"], places: Places) -> Integer[np.ndarray, "chosen seq"]:
    """Rows by their places, read from the first to the last of them, as disks do best."""
    ascending = np.argsort(places)
    found = np.empty((len(places), rows.shape[1]), rows.dtype)
    found[ascending] = rows[places[ascending]]
    return found
