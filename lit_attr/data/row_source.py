"""The rows of token ids that a harvest reads, in its order, and what identifies them."""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Int, Integer

from lit_attr.data.cache import TokenCache
from lit_attr.data.digest import RowDigests
from lit_attr.data.random_order import RandomOrder, rows_at
from lit_attr.data.token_file import open_tokens, token_path
from lit_attr.errors import DataError
from lit_attr.files.identity import FileIdentity

# Rows that stand for all of them in the check before the start.
_SAMPLED_ROWS = 1024


class RowSource:
    """Rows of token ids in the order of the harvest, memory-mapped and read as they are needed.

    Args:
        path: Their file.
        opened: What that file was before it was opened; None if there was none.
        rows: All rows, in the order of the file.
        order: Places in the file, in the order of the harvest, which decide what the data is; or a random order of all
            rows, which the settings of a harvest know. None for the order of the file.
        may_grow: Whether rows may be appended to the file while it is read.
    """

    def __init__(
        self,
        path: Path,
        opened: FileIdentity | None,
        rows: Integer[np.ndarray, "row seq"],
        order: Int[np.ndarray, " row"] | RandomOrder | None = None,
        *,
        may_grow: bool = False,
    ) -> None:
        if opened is None:
            raise DataError(f"{path} has appeared this moment: start again")
        self._path, self._opened, self._may_grow = path, opened, may_grow
        self.rows, self._order = rows, order
        self._all_digests = RowDigests(rows, path, opened)
        self._sample_digests = RowDigests(rows, path, opened, order) if isinstance(order, RandomOrder) else None

    @classmethod
    def of_file(cls, tokens: Path, seed: int | None = None) -> Self:
        """The rows of a token file; errors as for `open_tokens`.

        Args:
            tokens: The file.
            seed: Seed of a random order; None for the order of the file.
        """
        path = token_path(tokens)
        opened = FileIdentity.of(path)
        rows = open_tokens(path)
        return cls(path, opened, rows, None if seed is None else RandomOrder(len(rows), seed))

    @classmethod
    def of_cache(cls, cache: TokenCache, seed: int | None = None) -> Self:
        """The rows of a dataset; errors as for `TokenCache.open`.

        Args:
            cache: Where they are; for a random order it must have all of them.
            seed: Seed of a random order; None for the dataset's own.
        """
        opened = FileIdentity.of(cache.path)
        rows, order = cache.open()
        return cls(cache.path, opened, rows, order if seed is None else RandomOrder(len(rows), seed), may_grow=True)

    def read(self, places: Int[np.ndarray, " row"]) -> Integer[np.ndarray, "row seq"]:
        """Rows by their places in the order of the harvest."""
        return self.rows[places] if self._order is None else rows_at(self.rows, self._order[places])

    def digest(self, n_rows: int) -> str:
        """SHA-256 of what the first rows of the harvest are, each of them, in hexadecimal.

        In a random order it is that of the rows as they come; of all of them, as they lie in the file. In the order of
        a dataset that is shuffled whole it is a digest of all rows of the file and of that order.

        Raises:
            DataError: If the file was changed since it was opened.
        """
        digests, n_read = self._digested(n_rows)
        digest = digests.of_first(n_read)
        if isinstance(self._order, np.ndarray):
            order = np.ascontiguousarray(self._order[:n_rows], np.dtype("<i8"))
            digest = hashlib.sha256(digest.encode() + order.tobytes()).hexdigest()
        self.check_unchanged()
        return digest

    def bounds(self, n_rows: int) -> tuple[int, int]:
        """The smallest and the largest token id of what `digest` reads: the first rows of the harvest, or more."""
        digests, n_read = self._digested(n_rows)
        return digests.bounds_of_first(n_read)

    def remember_digest(self, n_rows: int) -> None:
        """Have what takes time of `digest` remembered for other processes, where that is possible."""
        digests, n_read = self._digested(n_rows)
        digests.remember(n_read)

    def _digested(self, n_rows: int) -> tuple[RowDigests, int]:
        """What is digested of the first rows of the harvest, and how many rows of it."""
        if self._sample_digests is not None and n_rows < len(self.rows):
            return self._sample_digests, n_rows
        return self._all_digests, len(self.rows) if self._order is not None else n_rows

    def sample(self, n_rows: int) -> Int[np.ndarray, " row"]:
        """Places of evenly spaced rows of the first ones, 1,024 at most."""
        return np.unique(np.linspace(0, n_rows - 1, _SAMPLED_ROWS).astype(np.int64))

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened, and was not changed.

        Raises:
            DataError: If it is not.
        """
        now = FileIdentity.of(self._path)
        if now is None:
            what = "removed"
        elif not now.is_same_file(self._opened):
            what = "replaced"
        elif now.size < self._opened.size or not (self._may_grow or now == self._opened):
            what = "changed"
        else:
            return
        raise DataError(
            f"the data {self._path} was {what} after it was opened: its rows may be those of two versions, and nothing "
            "of them is written; start again with a file that stays as it is"
        )
