"""Files that the version before wrote, and harvests that it left unfinished; see tests/before/README.md."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.software import software
from lit_attr.parts.status import status
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.verify import verify
from tests.harvest.runs import assert_same, work

BEFORE = Path(__file__).parents[1] / "before"
RUN_ID = "s-0before0"
MODEL = {"alive_batches": 2, "ci_threshold": 0.45}


@pytest.fixture
def given(tmp_path):
    """The run, under its own name, and the tokens."""
    return shutil.copytree(BEFORE / "run", tmp_path / RUN_ID), BEFORE / "tokens.npy"


@pytest.fixture
def folder(tmp_path):
    """Put one of the harvests under a root of results; its folder."""

    def folder(name):
        return shutil.copytree(BEFORE / name, tmp_path / "out" / "dataset_attributions" / RUN_ID / f"da-{name}")

    return folder


@pytest.fixture
def expected():
    return DatasetAttributionStorage.load(BEFORE / "expected.pt")


def assert_expected(path, expected):
    found = DatasetAttributionStorage.load(path)
    assert_same(found, expected, 1e-6)
    assert found.embed_token_count.equal(expected.embed_token_count)
    assert found.provenance["not_targets"] == expected.provenance["not_targets"]
    assert found.provenance["data_shape"] == [16, 8]
    assert found.provenance["data_digest"] == TokenDataModule(BEFORE / "tokens.npy").digest(8)
    assert "data_fingerprint" not in found.provenance
    assert verify(path)[-1] == "coverage: all 8 batches"
    return found.recorded


def test_a_result_opens_and_answers(folder, tmp_path):
    path = folder("finished") / "dataset_attributions.pt"
    repo = AttributionRepo.open(RUN_ID, tmp_path / "out")
    assert repo.path == path
    lines = verify(path)
    assert lines[0].startswith("digest: sha256 ")
    counted = "tokens: 96, as counted one by one"
    assert lines[-3:] == [counted, "written by: not recorded", "coverage: all 6 batches"]
    known = repo.get_attributions().recorded
    assert (known.schema, known.run_id, known.targets, known.partial) == (1, RUN_ID, None, None)
    assert known.not_targets("0.mlp.up").tolist() == [0, 1]
    with_index = repo.explore()
    assert with_index.is_indexed
    (path.parent / "dataset_attributions.index").unlink()
    without = repo.explore()
    assert not without.is_indexed
    for key in ("0.mlp.up:2", "0.mlp.down:3", "output:1"):
        assert with_index.sources(key, k=5) == without.sources(key, k=5)


def test_a_finished_harvest_is_merged_again_to_the_same_numbers(folder):
    harvest = folder("finished")
    before = DatasetAttributionStorage.load(harvest / "dataset_attributions.pt")
    assert (status(harvest).n_merged, status(harvest).n_done) == (6, 6)
    found = DatasetAttributionStorage.load(merge_harvest(harvest))
    for (name, tensor), (_, old) in zip(found.named_sums(), before.named_sums(), strict=True):
        assert torch.equal(tensor, old), name
    assert found.recorded.coverage == before.recorded.coverage


def test_a_finished_harvest_is_extended(folder, given, expected, tmp_path):
    harvest = folder("finished")
    written = work(*given, tmp_path / "out", model=MODEL, subrun_id=harvest.name)
    assert written.path == harvest / "dataset_attributions.pt"
    first, second = assert_expected(written.path, expected).entries["generations"]
    assert (first["n_batches"], first["created"], second["n_batches"]) == (6, "2026-11-25T13:59:00+00:00", 8)


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_unfinished_harvest_is_continued(folder, given, expected, tmp_path, world_size):
    harvest = folder("stopped")
    assert (status(harvest).n_done, status(harvest).n_frozen, status(harvest).n_batches) == (5, 4, 8)
    partial = merge_harvest(harvest, allow_partial=True)
    assert DatasetAttributionStorage.load(partial).recorded.partial == "5 of 8 batches"
    np.save(tmp_path / "others.npy", np.load(given[1])[::-1])
    with pytest.raises(ConfigurationError, match="data_fingerprint: the harvest has '52c6f1"):
        work(given[0], tmp_path / "others.npy", tmp_path / "out", model=MODEL, subrun_id=harvest.name)
    for rank in range(world_size):
        data = {"rank": rank, "world_size": world_size}
        written = work(*given, tmp_path / "out", model=MODEL, subrun_id=harvest.name, data=data)
        assert written.folder == harvest
    path = written.path or merge_harvest(harvest)
    assert assert_expected(path, expected).software == [{"lit_attr": "before 0.2"}, software()]
