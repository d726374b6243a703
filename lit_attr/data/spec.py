"""Descriptions of datasets: which one, which part of it, in which order, under which tokenizer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lit_attr.errors import DataError, RunFormatError, shown
from lit_attr.files.roots import could_be_path


@dataclass(frozen=True)
class DatasetOptions:
    """Changes to the description of a run's dataset; an entry that is None leaves the run's own.

    Attributes:
        dataset_name: Id on the Hugging Face hub, or a local file (.txt, .parquet, .jsonl, .csv) or folder.
        split: Part of the dataset.
        column_name: Column of texts, or of token ids.
        max_seq_len: Number of tokens in a row.
        is_tokenized: Whether the column holds token ids.
        streaming: Whether rows are read as they are needed and shuffled in a buffer, instead of all at once.
        buffer_size: Number of rows in that buffer.
        shuffle_each_epoch: Whether rows are taken in random order (not when streaming).
        seed: Seed of all shuffling.
        tokenizer: Id on the hub, or a local tokenizer.json or folder.
        eos_token: Token put between texts; None for the tokenizer's own end-of-text token.
    """

    dataset_name: str | None = None
    split: str | None = None
    column_name: str | None = None
    max_seq_len: int | None = None
    is_tokenized: bool | None = None
    streaming: bool | None = None
    buffer_size: int | None = None
    shuffle_each_epoch: bool | None = None
    seed: int | None = None
    tokenizer: str | None = None
    eos_token: str | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """The complete description of a dataset; `DatasetOptions` says what each attribute means."""

    dataset_name: str
    split: str
    column_name: str
    max_seq_len: int
    is_tokenized: bool
    streaming: bool
    buffer_size: int
    shuffle_each_epoch: bool
    seed: int
    tokenizer: str | None
    eos_token: str | None

    @classmethod
    def resolve(
        cls, run_options: Mapping[str, Any], changes: DatasetOptions, tokenizer_file: Path | None
    ) -> "DatasetSpec":
        """The dataset that a run was trained on, with changes.

        Args:
            run_options: The entries of the run's configuration, spelled as in a `final_config.yaml`.
            changes: Changes; an entry that is not None replaces the run's own.
            tokenizer_file: The target model's tokenizer.json, where there is one; it goes before the run's
                `tokenizer_name`, which may need a download.

        Raises:
            RunFormatError: If the run's description is not understood.
            DataError: If a change makes no sense.
        """
        task = run_options.get("task_config") or {}
        if not isinstance(task, Mapping) or task.get("task_name", "lm") != "lm":
            raise RunFormatError(f"task_config: expected a language-modelling task (lm), found {shown(task)}")
        dataset_seed = task.get("dataset_seed")
        own = {
            "dataset_name": task.get("dataset_name", "lennart-finke/SimpleStories"),
            "split": task.get("train_data_split", "train"),
            "column_name": task.get("column_name", "story"),
            "max_seq_len": task.get("max_seq_len", 512),
            "is_tokenized": task.get("is_tokenized", False),
            "streaming": task.get("streaming", False),
            "buffer_size": task.get("buffer_size", 1000),
            "shuffle_each_epoch": task.get("shuffle_each_epoch", True),
            "seed": dataset_seed if dataset_seed is not None else run_options.get("seed", 0),
            "tokenizer": str(tokenizer_file) if tokenizer_file else run_options.get("tokenizer_name"),
            "eos_token": None,
        }
        spec = cls(**{**own, **{name: value for name, value in asdict(changes).items() if value is not None}})
        for field in fields(cls):
            value = getattr(spec, field.name)
            is_truth = isinstance(value, bool) and field.type is not bool  # Python counts it as an integer
            if is_truth or not isinstance(value, field.type if isinstance(field.type, type) else str | None):
                raise RunFormatError(f"task_config: {field.name} must be of type {field.type}, found {shown(value)}")
        for name in (spec.dataset_name, spec.tokenizer):
            if name is not None and not could_be_path(name):
                raise RunFormatError(f"task_config: expected the name of a dataset or tokenizer, found {shown(name)}")
        if spec.max_seq_len < 1 or spec.buffer_size < 1:
            raise DataError(
                f"max_seq_len and buffer_size must be at least 1, found {spec.max_seq_len} and {spec.buffer_size}"
            )
        if spec.seed < 0:
            raise DataError(f"seed must not be negative, found {spec.seed}")
        if not spec.is_tokenized and spec.tokenizer is None:
            raise DataError(
                f"dataset {spec.dataset_name!r} holds texts, and neither the run nor the command names a tokenizer"
            )
        return spec

    @property
    def order_needs_all_rows(self) -> bool:
        """Whether the order of rows is known only once all texts are tokenized."""
        return self.shuffle_each_epoch and not self.streaming and not self.is_tokenized
