"""A run's dataset gives the batches that the run was trained on."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_attr.data.rows import loader_order
from lit_attr.harvest.datamodule import TokenDataModule
from tests.data import (
    description,
    id_lists,
    offline,  # noqa: F401
    specified_batches,
    texts,
    write_dataset_run,
    write_rows,
)


def write_dataset(folder: Path, kind: str) -> Path:
    """2,100 texts, and as many lists of token ids: three map batches."""
    columns = {"text": texts(2100), "ids": id_lists(2100)}
    if kind == "csv":  # where nothing between two commas is no text at all
        columns = {"text": [text or "a" for text in texts(2100)]}
    if not kind.startswith("folder"):
        return write_rows(folder / f"data.{kind}", **columns)
    for i, start in enumerate(range(0, 2100, 700)):
        part = {name: rows[start : start + 700] for name, rows in columns.items()}
        write_rows(folder / f"part{i}.{kind.removeprefix('folder of ')}", **part)
    return folder


def harvested_batches(run: Path, batch_size: int) -> list[torch.Tensor]:
    data = TokenDataModule(run=run, batch_size=batch_size, order="file")
    data.prepare_data()
    return [data.batch(i) for i in range(data.n_batches)]


def assert_as_specified(tmp_path: Path, kind: str, batch_size: int = 64, **changes: Any) -> None:
    described = description(write_dataset(tmp_path / "data", kind), **changes)
    expected = specified_batches(described, batch_size)
    found = harvested_batches(write_dataset_run(tmp_path / "spd-s-toytoy00", described), batch_size)
    assert len(found) == len(expected) > 30
    assert all(mine.equal(theirs) for mine, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("is_tokenized", "streaming", "shuffle_each_epoch"), list(product([False, True], [False, True], [False, True]))
)
def test_batches_are_those_of_the_specification(tmp_path, is_tokenized, streaming, shuffle_each_epoch):
    assert_as_specified(
        tmp_path,
        "parquet",
        is_tokenized=is_tokenized,
        column_name="ids" if is_tokenized else "text",
        streaming=streaming,
        shuffle_each_epoch=shuffle_each_epoch,
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("txt", "text"),
        ("csv", "text"),
        ("jsonl", "text"),
        ("jsonl", "ids"),
        ("json", "ids"),
        ("folder of parquet", "text"),
        ("folder of parquet", "ids"),
        ("folder of txt", "text"),
    ],
)
def test_form_of_the_files(tmp_path, kind, column, streaming):
    assert_as_specified(tmp_path, kind, column_name=column, is_tokenized=column == "ids", streaming=streaming)


@pytest.mark.parametrize("is_tokenized", [False, True])
def test_batch_size_does_not_change_the_order(tmp_path, is_tokenized):
    column = "ids" if is_tokenized else "text"
    assert_as_specified(tmp_path, "parquet", batch_size=7, column_name=column, is_tokenized=is_tokenized)


@pytest.mark.parametrize("batch_size", [1, 4, 4097])
def test_loader_order_is_that_of_a_torch_loader(batch_size):
    loader = torch.utils.data.DataLoader(
        torch.arange(5000), batch_size=batch_size, shuffle=True, generator=torch.Generator().manual_seed(9)
    )
    assert loader_order(5000, seed=9) == torch.cat(list(loader)).tolist()
