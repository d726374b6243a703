"""Which of very many tests are discoveries, by the rule of Benjamini and Hochberg, in memory that does not grow.

Of m tests, those with the j smallest p values are discoveries at the level q, where j is the largest number for which
the j-th smallest p value is at most q j / m. Of the discoveries at most a share of q is expected to be none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# Positive numbers of double precision have the order of their bits, read as whole numbers. Over all numbers up to 1
# that makes 1024 bins of each octave.
_N_BINS = 1 << 20
_ONE = int(torch.ones(1, dtype=torch.float64).view(torch.int64))


class PValues:
    """How many p values lie in each of `_N_BINS` bins, which cover a range.

    Args:
        first: Bits of the smallest number of the range.
        last: Bits of the largest.
    """

    def __init__(self, first: int = 0, last: int = _ONE) -> None:
        self._first = first
        self._shift = max((last - first).bit_length() - (_N_BINS.bit_length() - 1), 0)
        self._counts = torch.zeros(_N_BINS, dtype=torch.int64)
        self._n_below = 0

    def add(self, p: Float64[Tensor, " test"]) -> None:
        """See some p values, from 0 to 1."""
        bins = self._bins(p)
        self._n_below += int((bins < 0).sum())
        inside = bins[(bins >= 0) & (bins < _N_BINS)]
        self._counts.index_add_(0, inside, torch.ones_like(inside))

    def _bins(self, p: Float64[Tensor, " test"]) -> Int64[Tensor, " test"]:
        return (p.contiguous().view(torch.int64) - self._first) >> self._shift

    def _ends(self, bins: Int64[Tensor, " bin"]) -> tuple[Int64[Tensor, " bin"], Int64[Tensor, " bin"]]:
        """Bits of the smallest and the largest number of some bins."""
        smallest = self._first + (bins << self._shift)
        return smallest, smallest + ((1 << self._shift) - 1)

    def _occupied(self) -> tuple[Int64[Tensor, " bin"], Int64[Tensor, " bin"]]:
        """Bins with any p value, and the ranks of the largest of each."""
        bins = self._counts.nonzero()[:, 0]
        return bins, self._n_below + self._counts.cumsum(0)[bins]

    def threshold(self, n_tests: int, level: float, see_again: "Callable[[PValues], object]") -> float | None:
        """Up to which number the p values of the range are discoveries; None if none is.

        Args:
            n_tests: Number of all tests.
            level: Level q.
            see_again: Adds all p values to others.
        """
        bins, ranks = self._occupied()
        smallest, largest = self._ends(bins)
        # A bin has discoveries for certain if its largest number would be one, and may have some if its smallest would.
        highest = level * ranks.double()
        certain, possible = ((ends.view(torch.float64) * n_tests) <= highest for ends in (largest, smallest))
        for place in possible.nonzero()[:, 0].flip(0).tolist():
            if certain[place]:
                return float(largest[place : place + 1].view(torch.float64))
            see_again(closer := PValues(int(smallest[place]), int(largest[place])))
            if (found := closer.threshold(n_tests, level, see_again)) is not None:
                return found
        return None

    def q_values(self, p: Float64[Tensor, " test"], n_tests: int) -> Float64[Tensor, " test"]:
        """The smallest levels at which some of the p values are discoveries, rounded up by a thousandth at most.

        Args:
            p: Any of the values that were seen.
            n_tests: Number of all tests.
        """
        bins, ranks = self._occupied()
        levels = self._ends(bins)[1].view(torch.float64) * n_tests / ranks
        lowest = levels.flip(0).cummin(0).values.flip(0) if len(levels) else levels
        return lowest[torch.searchsorted(bins, self._bins(p))].clamp(max=1)


@dataclass(frozen=True)
class Discoveries:
    """Which tests are discoveries.

    Attributes:
        n_tests: Number of all tests.
        level: Level q.
        threshold: The p values up to this are discoveries; None if there is none.
        seen: The p values.
    """

    n_tests: int
    level: float
    threshold: float | None
    seen: PValues

    @classmethod
    def find(cls, seen: PValues, n_tests: int, level: float, see_again: Callable[[PValues], object]) -> "Discoveries":
        """Find them, exactly.

        Args:
            seen: All p values; those above the level may be left out.
            n_tests: Number of all tests.
            level: Level q.
            see_again: Adds all p values to others; called up to three times for each bin, from the last on, of which it
                is not clear whether it has discoveries: as a rule one, or none.
        """
        return cls(n_tests, level, seen.threshold(n_tests, level, see_again), seen)

    def q_values(self, p: Float64[Tensor, " test"]) -> Float64[Tensor, " test"]:
        """The smallest levels at which discoveries are discoveries, rounded up by a thousandth at most."""
        return self.seen.q_values(p, self.n_tests).clamp(max=self.level)
