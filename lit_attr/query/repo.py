"""A finished harvest of a run, to be found and asked."""

import os
from dataclasses import dataclass

from lit_attr.query.explorer import Explorer
from lit_attr.storage import repo


@dataclass(frozen=True)
class AttributionRepo(repo.AttributionRepo):
    """One finished harvest of a run; attributes as there.

    Example:
        >>> repo = AttributionRepo.open("s-litdemo0")  # doctest: +SKIP
        >>> repo.explore().sources('output:"her"', k=3).frame()  # doctest: +SKIP
    """

    def explore(self, tokenizer: str | os.PathLike[str] | None = None) -> Explorer:
        """Open the stored harvest for questions.

        Args:
            tokenizer: A `tokenizer.json`; without it, the one that the harvest's provenance leads to.

        Raises:
            StorageError: If the file is damaged.
            ConfigurationError: If there is no such tokenizer.
        """
        return Explorer(self.path, tokenizer)
