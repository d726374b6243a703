"""Correlations of pairs of values that are seen piece by piece."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# All numbers of bfloat16.
_N_CODES = 1 << 16


class Correlation:
    """Pearson's correlation, with and without the noise of values, and the ranks that Spearman's needs.

    Moments are taken about the mean of each piece and then joined, so that nothing cancels.
    """

    def __init__(self) -> None:
        self._n = 0
        self._mean = torch.zeros(2, dtype=torch.float64)
        self._moments = torch.zeros(2, 2, dtype=torch.float64)
        self._noise = torch.zeros(2, dtype=torch.float64)
        self._counts = torch.zeros(2, _N_CODES, dtype=torch.int64)
        self._ranks: Float64[Tensor, "2 code"] | None = None
        self._products = 0.0

    def add(self, values: Float64[Tensor, "2 edge"]) -> None:
        """See some pairs."""
        n = values.shape[1]
        if not n:
            return
        mean = values.mean(1)
        centred, shift = values - mean[:, None], mean - self._mean
        self._moments += centred @ centred.T + torch.outer(shift, shift) * (self._n * n / (self._n + n))
        self._mean += shift * (n / (self._n + n))
        self._n += n
        for counts, codes in zip(self._counts, _codes(values), strict=True):
            counts += codes.bincount(minlength=_N_CODES)

    def add_noise(self, errors: Float64[Tensor, "2 edge"]) -> None:
        """See the standard errors of the pairs that were seen."""
        self._noise += errors.square().sum(1)

    def add_ranks(self, values: Float64[Tensor, "2 edge"]) -> None:
        """See the same pairs once more, after all of them were seen."""
        if self._ranks is None:
            below = self._counts.cumsum(1) - self._counts
            self._ranks = below + self._counts / 2 - self._n / 2  # those of equal values are their mean
        one, other = (ranks[codes] for ranks, codes in zip(self._ranks, _codes(values), strict=True))
        self._products += float(one @ other)

    @property
    def pearson(self) -> float | None:
        """Pearson's correlation; None where it is not defined."""
        return self._ratio(float(self._moments[0, 1]), self._moments.diagonal())

    @property
    def without_noise(self) -> float | None:
        """Pearson's correlation, had the values no errors; None where errors are all that varies."""
        return self._ratio(float(self._moments[0, 1]), self._moments.diagonal() - self._noise)

    @property
    def spearman(self) -> float | None:
        """Spearman's correlation of the values in bfloat16; None where it is not defined."""
        if self._ranks is None:
            return None
        return self._ratio(self._products, (self._counts * self._ranks.square()).sum(1))

    @staticmethod
    def _ratio(product: float, squares: Float64[Tensor, " 2"]) -> float | None:
        if not bool((squares > 0).all()):
            return None
        return max(-1.0, min(1.0, product / float(squares.prod().sqrt())))


def _codes(values: Float64[Tensor, "2 edge"]) -> Int64[Tensor, "2 edge"]:
    """Numbers from 0 that have the order of the values in bfloat16."""
    rounded = (values.to(torch.bfloat16) + 0.0).view(torch.int16).long()  # zero has no sign
    return torch.where(rounded < 0, -1 - (rounded & 0x7FFF), rounded) + _N_CODES // 2
