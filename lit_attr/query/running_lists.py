"""The lists of an index while they are made: strongest entries of rows, or of a pair of layers, seen piece by piece."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.query.index_lists import RANKINGS
from lit_attr.storage.top_k import NOT_FINITE, RunningTopK, Where
from lit_attr.topology.choice import Measure

# Entries of a pair that are ranked at once: each takes some 50 bytes meanwhile.
_RANKED = 1 << 20


class RunningLists:
    """The strongest entries of each row, by raw and normalised values and of both signs, best first.

    Args:
        n_rows: How many rows.
        k: Entries of a list.
    """

    def __init__(self, n_rows: int, k: int) -> None:
        self._k = k
        self._tops = [RunningTopK(n_rows, k, sign) for _, sign in RANKINGS]

    def add(self, raw: Float[Tensor, "row _entry"], normalized: Float[Tensor, "row _entry"], where: Where) -> None:
        """See more entries of every row.

        Args:
            raw: Their raw values.
            normalized: Their normalised values.
            where: Gives the positions of some entries by their places in the row.
        """
        for values, top in self._with_values(raw, normalized):
            top.add(values, raw, where)

    def rows_that_matter(
        self, raw: Float[Tensor, "row _entry"], normalized: Float[Tensor, "row _entry"]
    ) -> Int[Tensor, " _row"]:
        """Which of some rows hold an entry that would enter a list of the first row: ranking a whole block is slow."""
        matters = torch.zeros(len(raw), dtype=torch.bool)
        for values, top in self._with_values(raw, normalized):
            matters |= top.would_take(values)
        return matters.nonzero()[:, 0]

    def lists(self) -> tuple[Int[Tensor, "row list k"], Float[Tensor, "row list k"]]:
        """Positions, -1 where there are no more entries of the sign, and raw values; in the order of `RANKINGS`."""
        positions, raws = [], []
        for top in self._tops:
            mask, missing = top.has_sign(), self._k - top.kept.raw.shape[1]
            position, raw = top.kept.positions.where(mask, -1), top.kept.raw.where(mask, 0)
            positions.append(torch.nn.functional.pad(position, (0, missing), value=-1))
            raws.append(torch.nn.functional.pad(raw, (0, missing)))
        return torch.stack(positions, 1), torch.stack(raws, 1)

    def _with_values(self, raw: Tensor, normalized: Tensor) -> Iterator[tuple[Tensor, RunningTopK]]:
        for (is_normalized, _), top in zip(RANKINGS, self._tops, strict=True):
            yield normalized if is_normalized else raw, top


class PairSummary:
    """What is known of the edges between two layers, of one metric.

    Args:
        n_sources: Size of the source layer.
        k: How many of the strongest edges are kept.

    Attributes:
        raw_mass: Sum of the absolute values of all raw attributions.
        normalized_mass: Sum of the absolute values of all normalised attributions.
    """

    def __init__(self, n_sources: int, k: int) -> None:
        self._n_sources = n_sources
        self._lists = RunningLists(1, k)
        self.raw_mass = self.normalized_mass = 0.0

    def add(
        self,
        raw: Float[Tensor, "_source _target"],
        normalized: Float[Tensor, "_source _target"],
        first_source: int,
        first_target: int,
    ) -> None:
        """See the edges of a part of the block; a part is seen once.

        Args:
            raw: Their raw values.
            normalized: Their normalised values.
            first_source: Index of the first row.
            first_target: Index of the first column.

        Raises:
            StorageError: If the sums of absolute values are not finite.
        """
        self.raw_mass += _mass(raw)
        self.normalized_mass += _mass(normalized)
        if not (math.isfinite(self.raw_mass) and math.isfinite(self.normalized_mass)):
            raise StorageError(NOT_FINITE)
        width = raw.shape[1]
        for start in range(0, len(raw), step := max(_RANKED // max(width, 1), 1)):
            some = raw[start : start + step], normalized[start : start + step]
            rows = self._lists.rows_that_matter(*some)

            def where(places: Tensor, sources: Tensor = first_source + start + rows) -> Tensor:
                return (first_target + places % width) * self._n_sources + sources[places // width]

            self._lists.add(some[0][rows].reshape(1, -1), some[1][rows].reshape(1, -1), where)

    def mass(self, measure: Measure) -> float:
        """Sum of the absolute values of all edges, raw or normalised."""
        return self.normalized_mass if measure.normalized else self.raw_mass

    def lists(self) -> tuple[Int[Tensor, "list k"], Float[Tensor, "list k"]]:
        """Positions `target * n_sources + source` and raw values, in the order of `RunningLists.lists`."""
        positions, raws = self._lists.lists()
        return positions[0], raws[0]


def _mass(values: Float[Tensor, "_source _target"]) -> float:
    return float(torch.linalg.vector_norm(values, 1, dim=1).sum(dtype=torch.float64))
