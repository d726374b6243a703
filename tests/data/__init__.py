"""Small datasets, tokenizers and runs on disk, and a second implementation of the specification's order of rows."""

import json
import random
import socket
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.utils.data import DataLoader

from lit_attr.data.spec import DatasetSpec
from tests.toys import BLOCK, VOCAB, write_run

EOS = "[EOS]"
TOY_TOKENS = [EOS, *"abcdef", " ", "ab", "cd", "abcd"]
# What every tokenizer that is made here needs; a token in brackets is special.
LEAST_TOKENS = [*"abcd", "ab", "cd", "abcd"]
_MERGES = [("a", "b"), ("c", "d"), ("ab", "cd")]
_BUILDERS = {".txt": "text", ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
assert len(TOY_TOKENS) == VOCAB

# The keys of a run's task_config that are not named as in DatasetOptions.
_TASK_KEYS = {"split": "train_data_split", "seed": "dataset_seed"}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No connection is tried, not even one whose failure is swallowed; the libraries' caches are the test's own.

    The libraries read their environment when they are imported, which may have happened long before.
    """
    own = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", own / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", own / "datasets" / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", own / "datasets" / "extracted")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", own / "modules")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    # Streams of parquet files wait five seconds at their end, for threads of a pyarrow that had a defect.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(own / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name, value in offline_environment(tmp_path).items():  # for processes that a test starts
        monkeypatch.setenv(name, value)
    tried = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            tried.append(address)
            raise OSError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    assert not tried


def offline_environment(folder: Path) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def toy_tokenizer(tokens: list[str] = TOY_TOKENS) -> Tokenizer:
    """Merges letters across the whole text, so that it matters where the text is cut."""
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, _MERGES))
    tokenizer.add_special_tokens([token for token in tokens if token[0] in "[<"])
    return tokenizer


def write_tokenizer(path: Path, tokens: list[str] = TOY_TOKENS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(tokens).save(str(path))
    return path


def texts(n: int, seed: int = 0) -> list[str]:
    """Short texts, some of them empty."""
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdef ", k=rng.randint(0, 24))).strip() for _ in range(n)]


def id_lists(n: int, seed: int = 0, at_least: int = BLOCK) -> list[list[int]]:
    """Token ids, more of them than a row has."""
    rng = random.Random(seed)
    return [rng.choices(range(VOCAB), k=at_least + rng.randint(0, 3)) for _ in range(n)]


def write_rows(path: Path, **columns: list) -> Path:
    """A dataset of one file, in the form that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        datasets.Dataset.from_dict(columns).to_parquet(path)
        return path
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".txt":
        lines = [row["text"] for row in rows]
    elif path.suffix == ".csv":
        lines = [",".join(columns), *(",".join(map(str, row.values())) for row in rows)]
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        lines = [json.dumps(rows)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def description(dataset: Path, **changes: Any) -> dict[str, Any]:
    """A complete one: attributes as in `DatasetSpec`."""
    return {
        "dataset_name": str(dataset),
        "split": "train",
        "column_name": "text",
        "max_seq_len": BLOCK,
        "is_tokenized": False,
        "streaming": False,
        "buffer_size": 50,
        "shuffle_each_epoch": True,
        "seed": 3,
        "tokenizer": None,
        "eos_token": None,
        **changes,
    }


def make_spec(dataset: Path, **changes: Any) -> DatasetSpec:
    """Of a dataset, and of the toy tokenizer beside it."""
    tokenizer = dataset.parent / "tokenizer.json"
    if not tokenizer.exists():
        write_tokenizer(tokenizer)
    return DatasetSpec(**{**description(dataset, tokenizer=str(tokenizer)), **changes})


def write_dataset_run(folder: Path, described: dict[str, Any]) -> Path:
    """A toy run that was trained on a dataset; its tokenizer is a file beside it, or a name."""
    told = {_TASK_KEYS.get(key, key): value for key, value in described.items()}
    tokenizer = told.pop("tokenizer")
    del told["eos_token"]
    write_run(folder, task_config={"task_name": "lm", **told}, tokenizer_name=tokenizer)
    if tokenizer is None:
        write_tokenizer(folder / "tokenizer.json")
    return folder


def specified_batches(
    described: dict[str, Any], batch_size: int, tokenizer: Tokenizer | None = None, eos: str = EOS
) -> list[torch.Tensor]:
    """Section 2.5 of the specification, to the letter, but for the last batch, which is not dropped."""
    seed, length, column = described["seed"], described["max_seq_len"], described["column_name"]
    dataset = _load(Path(described["dataset_name"]), described["split"], described["streaming"])
    if described["streaming"]:
        dataset = dataset.shuffle(seed=seed, buffer_size=described["buffer_size"])
    else:
        dataset = dataset.shuffle(seed=seed)
    dataset = dataset.select_columns([column])
    tokenizer = tokenizer or toy_tokenizer()

    def to_rows(batch: dict[str, list]) -> dict[str, list]:
        text = eos.join(batch[column])
        if "SimpleStories" in described["dataset_name"]:
            text = text.replace(eos.lower(), eos)
        size = (len(text) - 1) // 20 + 1
        ids = []
        for chunk in (text[i * size : (i + 1) * size] for i in range(20)):
            ids += tokenizer.encode(chunk, add_special_tokens=False).ids
        return {"input_ids": [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]}

    if described["is_tokenized"]:
        dataset = dataset.map(lambda row: {"input_ids": row[column][:length]}, remove_columns=[column])
    else:
        dataset = dataset.map(to_rows, batched=True, remove_columns=[column])
    loader = DataLoader(
        dataset.with_format("torch"),
        batch_size=batch_size,
        shuffle=described["shuffle_each_epoch"] and not described["streaming"],
        generator=torch.Generator().manual_seed(seed),
    )
    return [batch["input_ids"] for batch in loader]


def _load(path: Path, split: str, streaming: bool) -> Any:
    if path.is_dir():
        return datasets.load_dataset(str(path), split=split, streaming=streaming)
    builder, files = _BUILDERS[path.suffix], {split: str(path)}
    return datasets.load_dataset(builder, data_files=files, split=split, streaming=streaming)


class CountingTokenizer:
    """The toy tokenizer; it remembers the texts of every call, and may fail at one.

    Args:
        fail_at: Number of the call that raises, from 0.
    """

    eos_token = EOS

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls: list[str] = []
        self.fail_at = fail_at

    def __call__(self, name: str) -> "CountingTokenizer":
        """Stands for `load_tokenizer`."""
        return self

    def encode(self, texts: list[str]) -> list[list[int]]:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append("".join(texts))
        return [toy_tokenizer().encode(text, add_special_tokens=False).ids for text in texts]
