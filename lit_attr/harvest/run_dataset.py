"""The dataset that a run was trained on."""

from pathlib import Path

from lit_attr.data.spec import DatasetOptions, DatasetSpec
from lit_attr.decomposition.config import read_yaml
from lit_attr.decomposition.load import find_run
from lit_attr.decomposition.run_files import TOKENIZER


def dataset_of_run(run: str | Path, changes: DatasetOptions) -> DatasetSpec:
    """The dataset that a run was trained on.

    Args:
        run: As for `load_run`.
        changes: What is not None replaces the run's own.

    Raises:
        RunNotFoundError: If the run is nowhere.
        RunFormatError: If its configuration is not understood.
        DataError: If the dataset has texts and no tokenizer is named.
    """
    files, _, model_config = find_run(run)
    folders = [file.parent for file in (files.config, model_config) if file is not None]
    tokenizer = next((folder / TOKENIZER for folder in folders if (folder / TOKENIZER).is_file()), None)
    return DatasetSpec.resolve(read_yaml(files.config), changes, tokenizer)
