"""A run's configuration and the user's changes make a complete description."""

from dataclasses import asdict, fields
from itertools import product
from pathlib import Path

import pytest

from lit_attr.data.spec import DatasetOptions, DatasetSpec
from lit_attr.errors import DataError, RunFormatError

# No entry has the value that it has where a run does not name it.
TASK = {
    "task_name": "lm",
    "dataset_name": "someone/stories",
    "train_data_split": "more",
    "eval_data_split": "less",
    "column_name": "ids",
    "max_seq_len": 16,
    "is_tokenized": True,
    "streaming": True,
    "buffer_size": 7,
    "shuffle_each_epoch": False,
    "dataset_seed": 5,
}
CHANGES = {
    "dataset_name": "other",
    "split": "test",
    "column_name": "text",
    "max_seq_len": 1,
    "is_tokenized": False,
    "streaming": False,
    "buffer_size": 1,
    "shuffle_each_epoch": True,
    "seed": 0,
    "tokenizer": "t",
    "eos_token": "</s>",
}


def resolve(run_options: dict, tokenizer_file: Path | None = None, **changes) -> DatasetSpec:
    return DatasetSpec.resolve(run_options, DatasetOptions(**changes), tokenizer_file)


def run_options(**task) -> dict:
    return {"seed": 1, "tokenizer_name": "someone/tokenizer", "task_config": {**TASK, **task}}


def test_entries_of_the_run():
    assert resolve(run_options()) == DatasetSpec(
        dataset_name="someone/stories",
        split="more",
        column_name="ids",
        max_seq_len=16,
        is_tokenized=True,
        streaming=True,
        buffer_size=7,
        shuffle_each_epoch=False,
        seed=5,
        tokenizer="someone/tokenizer",
        eos_token=None,
    )


@pytest.mark.parametrize("task", [{}, {"task_config": None}, {"task_config": {}}, {"task_config": {"task_name": "lm"}}])
def test_entries_that_a_run_does_not_name(task):
    assert resolve({"tokenizer_name": "t", **task}) == DatasetSpec(
        dataset_name="lennart-finke/SimpleStories",
        split="train",
        column_name="story",
        max_seq_len=512,
        is_tokenized=False,
        streaming=False,
        buffer_size=1000,
        shuffle_each_epoch=True,
        seed=0,
        tokenizer="t",
        eos_token=None,
    )


def test_every_option_has_a_change_here():
    assert (
        set(CHANGES)
        == {field.name for field in fields(DatasetOptions)}
        == {field.name for field in fields(DatasetSpec)}
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_replaces_one_entry(name):
    changed = asdict(resolve(run_options(), **{name: CHANGES[name]}))
    assert changed == {**asdict(resolve(run_options())), name: CHANGES[name]}


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({"seed": 1, "task_config": {"dataset_seed": 5}}, 5),
        ({"seed": 1, "task_config": {"dataset_seed": 0}}, 0),
        ({"seed": 1, "task_config": {"dataset_seed": None}}, 1),
        ({"seed": 1}, 1),
        ({}, 0),
    ],
)
def test_seed_of_the_dataset_goes_before_that_of_the_run(options, seed):
    assert resolve({"tokenizer_name": "t", **options}).seed == seed


def test_tokenizer_file_goes_before_the_name_and_a_change_before_both():
    assert resolve(run_options(), Path("/run/tokenizer.json")).tokenizer == "/run/tokenizer.json"
    assert resolve(run_options(), Path("/run/tokenizer.json"), tokenizer="mine").tokenizer == "mine"


def test_token_ids_need_no_tokenizer():
    assert resolve({**run_options(), "tokenizer_name": None}).tokenizer is None


@pytest.mark.parametrize(("shuffle", "streaming", "is_tokenized"), list(product([True, False], repeat=3)))
def test_order_needs_all_rows_only_where_texts_are_cut_before_they_are_shuffled(shuffle, streaming, is_tokenized):
    spec = resolve(run_options(shuffle_each_epoch=shuffle, streaming=streaming, is_tokenized=is_tokenized))
    assert spec.order_needs_all_rows == (shuffle and not streaming and not is_tokenized)


@pytest.mark.parametrize("task", [{"task_name": "tms"}, {"task_name": "resid_mlp"}, "lm", ["lm"]])
def test_other_tasks(task):
    with pytest.raises(RunFormatError, match=r"task_config: expected a language-modelling task \(lm\), found"):
        resolve({"task_config": task})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dataset_name": 3}, "dataset_name must be of type .*str.*, found 3"),
        ({"dataset_name": None}, "dataset_name must be of type .*str.*, found None"),
        ({"train_data_split": ["train"]}, r"split must be of type .*str.*, found \['train'\]"),
        ({"column_name": False}, "column_name must be of type .*str.*, found False"),
        ({"max_seq_len": "8"}, "max_seq_len must be of type .*int.*, found '8'"),
        ({"max_seq_len": 8.0}, r"max_seq_len must be of type .*int.*, found 8\.0"),
        ({"is_tokenized": "yes"}, "is_tokenized must be of type .*bool.*, found 'yes'"),
        ({"streaming": 1}, "streaming must be of type .*bool.*, found 1"),
        ({"buffer_size": None}, "buffer_size must be of type .*int.*, found None"),
        ({"shuffle_each_epoch": 0}, "shuffle_each_epoch must be of type .*bool.*, found 0"),
        ({"dataset_seed": "0"}, "seed must be of type .*int.*, found '0'"),
    ],
)
def test_entries_of_another_type(entry, message):
    with pytest.raises(RunFormatError, match=f"task_config: {message}"):
        resolve(run_options(**entry))


def test_tokenizer_name_of_another_type():
    with pytest.raises(RunFormatError, match=r"tokenizer must be of type str \| None, found 7"):
        resolve({**run_options(), "tokenizer_name": 7})


def test_a_truth_value_is_no_number():
    with pytest.raises(RunFormatError, match="max_seq_len"):
        resolve(run_options(max_seq_len=True))


@pytest.mark.parametrize("name", ["max_seq_len", "buffer_size"])
def test_numbers_below_one(name):
    with pytest.raises(DataError, match=r"max_seq_len and buffer_size must be at least 1, found .*\b0\b"):
        resolve(run_options(), **{name: 0})


def test_negative_seed():
    with pytest.raises(DataError, match="seed"):
        resolve(run_options(), seed=-1)


def test_texts_without_a_tokenizer():
    with pytest.raises(DataError, match="dataset 'someone/stories' holds texts, and neither the run nor the command"):
        resolve({**run_options(is_tokenized=False), "tokenizer_name": None})
