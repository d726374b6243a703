import os

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_attr import __version__
from lit_attr.errors import ConfigurationError, NumericalError, StorageError
from lit_attr.harvest.commits import Commits
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.topology.words import HEADER_FILE
from tests.harvest.runs import QUIET, harvest
from tests.parts.faults import refuse_links
from tests.parts.harvests import begin
from tests.toys import write_run, write_tokens


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "spd-s-toytoy00")


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=3)


def test_place_and_provenance(run, tokens, tmp_path):
    harvester = AttributionHarvester(run, alive_batches=1, ci_threshold=0.25)
    stored = harvest(harvester, tokens, tmp_path / "results")
    repo = AttributionRepo.open("s-toytoy00", tmp_path / "results")
    assert repo.path.parent.parent == tmp_path / "results" / "dataset_attributions" / "s-toytoy00"
    assert repo.get_attributions().n_tokens_processed == stored.n_tokens_processed == 24
    provenance = stored.provenance
    assert provenance["lit_attr_version"] == __version__
    assert provenance["run_reference"] == str(run)
    assert provenance["weights_digest"] == harvester.load_run().weights_digest
    assert provenance["data_digest"] == TokenDataModule(tokens).digest(2)
    assert "data_fingerprint" not in provenance
    assert (provenance["engine"], provenance["precision"], provenance["n_tokens"]) == ("auto", "32-true", 24)
    assert provenance["engine_blocks"] == harvester.choice.blocks
    assert provenance["configuration"]["model"]["ci_threshold"] == 0.25
    assert provenance["configuration"]["data"] == {
        "tokens": str(tokens),
        "batch_size": 2,
        "n_batches": "whole_dataset",
        "dataset": None,
        "rank": 0,
        "world_size": 1,
        "target_shards": 1,
        "target_shard": None,
        "order": None,
        "seed": 0,
    }
    assert (provenance["order"], provenance["order_seed"], provenance["order_rows"]) == ("random", 0, 3)
    assert provenance["coverage"] == {"n_batches": 2, "batches": [[0, 1, 1]], "complete": True}
    assert provenance["configuration"]["writer"] == {"out_dir": str(tmp_path / "results")}
    assert set(provenance["n_alive"]) == set(stored.ci_sum)


def test_default_root_is_the_environments(run, tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "elsewhere"))
    harvest(AttributionHarvester(run), tokens, None)
    assert AttributionRepo.open("s-toytoy00").path.is_relative_to(tmp_path / "elsewhere")


def test_a_second_harvest_is_the_newest(run, tokens, tmp_path):
    harvest(AttributionHarvester(run), tokens, tmp_path, n_batches=1)
    harvest(AttributionHarvester(run), tokens, tmp_path, n_batches=2)
    assert AttributionRepo.open("s-toytoy00", tmp_path).get_attributions().n_tokens_processed == 24


def test_unwritable_root_is_found_before_the_first_batch(run, tokens, tmp_path, monkeypatch):
    (tmp_path / "results").write_text("a file in the way")
    monkeypatch.setattr(AttributionHarvester, "predict_step", lambda *_: pytest.fail("a batch was harvested"))
    with pytest.raises(StorageError, match="cannot create the folder"):
        harvest(AttributionHarvester(run), tokens, tmp_path / "results")


def test_a_file_system_without_links_or_their_like_is_named_before_the_first_batch(run, tokens, tmp_path, monkeypatch):
    refuse_links(monkeypatch)
    monkeypatch.setattr("lit_attr.files.links._renameat2", lambda: None)
    monkeypatch.setattr(AttributionHarvester, "predict_step", lambda *_: pytest.fail("a batch was harvested"))
    with pytest.raises(StorageError, match=r"its file system \(.* at .*\) knows neither hard links nor renames that"):
        harvest(AttributionHarvester(run), tokens, tmp_path)


def test_failed_write_leaves_no_result(run, tokens, tmp_path, monkeypatch):
    fsync = os.fsync

    def full_disk(descriptor):
        if "/.dataset_attributions.pt." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match=r"cannot write .*dataset_attributions\.pt: .*No space left on device"):
        harvest(AttributionHarvester(run), tokens, tmp_path)
    monkeypatch.undo()
    assert AttributionRepo.open("s-toytoy00", tmp_path) is None
    assert harvest(AttributionHarvester(run), tokens, tmp_path).n_tokens_processed == 24
    assert len(list((tmp_path / "dataset_attributions" / "s-toytoy00").iterdir())) == 1


@pytest.mark.parametrize(
    ("value", "why"), [(float("nan"), "values that are not finite"), (1e39, "too large for float32")]
)
def test_sums_that_no_result_can_hold(run, tokens, tmp_path, value, why):
    """As they are after the reduction over all processes."""

    class Spoil(Callback):
        def on_predict_epoch_end(self, trainer, pl_module):
            pl_module.sums.totals.logit_sq[1] = value

    writer = StorageWriter(tmp_path)
    trainer = Trainer(**QUIET, callbacks=[Spoil(), writer])
    with pytest.raises(NumericalError, match=rf"the sums of this trainer's processes.*{why}"):
        trainer.predict(AttributionHarvester(run), datamodule=TokenDataModule(tokens, 2))
    assert writer.path is None
    assert not list(tmp_path.rglob("dataset_attributions.pt"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_other_modules_are_refused(tmp_path):
    class Other(LightningModule):
        def predict_step(self, batch):
            return {}

    trainer = Trainer(**QUIET, callbacks=[StorageWriter(tmp_path)])
    with pytest.raises(ConfigurationError, match="StorageWriter writes an AttributionHarvester's sums, found Other"):
        trainer.predict(Other(), dataloaders=[torch.zeros(1)])


def test_a_folder_that_another_machine_does_not_share(tmp_path):
    writer = StorageWriter()
    writer._commits = Commits(begin(tmp_path, 1), 0, 1.0, None)
    (tmp_path / HEADER_FILE).unlink()
    with pytest.raises(StorageError, match="do all machines share this folder"):
        writer._load_header()
