"""Harvests of `attr` alone, and of `attr_abs` from a share of the batches, through the real Trainer."""

import numpy as np
import pytest
import torch

from lit_attr.data.batch_ids import is_in_share
from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.parts.header import Header
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.part import read_part
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from tests.harvest.runs import assert_same, harvest, small_run, stop, work
from tests.storage.examples import without_abs
from tests.sums import layout_of
from tests.toys import write_tokens

BATCH_SIZE, N_BATCHES = 2, 8
HALF = {"abs_share": 0.5}


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path / "spd-s-toytoy00")


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=BATCH_SIZE * N_BATCHES)


@pytest.fixture
def whole(run, tokens, tmp_path):
    return harvest(AttributionHarvester(run), tokens, tmp_path / "whole")


@pytest.fixture
def half(run, tokens, whole, tmp_path):
    """What a harvest of half of the batches' `attr_abs` must be: that of these batches by themselves, scaled."""
    rows = np.load(tokens).reshape(N_BATCHES, BATCH_SIZE, -1)
    chosen = [batch for batch in range(N_BATCHES) if is_in_share(batch, 0.5)]
    assert chosen == [0, 2, 4, 5, 7]
    np.save(tmp_path / "chosen.npy", rows[chosen].reshape(-1, rows.shape[2]))
    of_chosen = harvest(AttributionHarvester(run), tmp_path / "chosen.npy", tmp_path / "chosen")
    factor = N_BATCHES / len(chosen)
    return DatasetAttributionStorage(
        **{
            **vars(whole),
            "regular_attr_abs": {
                target: {source: block * factor for source, block in by_source.items()}
                for target, by_source in of_chosen.regular_attr_abs.items()
            },
            "embed_attr_abs": {target: block * factor for target, block in of_chosen.embed_attr_abs.items()},
        }
    )


def assert_half(path, half):
    found = DatasetAttributionStorage.load(path)
    assert_same(found, half)
    n_tokens = half.n_tokens_processed
    known = {name: found.provenance[name] for name in ("metrics", "abs_share", "n_abs_tokens")}
    assert known == {"metrics": "both", "abs_share": 0.5, "n_abs_tokens": n_tokens * 5 // 8}
    assert found.sample("attr_abs").n_tokens == n_tokens * 5 // 8


def test_a_share_is_that_of_the_chosen_batches_scaled(run, tokens, half, whole, tmp_path):
    written = work(run, tokens, tmp_path / "out", model=HALF, data={"order": "file"})
    assert_half(written.path, half)
    assert not torch.allclose(half.embed_attr_abs["0.mlp.up"], whole.embed_attr_abs["0.mlp.up"], rtol=0.01)


def test_a_share_after_a_restart_with_other_workers(run, tokens, half, tmp_path):
    folder = stop(3, run, tokens, tmp_path / "out", model=HALF, data={"order": "file"})
    for rank in range(2):
        data = {"rank": rank, "world_size": 2, "order": "file"}
        written = work(run, tokens, tmp_path / "out", model=HALF, data=data, subrun_id=folder.name)
    assert_half(written.path or merge_harvest(folder), half)


def test_a_partial_result_without_a_batch_of_the_share_has_no_attr_abs(run, tokens, tmp_path):
    """Only batch 0 is in the share: the other worker has measured no `attr_abs`, which is not zero."""
    model, data = {"abs_share": 0.05}, {"rank": 1, "world_size": 2}
    folder = work(run, tokens, tmp_path / "out", model=model, data=data, subrun_id="da-one").folder
    path = merge_harvest(folder, allow_partial=True)
    partial = DatasetAttributionStorage.load(path)
    assert (partial.metrics, partial.regular_attr_abs, partial.embed_attr_abs) == (("attr",), {}, {})
    with pytest.raises(ConfigurationError, match="attr_abs was not harvested"):
        partial.get_top_sources("0.mlp.down:0", metric="attr_abs")
    assert any(line.startswith("coverage: PARTIAL") for line in verify(path))
    work(run, tokens, tmp_path / "out", model=model, data={**data, "rank": 0}, subrun_id="da-one")
    assert DatasetAttributionStorage.load(merge_harvest(folder)).metrics == ("attr", "attr_abs")


@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_attr_alone(run, tokens, whole, tmp_path, engine):
    harvester = AttributionHarvester(run, metrics="attr", engine=engine)
    found = harvest(harvester, tokens, tmp_path / "out")
    assert_same(found, without_abs(whole, found.provenance))
    assert (found.metrics, found.provenance["metrics"]) == (("attr",), "attr")
    assert not harvester.sums.recent.attr_abs


def test_parts_of_attr_alone(run, tokens, whole, tmp_path):
    """They hold no sums of `attr_abs`, and are continued."""
    folder = stop(3, run, tokens, tmp_path / "out", model={"metrics": "attr"})
    (path,) = (folder / "worker_states").glob("*.pt")
    topology = Header.load(folder).topology
    sums, ledger = read_part(path, layout_of(topology, "attr", squares_dtype=torch.float32))
    assert (sums.attr_abs, int(sums.n_abs_tokens), ledger.n_batches) == ({}, 0, 3)
    with pytest.raises(StorageError, match="its sums are not those of this harvest's model"):
        read_part(path, layout_of(topology, "both", squares_dtype=torch.float32))
    written = work(run, tokens, tmp_path / "out", model={"metrics": "attr"})
    assert written.folder == folder
    found = DatasetAttributionStorage.load(written.path)
    assert_same(found, without_abs(whole, found.provenance))
