"""Where a harvest's model and dataset come from: a trained run, or a language model and a rule to decompose it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_attr.data.spec import DatasetOptions, DatasetSpec
from lit_attr.decomposition.huggingface import find_pretrained
from lit_attr.decomposition.load import Run, find_configs, find_run, load_run, load_without_numbers
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.run_files import TOKENIZER
from lit_attr.decomposition.run_options import read_run_options
from lit_attr.decomposition.untrained import Decomposition
from lit_attr.decomposition.untrained.run import load_untrained, untrained_run_id, untrained_without_numbers
from lit_attr.topology.paths import PathTable, path_table


@dataclass(frozen=True)
class ModelSource:
    """Where a decomposed model comes from.

    Attributes:
        reference: Reference of a run or, with a decomposition, of a language model.
        decomposition: Rule that decomposes the language model; None for a run.
        table: Path table of the model; None for the package's own table of its class.
    """

    reference: str | Path
    decomposition: Decomposition | None
    table: PathTable | None

    def load(self) -> Run:
        """Load the model; arguments and errors as for `load_run` and `load_untrained`."""
        if self.decomposition is None:
            return load_run(self.reference, self.table)
        return load_untrained(self.reference, self.decomposition, self.table)

    def without_numbers(self) -> DecomposedModel:
        """The model without its weights; arguments and errors as for `load_without_numbers` and its sister."""
        if self.decomposition is None:
            return load_without_numbers(self.reference, self.table)
        return untrained_without_numbers(self.reference, self.decomposition, self.table)

    def find_run_id(self) -> str:
        """The id under which results are stored, without loading weights; a run that no cache holds is downloaded.

        Raises:
            RunNotFoundError: If the run, or the model, is nowhere.
            RunFormatError: If its configuration is damaged.
            UnsupportedModelError: If the model's class is not known.
        """
        if self.decomposition is not None:
            find_pretrained(str(self.reference), self.table)
            return untrained_run_id(self.reference, self.decomposition)
        files, config, _ = find_run(self.reference)
        if self.table is None:
            path_table(config.architecture)
        return files.run_id

    def table_entries(self) -> dict[str, Any] | None:
        """The path table that was given, in plain types; None if none was."""
        if self.table is None:
            return None
        names = ("architecture", "embed", "output")
        return {**{name: getattr(self.table, name) for name in names}, "blocks": dict(self.table.blocks)}


def dataset_of_run(run: str | Path, changes: DatasetOptions) -> DatasetSpec:
    """The dataset that a run was trained on, with changes.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`.
        changes: Changes; an entry that is not None replaces the run's own.

    Raises:
        RunNotFoundError: If the run is nowhere.
        RunFormatError: If its configuration is not understood.
        DataError: If the dataset has texts and no tokenizer is named.
    """
    config, model_config = find_configs(run)
    folders = [file.parent for file in (config, model_config) if file is not None]
    tokenizer = next((folder / TOKENIZER for folder in folders if (folder / TOKENIZER).is_file()), None)
    return DatasetSpec.resolve(read_run_options(config), changes, tokenizer)
