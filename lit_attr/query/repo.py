"""A finished harvest of a run, to be found and asked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lit_attr.query.explorer import Explorer
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.places import results


@dataclass(frozen=True)
class AttributionRepo:
    """One finished harvest of a run.

    Attributes:
        run_id: Of the decomposition run.
        subrun_id: Name of the harvest's folder, `da-YYYYMMDD_HHMMSS`.
        path: The merged file.
    """

    run_id: str
    subrun_id: str
    path: Path

    @classmethod
    def open(cls, run_id: str, out_dir: str | os.PathLike[str] | None = None) -> "Self | None":
        """The newest harvest of a run that has a merged file; None if there is none.

        Args:
            run_id: Of the decomposition run.
            out_dir: Root of the results; without it `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`.
        """
        newest = next(iter(results(run_id, out_dir)), None)
        return None if newest is None else cls(run_id, newest.parent.name, newest)

    def get_attributions(self) -> DatasetAttributionStorage:
        """The stored harvest, memory-mapped.

        Raises:
            StorageError: If the file is damaged.
        """
        return DatasetAttributionStorage.load(self.path)

    def explore(self, tokenizer: str | os.PathLike[str] | None = None) -> Explorer:
        """Open the result for questions.

        Args:
            tokenizer: A `tokenizer.json`; without it, the one that the harvest's provenance leads to.

        Raises:
            StorageError: If the file is damaged.
            ConfigurationError: If there is no such tokenizer.
        """
        return Explorer(self.path, tokenizer)
