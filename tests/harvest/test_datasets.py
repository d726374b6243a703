"""Harvests of the dataset that a run was trained on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lit_attr.cli.main import main
from lit_attr.data.rows import read_rows
from lit_attr.data.spec import DatasetOptions
from lit_attr.errors import ConfigurationError, RunFormatError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.data import (
    CountingTokenizer,
    description,
    id_lists,
    offline,  # noqa: F401
    specified_batches,
    texts,
    toy_tokenizer,
    write_dataset_run,
    write_rows,
    write_tokenizer,
)
from tests.harvest.runs import assert_same
from tests.toys import write_run, write_tokens

CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]


@pytest.fixture
def described(tmp_path):
    """Texts and token ids in files of their own, and in one folder with two splits."""
    both = {"text": texts(40), "ids": id_lists(40)}
    write_rows(tmp_path / "splits" / "test.jsonl", **{name: rows[:30] for name, rows in both.items()})
    write_rows(tmp_path / "splits" / "train.jsonl", **both)
    write_rows(tmp_path / "other.jsonl", text=texts(40, seed=1), ids=id_lists(40, seed=1))
    return description(write_rows(tmp_path / "data.jsonl", **both))


@pytest.fixture
def run(tmp_path, described):
    return write_dataset_run(tmp_path / "spd-s-toytoy00", described)


def prepared(run: Path, batch_size: int = 2, n_batches: Any = "whole_dataset", **changes: Any) -> TokenDataModule:
    options = DatasetOptions(**changes)
    data = TokenDataModule(run=run, batch_size=batch_size, n_batches=n_batches, dataset=options, order="file")
    data.prepare_data()
    data.setup()
    return data


def batches(data: TokenDataModule) -> list[list[list[int]]]:
    return [data.batch(i).tolist() for i in range(data.n_batches)]


def specified(described: dict[str, Any], batch_size: int = 2, **more: Any) -> list[list[list[int]]]:
    return [batch.tolist() for batch in specified_batches(described, batch_size, **more)]


def caches(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "out" / "token_cache").iterdir()}


def harvest(*arguments: str) -> DatasetAttributionStorage:
    """Of the command line; loads what it says that it wrote."""
    assert main(["predict", *arguments, *CPU]) == 0
    return AttributionRepo.open("s-toytoy00").get_attributions()


def rows_file(path: Path, rows: list[list[list[int]]]) -> str:
    np.save(path, np.concatenate([np.asarray(batch) for batch in rows]))
    return str(path)


# The data


@pytest.mark.parametrize(
    ("own", "change"),
    [
        ({}, {"dataset_name": "other.jsonl"}),
        ({"dataset_name": "splits"}, {"split": "test"}),
        ({"is_tokenized": True, "column_name": "text"}, {"column_name": "ids"}),
        ({}, {"is_tokenized": True, "column_name": "ids"}),
        ({"is_tokenized": True, "column_name": "text"}, {"is_tokenized": False}),
        ({}, {"max_seq_len": 4}),
        ({}, {"streaming": True}),
        ({"streaming": True}, {"streaming": False}),
        ({"streaming": True, "buffer_size": 1}, {"buffer_size": 10}),
        ({}, {"shuffle_each_epoch": False}),
        ({"shuffle_each_epoch": False}, {"shuffle_each_epoch": True}),
        ({}, {"seed": 0}),
        ({"streaming": True}, {"seed": 0}),
        ({}, {"eos_token": "f"}),
    ],
    ids=str,
)
def test_every_override_takes_effect_in_a_cache_of_its_own(tmp_path, described, own, change):
    own, change = (
        {key: str(tmp_path / value) if key == "dataset_name" else value for key, value in options.items()}
        for options in (own, change)
    )
    described = {**described, **own}
    run = write_dataset_run(tmp_path / "spd-s-toytoy00", described)
    changed = {**described, **change}
    expected = specified(changed, eos=change.get("eos_token", "[EOS]"))
    assert batches(prepared(run, **change)) == expected
    if own.get("is_tokenized") and own["column_name"] == "text":  # is no dataset without the change
        return
    assert batches(prepared(run)) == specified(described) != expected
    assert len(caches(tmp_path)) == 2


def test_tokenizer_override(tmp_path, described, run):
    tokens = ["abcd", "cd", "ab", " ", "f", "e", "d", "c", "b", "a", "[EOS]"]
    other = write_tokenizer(tmp_path / "other" / "tokenizer.json", tokens)
    assert batches(prepared(run, tokenizer=str(other))) == specified(described, tokenizer=toy_tokenizer(tokens))
    assert batches(prepared(run)) == specified(described)
    assert len(caches(tmp_path)) == 2


def test_the_same_description_has_one_cache(tmp_path, described, run):
    prepared(run)
    prepared(run, seed=described["seed"], split="train")
    assert len(caches(tmp_path)) == 1


def test_tokenizer_that_the_run_names(tmp_path, described):
    folder = write_tokenizer(tmp_path / "named" / "tokenizer.json").parent
    run = write_dataset_run(tmp_path / "spd-s-toytoy00", {**described, "tokenizer": str(folder)})
    assert batches(prepared(run)) == specified(described)


def test_tokenizer_beside_the_target_model(tmp_path, described, run):
    config = yaml.safe_load((run / "final_config.yaml").read_text())
    target = tmp_path / "target"
    target.mkdir()
    (run / "tokenizer.json").rename(target / "tokenizer.json")
    (run / "model_config.yaml").rename(target / "model_config.yaml")
    config.update(pretrained_model_name=str(target / "model_step_5.pt"), tokenizer_name="nobody/nothing")
    (run / "final_config.yaml").write_text(yaml.safe_dump(config))
    assert batches(prepared(run)) == specified(described)


@pytest.mark.parametrize(
    ("n_batches", "batch_size", "n_calls"), [(1, 7, 1), (10, 200, 2), (10**6, 7, 3), ("whole_dataset", 7, 3)]
)
def test_only_the_rows_of_the_harvest_are_tokenized(tmp_path, described, monkeypatch, n_batches, batch_size, n_calls):
    described = {**described, "streaming": True, "dataset_name": str(tmp_path / "long.jsonl")}
    write_rows(tmp_path / "long.jsonl", text=texts(2500))
    run = write_dataset_run(tmp_path / "spd-s-toytoy00", described)
    counting = CountingTokenizer()
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", counting)
    data = prepared(run, batch_size, n_batches)
    whole = specified(described, batch_size)
    assert batches(data) == (whole if n_batches == "whole_dataset" else whole[:n_batches])
    assert len(counting.calls) == n_calls


def test_more_batches_than_there_are(described, run):
    expected = specified(described, batch_size=5)
    assert 0 < len(expected[-1]) < 5  # the rest is not dropped
    assert batches(prepared(run, 5, 10**6)) == expected


def test_setup_needs_no_more_than_the_cache(described, run, monkeypatch):
    """Other processes than the one that prepares may reach neither the dataset nor the tokenizer."""
    expected = specified(described)
    prepared(run)
    monkeypatch.setattr("datasets.load_dataset", None)
    monkeypatch.setattr("lit_attr.data.rows.load_tokenizer", None)
    data = TokenDataModule(run=run, batch_size=2, order="file")
    data.setup()
    assert batches(data) == expected


def test_digest_is_of_the_rows_in_their_order(described, run):
    def digest(n_batches, **changes):
        return prepared(run, **changes).digest(n_batches)

    assert digest(3) == digest(3)
    assert len({digest(2), digest(3), digest(3, seed=4), digest(3, shuffle_each_epoch=False)}) == 4


def test_digest_is_of_every_row_of_the_harvest_and_of_nothing_else_in_the_cache(tmp_path, described):
    """A stream through a buffer of one row ends with its last rows; a later harvest of all rows extends the cache."""
    described = {**described, "is_tokenized": True, "streaming": True, "buffer_size": 1}
    found = []
    for last in (1, 2):
        write_rows(tmp_path / "data.jsonl", text=[[3] * 8] * 1999 + [[last] * 8])
        run = write_dataset_run(tmp_path / "spd-s-toytoy00", described)
        few = prepared(run, n_batches=3)
        digest = few.digest(3)
        data = prepared(run)
        assert batches(data)[-1][-1] == [last] * 8
        assert prepared(run, n_batches=3).digest(3) == few.digest(3) == data.digest(3) == digest
        found.append([digest, data.digest(999), data.digest(1000), data.digest(10**6)])
    first, second = found
    assert first[:2] == second[:2]
    assert first[2] == first[3] != second[2]


# Settings that make no sense


def test_neither_tokens_nor_a_run():
    with pytest.raises(ConfigurationError, match=r"neither data\.tokens nor a run whose dataset could be used"):
        TokenDataModule()


def test_tokens_and_changes_of_a_dataset(tmp_path):
    tokens = write_tokens(tmp_path / "t.npy", 3)
    message = r"data\.tokens and data\.dataset both say what the data is: drop one of .*'split': 'test'"
    with pytest.raises(ConfigurationError, match=message):
        TokenDataModule(tokens, dataset=DatasetOptions(split="test", seed=0))


def test_tokens_go_before_the_dataset_of_the_run(tmp_path, run):
    data = TokenDataModule(write_tokens(tmp_path / "t.npy", 3), run=run, dataset=DatasetOptions(), order="file")
    data.prepare_data()
    assert data.batch(0).tolist() == np.load(tmp_path / "t.npy").tolist()
    assert not (tmp_path / "out").exists()


def test_run_of_another_task(tmp_path):
    run = write_run(tmp_path / "spd-s-toytoy00", task_config={"task_name": "resid_mlp"})
    with pytest.raises(RunFormatError, match=r"expected a language-modelling task \(lm\), found"):
        prepared(run)


# The harvest


@pytest.mark.parametrize("own", [{}, {"is_tokenized": True, "column_name": "ids", "streaming": True}], ids=str)
def test_harvest_of_the_runs_dataset_is_that_of_its_rows(tmp_path, described, own):
    described = {**described, **own}
    run = str(write_dataset_run(tmp_path / "spd-s-toytoy00", described))
    rows = specified(described)[:2]
    common = ["--model.run", run, "--data.batch_size", "2", "--data.order", "file"]
    found = harvest(*common, "--data.n_batches", "2")
    expected = harvest(*common, "--data.tokens", rows_file(tmp_path / "rows.npy", rows))
    assert found.n_tokens_processed == 2 * 2 * 8
    assert_same(found, expected, tolerance=0)


def test_overrides_on_the_command_line(tmp_path, described, run):
    changes = {
        "dataset_name": str(tmp_path / "splits"),
        "split": "test",
        "max_seq_len": 4,
        "streaming": True,
        "buffer_size": 5,
        "shuffle_each_epoch": False,
        "seed": 0,
    }
    given = [word for key, value in changes.items() for word in (f"--data.dataset.{key}", str(value))]
    common = ["--model.run", str(run), "--data.batch_size", "2", "--data.order", "file"]
    found = harvest(*common, *given, "--data.n_batches", "2")
    rows = specified({**described, **changes})[:2]
    assert found.n_tokens_processed == 2 * 2 * 4
    assert_same(found, harvest(*common, "--data.tokens", rows_file(tmp_path / "rows.npy", rows)), tolerance=0)
    recorded = found.provenance["configuration"]["data"]["dataset"]
    assert recorded == {**described, **changes, "tokenizer": str(run / "tokenizer.json")}


def test_overrides_in_a_file_and_on_the_command_line(tmp_path, described, run):
    config = {"data": {"dataset": {"column_name": "ids", "is_tokenized": True, "seed": 8}, "n_batches": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    found = harvest("--config", str(tmp_path / "c.yaml"), "--model.run", str(run), "--data.dataset.seed", "9")
    changed = {**described, "column_name": "ids", "is_tokenized": True, "seed": 9}
    recorded = found.provenance["configuration"]["data"]["dataset"]
    assert recorded == {**changed, "tokenizer": str(run / "tokenizer.json")}


def test_recorded_shape_is_that_of_the_harvest_not_of_the_cache(described, run):
    """One map batch is tokenized, which has many more rows."""
    assert len(specified(described, batch_size=1)) > 2
    found = harvest("--model.run", str(run), "--data.batch_size", "2", "--data.n_batches", "1")
    assert found.provenance["data_shape"] == [2, 8]


def test_batches_that_decide_targets_are_tokenized_though_they_are_not_harvested(described, run, monkeypatch):
    monkeypatch.setattr("lit_attr.data.rows._TEXTS_AT_ONCE", 2)
    few = prepared(run, batch_size=2, n_batches=1, streaming=True).n_batches_at_hand
    asked = few + 2
    settings = ["--data.n_batches", "1", "--data.batch_size", "2", "--data.dataset.streaming", "true"]
    found = harvest("--model.run", str(run), *settings, "--model.alive_batches", str(asked))
    assert found.provenance["coverage"]["n_batches"] == 1
    assert found.provenance["targets"] == {
        **{"rule": "mean_ci", "ci_threshold": 0.0, "alive_batches": asked, "n_batches": asked}
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--data.dataset.dataset_name", "nobody/nothing"],
            "cannot open the dataset 'nobody/nothing', split 'train': ",
        ),
        (["--data.dataset.column_name", "story"], r".*has no column 'story'; it has \['ids', 'text'\]"),
        (["--data.dataset.max_seq_len", "100000"], r".*gives no row of 100000 tokens"),
        (["--data.dataset.max_seq_len", "0"], "max_seq_len and buffer_size must be at least 1, found 0"),
        (
            ["--data.dataset.max_seq_len", "9"],
            "sequences of 9 tokens are longer than the model's context",
        ),
        (["--data.tokens", "t.npy", "--data.dataset.seed", "1"], "data.tokens and data.dataset both say"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(run, change, message, capfd):
    assert main(["predict", "--model.run", str(run), *change, *CPU]) == 2
    err = capfd.readouterr().err
    assert re.search(f"lit-attr: error: {message}", err)
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 2), (signal.SIGUSR1, 2), (signal.SIGINT, 130)])
def test_a_signal_while_texts_are_tokenized_ends_at_once(run, tmp_path, capfd, monkeypatch, number, code):
    """What is tokenized by then stays in the cache."""

    def stopped(*arguments: Any) -> Any:
        rows = read_rows(*arguments)
        yield next(rows)
        os.kill(os.getpid(), number)
        pytest.fail("it went on")

    with monkeypatch.context() as patched:
        patched.setattr("lit_attr.data.cache.read_rows", stopped)
        patched.setattr("lit_attr.data.rows._TEXTS_AT_ONCE", 2)
        assert main(["predict", "--model.run", str(run), "--data.batch_size", "2", *CPU]) == code
    said = capfd.readouterr().err
    assert f"lit-attr: error: stopped by {number.name} before anything new was committed; the same command" in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["token_cache"]
    harvest("--model.run", str(run), "--data.batch_size", "2")


def command(run: Path, out: Path, *options: str) -> list[str]:
    common = ["--model.run", str(run), "--data.batch_size", "2", "--trainer.accelerator", "cpu"]
    return [sys.executable, "-m", "lit_attr.cli.main", "predict", *common, *options, "--writer.out_dir", str(out)]


@pytest.mark.slow
def test_two_gloo_ranks_with_a_dataset_are_one_process(tmp_path, described, run):
    """The second harvest finds the rows of the first."""
    results = []
    for name, options, n_tokenizing in (
        ("two", ["--trainer.devices", "2", "--trainer.strategy", "ddp"], 1),
        ("one", ["--trainer.devices", "1"], 0),
    ):
        full = command(run, tmp_path / name, "--data.n_batches", "5", *options)
        done = subprocess.run(full, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("tokenizing") == n_tokenizing
        results.append(AttributionRepo.open("s-toytoy00", tmp_path / name).get_attributions())
    assert results[0].n_tokens_processed == 5 * 2 * 8
    assert_same(*results)
    assert len(caches(tmp_path)) == 1


@pytest.mark.slow
def test_two_gloo_ranks_without_a_dataset_end(tmp_path, run):
    options = ["--data.dataset.column_name", "story", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(command(run, tmp_path / "x", *options), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "has no column 'story'" in done.stderr
