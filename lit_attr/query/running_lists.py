"""The lists of an index while they are made: strongest entries of rows, or of a pair of layers, seen piece by piece."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.query.index_lists import RANKINGS
from lit_attr.storage.top_k import NOT_FINITE, RunningTopK, Where

# Entries of a pair that are ranked at once: each takes some 50 bytes meanwhile.
_RANKED = 1 << 20
# Edges of a pair that are summed at once: their magnitudes, 2 MB, stay in a cache.
_SUMMED = 1 << 18
# Entries that are counted at once, by rows.
_COUNTED = 1 << 18


class Totals(NamedTuple):
    """How many entries of rows there are, and how large they are together, in the order of `RANKINGS`.

    Attributes:
        n: Number of entries of the sign.
        mass: Sum of their magnitudes.
    """

    n: Int[Tensor, "*row list"]
    mass: Float[Tensor, "*row list"]

    @classmethod
    def zeros(cls, *shape: int) -> "Totals":
        """Totals of nothing.

        Args:
            *shape: Number of rows; nothing for a single one.
        """
        lists = (*shape, len(RANKINGS))
        return cls(torch.zeros(lists, dtype=torch.int64), torch.zeros(lists, dtype=torch.float64))

    @classmethod
    def of(cls, raw: Float[Tensor, "row _entry"], normalized: Float[Tensor, "row _entry"]) -> "Totals":
        """Totals of the entries of some rows.

        Args:
            raw: Their raw values.
            normalized: Their normalised values.
        """
        totals = cls.zeros(len(raw))
        step = max(_COUNTED // max(raw.shape[1], 1), 1)
        for start in range(0, len(raw), step):
            rows = slice(start, start + step)
            for number, (is_normalized, sign) in enumerate(RANKINGS):
                values = (normalized if is_normalized else raw)[rows]
                values = values.clamp(min=0) if sign == "positive" else values.clamp(max=0)
                totals.n[rows, number] = values.count_nonzero(1)
                totals.mass[rows, number] = values.sum(1, dtype=torch.float64).abs()
        return totals

    def add_(self, other: "Totals") -> None:
        """Add those of other entries of the same rows."""
        self.n.add_(other.n)
        self.mass.add_(other.mass)

    def less(self, kept: "Totals") -> "Totals":
        """What remains without the entries that are kept."""
        n = self.n - kept.n
        return Totals(n, (self.mass - kept.mass).clamp(min=0).where(n > 0, 0.0))


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

    def totals(self) -> Totals:
        """Totals of the entries that are kept."""
        n, mass = [], []
        for top in self._tops:
            mask = top.has_sign()
            n.append(mask.sum(1))
            mass.append(top.kept.values.where(mask, 0).sum(1, dtype=torch.float64).abs())
        return Totals(torch.stack(n, 1), torch.stack(mass, 1))

    def _with_values(self, raw: Tensor, normalized: Tensor) -> Iterator[tuple[Tensor, RunningTopK]]:
        for (is_normalized, _), top in zip(RANKINGS, self._tops, strict=True):
            yield normalized if is_normalized else raw, top


class PairSummary:
    """What is known of the edges between two layers, of one metric.

    Args:
        n_sources: Number of sources that have a place.
        n_targets: Number of targets that have a place.
        k: How many of the strongest edges are kept.

    Attributes:
        totals: Totals of all edges, where whoever adds them counts them too.
    """

    def __init__(self, n_sources: int, n_targets: int, k: int) -> None:
        self._n_sources = n_sources
        self._lists = RunningLists(1, k)
        self._raw, self._normalized = _Mass(n_targets), _Mass(n_targets)
        self.totals = Totals.zeros()

    def add(
        self,
        raw: Float[Tensor, "_source _target"],
        normalized: Float[Tensor, "_source _target"],
        first_source: int,
        first_target: int,
    ) -> None:
        """See the edges of a part of the block; a part is seen once, and the sources of a target in their order.

        Args:
            raw: Their raw values.
            normalized: Their normalised values.
            first_source: Place of the first row.
            first_target: Place of the first column.
        """
        self._raw.add(raw, first_target)
        self._normalized.add(normalized, first_target)
        width = raw.shape[1]
        for start in range(0, len(raw), step := max(_RANKED // max(width, 1), 1)):
            some = raw[start : start + step], normalized[start : start + step]
            rows = self._lists.rows_that_matter(*some)

            def where(places: Tensor, sources: Tensor = first_source + start + rows) -> Tensor:
                return (first_target + places % width) * self._n_sources + sources[places // width]

            self._lists.add(some[0][rows].reshape(1, -1), some[1][rows].reshape(1, -1), where)

    def mass(self, *, normalized: bool) -> float:
        """Sum of the absolute values of all edges.

        Args:
            normalized: Whether those of the normalised ones, or of the raw ones.

        Raises:
            StorageError: If it is not finite.
        """
        return (self._normalized if normalized else self._raw).total()

    def lists(self) -> tuple[Int[Tensor, "list k"], Float[Tensor, "list k"]]:
        """Positions `target * n_sources + source` and raw values, in the order of `RunningLists.lists`."""
        positions, raws = self._lists.lists()
        return positions[0], raws[0]

    def dropped(self) -> Totals:
        """What was counted and is in no list."""
        return self.totals.less(Totals(*(kept[0] for kept in self._lists.totals())))


class _Mass:
    """A sum of absolute values that has the same last bit however the edges come, and whether zeros are among them.

    The edges of each target are added in the order of their sources, and the sums of the targets exactly.
    """

    def __init__(self, n_targets: int) -> None:
        self._by_target = torch.zeros(1, n_targets, dtype=torch.float64)

    def add(self, values: Float[Tensor, "_source _target"], first_target: int) -> None:
        into = self._by_target[:, first_target : first_target + values.shape[1]]
        for rows in values.split(max(_SUMMED // max(values.shape[1], 1), 1)):
            magnitudes = torch.empty(rows.shape, dtype=torch.float64).copy_(rows).abs_()
            into.index_add_(0, torch.zeros(len(rows), dtype=torch.int64), magnitudes)

    def total(self) -> float:
        total = math.fsum(self._by_target[0].tolist())
        if not math.isfinite(total):
            raise StorageError(NOT_FINITE)
        return total
