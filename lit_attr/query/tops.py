"""The strongest entries of rows that are seen piece by piece."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.storage.strongest import NOT_FINITE

# Entries that are ranked at once, in one row: each takes some 50 bytes meanwhile.
_RANKED = 1 << 20
# In the order of lists: raw before normalised, positive before negative.
_LARGEST = (True, False)


class RunningTops:
    """The strongest of each row: raw and normalised, positive and negative, best first.

    Args:
        n_rows: How many rows.
        k: Entries of a list.
    """

    def __init__(self, n_rows: int, k: int) -> None:
        self._k = k
        empty = torch.empty(n_rows, 0)
        # Of each list: what it is ranked by, raw values, positions.
        self._lists = [(empty, empty, empty.long())] * 4

    def add(
        self,
        raw: Float[Tensor, "row _entry"],
        normalized: Float[Tensor, "row _entry"],
        positions: Int[Tensor, " _entry"],
    ) -> None:
        """See more entries of every row.

        Args:
            raw: Their raw values.
            normalized: Their normalised values.
            positions: What stands for them in the lists.

        Raises:
            StorageError: If a value is not finite.
        """
        for place, values in enumerate((raw, raw, normalized, normalized)):
            largest = _LARGEST[place % 2]
            new = values.topk(min(self._k, values.shape[1]), largest=largest)
            # Not a number counts as largest, so that this sees whatever is not finite.
            if not new.values.isfinite().all():
                raise StorageError(NOT_FINITE)
            seen = (new.values, raw.gather(1, new.indices), positions[new.indices])
            both = [torch.cat(pair, 1) for pair in zip(self._lists[place], seen, strict=True)]
            order = both[0].topk(min(self._k, both[0].shape[1]), largest=largest).indices
            self._lists[place] = tuple(part.gather(1, order) for part in both)  # type: ignore[assignment]

    def rows_that_matter(
        self, raw: Float[Tensor, "row _entry"], normalized: Float[Tensor, "row _entry"]
    ) -> Int[Tensor, " _row"]:
        """Of some rows those with an entry that would enter a list of the first row: ranking a whole block is slow."""
        matters = torch.zeros(len(raw), dtype=torch.bool)
        for place, values in enumerate((raw, raw, normalized, normalized)):
            kept = self._lists[place][0]
            if kept.shape[1] < self._k:
                return torch.arange(len(raw))
            matters |= values.amax(1) > kept[0, -1] if _LARGEST[place % 2] else values.amin(1) < kept[0, -1]
        return matters.nonzero()[:, 0]

    def lists(self) -> tuple[Int[Tensor, "row 4 k"], Float[Tensor, "row 4 k"]]:
        """Positions, -1 where there are no more entries of the sign, and raw values; in `place_of`'s order."""
        positions, raws = [], []
        for place, (values, raw, position) in enumerate(self._lists):
            missing = self._k - values.shape[1]
            has_sign = values > 0 if _LARGEST[place % 2] else values < 0
            position = position.where(has_sign, -1)
            positions.append(torch.nn.functional.pad(position, (0, missing), value=-1))
            raws.append(torch.nn.functional.pad(raw.where(has_sign, 0), (0, missing)))
        return torch.stack(positions, 1), torch.stack(raws, 1)


class PairSummary:
    """What is known of the edges between two layers, of one metric.

    Args:
        n_sources: Size of the source layer.
        k: Strongest edges that are kept.
    """

    def __init__(self, n_sources: int, k: int) -> None:
        self._n_sources = n_sources
        self._tops = RunningTops(1, k)
        # Sums of absolute values: raw, normalised.
        self.mass = [0.0, 0.0]

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
            StorageError: If a value is not finite.
        """
        for place, values in enumerate((raw, normalized)):
            self.mass[place] += float(torch.linalg.vector_norm(values, 1, dim=1).sum(dtype=torch.float64))
        if not all(map(math.isfinite, self.mass)):
            raise StorageError(NOT_FINITE)
        targets = torch.arange(first_target, first_target + raw.shape[1])
        for start in range(0, len(raw), step := max(_RANKED // max(raw.shape[1], 1), 1)):
            parts = raw[start : start + step], normalized[start : start + step]
            rows = self._tops.rows_that_matter(*parts)
            positions = targets * self._n_sources + (first_source + start + rows)[:, None]
            self._tops.add(parts[0][rows].reshape(1, -1), parts[1][rows].reshape(1, -1), positions.reshape(-1))

    def lists(self) -> tuple[Int[Tensor, "4 k"], Float[Tensor, "4 k"]]:
        """As `RunningTops.lists`; a position is `target * n_sources + source`."""
        positions, raws = self._tops.lists()
        return positions[0], raws[0]
