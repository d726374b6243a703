"""The results of a run: finding one, and opening it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lit_attr.errors import RunNotFoundError, few
from lit_attr.query.explorer import Explorer
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.result_folders import result_in, results, run_folder, subrun_folder, subruns, why_no_result


@dataclass(frozen=True)
class AttributionRepo:
    """One result of a run.

    Attributes:
        run_id: Id of the decomposition run.
        subrun_id: Name of the harvest's folder, `da-YYYYMMDD_HHMMSS`.
        path: The result's file, in either form.
    """

    run_id: str
    subrun_id: str
    path: Path

    @classmethod
    def open(cls, run_id: str, out_dir: str | os.PathLike[str] | None = None) -> "Self | None":
        """The newest result of a run; None if there is none. `latest` raises an error that says why.

        Args:
            run_id: Id of the decomposition run.
            out_dir: Root of the results, as in `output_root`.
        """
        newest = next(iter(results(run_id, out_dir)), None)
        return None if newest is None else cls(run_id, newest.parent.name, newest)

    @classmethod
    def latest(
        cls, run_id: str, out_dir: str | os.PathLike[str] | None = None, *, subrun_id: str | None = None
    ) -> "Self":
        """The newest result of a run, or the result of one of its harvests.

        Args:
            run_id: Id of the decomposition run.
            out_dir: Root of the results, as in `output_root`.
            subrun_id: Id of the harvest that is meant, such as `da-20250101_120000`.

        Raises:
            RunNotFoundError: If there is no such result; the message says what is there.
            StorageError: If `subrun_id` is not one that harvests have.
        """
        if subrun_id is None:
            if newest := cls.open(run_id, out_dir):
                return newest
            harvests = subruns(run_id, out_dir)
            why = why_no_result(harvests[0]) if harvests else f"no harvest of it in {run_folder(run_id, out_dir)}"
            raise RunNotFoundError(f"no result of {run_id!r}: {why}")
        folder = subrun_folder(run_id, subrun_id, out_dir)
        if (path := result_in(folder)) is not None:
            return cls(run_id, subrun_id, path)
        there = few([path.parent.name for path in results(run_id, out_dir)]) or "none"
        raise RunNotFoundError(f"no result {subrun_id} of {run_id!r}: {why_no_result(folder)}; results are: {there}")

    def get_attributions(self) -> DatasetAttributionStorage:
        """The result, memory-mapped.

        Raises:
            StorageError: If the file is damaged.
        """
        return DatasetAttributionStorage.load(self.path)

    def explore(self, tokenizer: str | os.PathLike[str] | None = None) -> Explorer:
        """Open the result for questions.

        Args:
            tokenizer: A `tokenizer.json`; without it, the one that the result's provenance leads to.

        Raises:
            StorageError: If the file is damaged.
            ConfigurationError: If there is no such tokenizer.
        """
        return Explorer(self.path, tokenizer)
