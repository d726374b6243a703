import sqlite3

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lit_attr.errors import ConfigurationError, DataError, RunNotFoundError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from tests.attribution.brute_force import brute_force
from tests.attribution.named import named_result
from tests.harvest.runs import assert_same, harvest
from tests.toys import random_tokens, toy_run, write_run, write_tokens


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "spd-s-toytoy00")


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=7)


@pytest.fixture
def expected(run, tokens, tmp_path):
    return harvest(AttributionHarvester(run), tokens, tmp_path / "expected")


ENGINES = ["autograd", "closed_form"]


@pytest.mark.parametrize("engine", ENGINES)
def test_float64_harvest_equals_brute_force(tmp_path, engine):
    tokens = write_tokens(tmp_path / "t.npy", n_rows=3, seq_len=4)
    run = toy_run()
    expected = brute_force(run.model, random_tokens(3, 4))
    harvester = AttributionHarvester.from_run(run, engine=engine)
    harvest(harvester, tokens, tmp_path, precision="64-true")
    found = named_result(harvester.sums.totals, run.model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12, msg=name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batch_size_invariance(run, tokens, tmp_path, expected, batch_size, engine):
    found = harvest(AttributionHarvester(run, engine=engine), tokens, tmp_path / "found", batch_size)
    assert_same(found, expected)


def test_order_invariance(run, tokens, tmp_path, expected):
    np.save(tmp_path / "reversed.npy", np.load(tokens)[::-1])
    assert_same(harvest(AttributionHarvester(run), tmp_path / "reversed.npy", tmp_path / "found"), expected)


@pytest.mark.parametrize("options", [{}, {"sampling": "binomial"}])
def test_row_splitting_invariance(tokens, tmp_path, options, monkeypatch):
    run = write_run(tmp_path / "spd-s-binomial", **options)
    whole = harvest(AttributionHarvester(run), tokens, tmp_path / "whole", batch_size=7)
    monkeypatch.setattr("lit_attr.harvest.harvester.rows_that_fit", lambda *_: 2)
    split = AttributionHarvester(run)
    found = harvest(split, tokens, tmp_path / "split", batch_size=7)
    assert_same(found, whole)


@pytest.mark.parametrize(("engine", "memory_gb"), [("autograd", 0.00015), ("closed_form", 0.00016)])
def test_memory_limit_splits_batches_and_changes_nothing(run, tmp_path, engine, memory_gb):
    tokens = write_tokens(tmp_path / "many.npy", n_rows=28)
    expected = harvest(AttributionHarvester(run), tokens, tmp_path / "expected", batch_size=28)
    harvester = AttributionHarvester(run, engine=engine, memory_gb=memory_gb)
    found = harvest(harvester, tokens, tmp_path / "found", batch_size=28)
    assert 1 < harvester._rows_at_once < 28
    assert_same(found, expected)


def test_memory_limit_without_room_for_a_workspace(run, tokens, tmp_path):
    message = r"sequences of 8 tokens need a workspace .* \(and --model.memory_gb, which contains it\)"
    with pytest.raises(ConfigurationError, match=message):
        harvest(AttributionHarvester(run, memory_gb=4e-5), tokens, tmp_path, batch_size=1)


def test_memory_limit_below_one_row(run, tokens, tmp_path):
    with pytest.raises(ConfigurationError, match=r"one sequence of 8 tokens needs .* raise --model.memory_gb"):
        harvest(AttributionHarvester(run, memory_gb=1e-6), tokens, tmp_path)


def test_n_batches_counts_batches(run, tokens, tmp_path):
    assert harvest(AttributionHarvester(run), tokens, tmp_path, 2, 2).n_tokens_processed == 4 * 8
    assert harvest(AttributionHarvester(run), tokens, tmp_path, 2, 99).n_tokens_processed == 7 * 8


def test_default_trainer_needs_no_settings(run, tokens, tmp_path, expected):
    """Inference mode is Lightning's default; the harvest turns it off by itself, and returns no predictions."""
    writer = StorageWriter(tmp_path / "found")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[writer],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    assert trainer.predict(AttributionHarvester(run), datamodule=TokenDataModule(tokens, 2)) is None
    from lit_attr.storage.dataset_attributions import DatasetAttributionStorage

    assert_same(DatasetAttributionStorage.load(writer.path), expected)


def test_bfloat16_is_for_the_forwards_alone(run, tokens, tmp_path, expected):
    harvester = AttributionHarvester(run)
    found = harvest(harvester, tokens, tmp_path / "found", precision="bf16-mixed")
    assert harvester.sums.recent.logit_sq.dtype == torch.float32
    assert found.regular_attr["1.mlp.up"]["0.attn.o"].dtype == torch.float32
    for name in ("regular_attr", "unembed_attr"):
        mine, theirs = (
            torch.cat([t.flatten() for n, t in s.named_sums() if n.startswith(name + "[")]) for s in (found, expected)
        )
        error = float((mine - theirs).norm() / theirs.norm())
        assert 1e-5 < error < 0.05, name
    # Sums of squares of bfloat16 values are not themselves rounded to bfloat16.
    squares = found.logit_sq_sum
    assert not squares.equal(squares.bfloat16().float())


def test_all_components_are_targets_by_default(expected):
    assert all(block.any(1).all() for by_source in expected.regular_attr.values() for block in by_source.values())


def harvest_db(path, rows):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE components (component_key TEXT PRIMARY KEY, firing_density REAL)")
        connection.execute("CREATE TABLE config (key TEXT, value TEXT)")
        connection.executemany("INSERT INTO components VALUES (?, ?)", rows)
    connection.close()
    return path


def test_harvest_db_decides_targets(run, tokens, tmp_path, expected):
    database = harvest_db(tmp_path / "harvest.db", [("h.1.mlp.c_fc:2", 0.5), ("h.1.mlp.c_fc:0", 0.0)])
    found = harvest(AttributionHarvester(run, harvest_db=database), tokens, tmp_path / "found")
    block = found.regular_attr["1.mlp.up"]["0.attn.o"]
    assert block.any(1).tolist() == [False, False, True]
    torch.testing.assert_close(block[2], expected.regular_attr["1.mlp.up"]["0.attn.o"][2])
    assert not found.regular_attr["1.mlp.down"]["1.mlp.up"].any()
    assert found.provenance["n_alive"]["1.mlp.up"] == 1
    torch.testing.assert_close(found.embed_unembed_attr, expected.embed_unembed_attr)


def test_alive_batches_decide_targets(run, tokens, tmp_path, expected):
    """Mean causal importance over the first batches, strictly above the threshold."""
    harvester, data = AttributionHarvester(run), TokenDataModule(tokens, batch_size=2)
    means = harvester.load_run().model.causal_importance(torch.cat([data.batch(0), data.batch(1)]))
    threshold = float(means["1.mlp.up"].double().mean((0, 1)).sort().values[1])
    found = harvest(AttributionHarvester(run, alive_batches=2, ci_threshold=threshold), tokens, tmp_path / "found")
    for layer, ci in means.items():
        alive = ci.double().mean((0, 1)) > threshold
        assert found.provenance["n_alive"][layer] == int(alive.sum())
    assert found.provenance["n_alive"]["1.mlp.up"] == 1
    assert found.ci_threshold == threshold
    block, whole = (s.regular_attr["1.mlp.up"]["0.attn.o"] for s in (found, expected))
    alive = means["1.mlp.up"].double().mean((0, 1)) > threshold
    torch.testing.assert_close(block[alive], whole[alive])
    assert not block[~alive].any()


def test_no_component_alive(run, tokens, tmp_path):
    with pytest.raises(ConfigurationError, match=r"none of 66 components is alive, .* ci_threshold 1"):
        harvest(AttributionHarvester(run, alive_batches=1, ci_threshold=1.0), tokens, tmp_path)


def test_a_harvester_can_harvest_again(run, tokens, tmp_path, expected):
    harvester = AttributionHarvester(run)
    harvest(harvester, tokens, tmp_path / "a", batch_size=1)
    assert_same(harvest(harvester, tokens, tmp_path / "b", batch_size=7), expected)
    assert harvester._rows_at_once == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets_per_pass": 0}, "model.targets_per_pass must be at least 1, found 0"),
        ({"abs_share": 0.0}, "model.abs_share must be above 0 and at most 1, found 0.0"),
        ({"abs_share": 1.5}, "model.abs_share must be above 0 and at most 1, found 1.5"),
        ({"abs_share": 0.5, "metrics": "attr"}, "model.abs_share 0.5 does nothing with metrics attr"),
        ({"workspace_mb": 0}, "model.workspace_mb must be at least 1, found 0"),
        ({"memory_gb": float("nan")}, "model.memory_gb must be positive, found nan"),
        ({"alive_batches": 0}, "model.alive_batches must be at least 1, found 0"),
        ({"ci_threshold": 0.1}, "model.ci_threshold 0.1 does nothing without model.alive_batches"),
        ({"ci_threshold": 0.1, "harvest_db": "x"}, "model.ci_threshold 0.1 does nothing without model.alive_batches"),
        ({"ci_threshold": -0.1, "alive_batches": 1}, "model.ci_threshold is a mean .* from 0 to 1, found -0.1"),
        ({"ci_threshold": 1.1, "alive_batches": 1}, "model.ci_threshold is a mean .* from 0 to 1, found 1.1"),
        ({"ci_threshold": float("nan")}, "model.ci_threshold is a mean .* from 0 to 1, found nan"),
        ({"alive_batches": 1, "harvest_db": "x"}, "both say which components are alive"),
    ],
)
def test_contradictory_options(options, message):
    with pytest.raises(ConfigurationError, match=message):
        AttributionHarvester("x", **options)


def test_token_outside_the_vocabulary(run, tmp_path):
    np.save(tmp_path / "t.npy", np.array([[1, 2, 3], [4, 11, 5]]))
    with pytest.raises(DataError, match="batch 1, row 0, position 1: token id 11 is outside"):
        harvest(AttributionHarvester(run), tmp_path / "t.npy", tmp_path, batch_size=1)


def test_sequences_longer_than_the_context(run, tmp_path):
    tokens = write_tokens(tmp_path / "t.npy", 2, seq_len=9)
    with pytest.raises(DataError, match="sequences of 9 tokens are longer than the model's context of 8"):
        harvest(AttributionHarvester(run), tokens, tmp_path)


def test_missing_run(tokens, tmp_path):
    with pytest.raises(RunNotFoundError, match="no run at"):
        harvest(AttributionHarvester(tmp_path / "nothing"), tokens, tmp_path)


def test_checkpoints_carry_no_sums(run, tokens, tmp_path):
    harvester = AttributionHarvester(run)
    harvest(harvester, tokens, tmp_path)
    assert not [name for name in harvester.state_dict() if name.startswith("sums")]
