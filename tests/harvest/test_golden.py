"""Harvests of trained runs, against those of the other implementation."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from benchmarks.workers import QUIET
from lit_attr.decomposition.load import load_run
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.rounding import Activation, Float64, all_plus
from tests.harvest.runs import assert_same, harvest
from tests.successor_runs import write_successor_run

UNDECIDED = {
    "s-kjvmlp02": [],
    "s-kjvgpt02": [Activation("1.mlp.up", 132, 10, 24), Activation("1.mlp.down", 102, 10, 27)],
}


def exact_forward(run, shared):
    tokens = torch.from_numpy(np.load(shared / "golden" / "tokens.npy").astype(np.int64))
    return Float64(load_run(shared / "spd_out" / "runs" / f"spd-{run}").model, tokens)


@pytest.mark.parametrize("engine", [pytest.param("autograd", marks=pytest.mark.slow), "closed_form"])
@pytest.mark.parametrize("run", UNDECIDED)
def test_equals_the_other_implementation_on_every_tensor(run, engine, shared, tmp_path):
    """Also in `attr_abs`, but for the two signs of a million that the rounding of a machine decides."""
    harvester = AttributionHarvester(shared / "spd_out" / "runs" / f"spd-{run}", engine=engine)
    found = harvest(harvester, shared / "golden" / "tokens.npy", tmp_path, batch_size=8)
    golden = DatasetAttributionStorage.load(shared / "golden" / f"{run}.pt")
    exact = exact_forward(run, shared)
    assert exact.undecided() == UNDECIDED[run]
    signs = [exact.by_sign(at) for at in UNDECIDED[run]]
    assert_same(all_plus(found, signs), all_plus(golden, signs), tolerance=1e-5)
    assert found.w_unembed.equal(golden.w_unembed)
    assert (found.ci_threshold, found.n_tokens_processed) == (golden.ci_threshold, golden.n_tokens_processed)
    assert found.provenance["run_id"] == run
    assert list(found.provenance["engine_blocks"]) == [engine]


@pytest.mark.parametrize("name", ["run_meta.yaml", "experiment_config.yaml"])
def test_the_same_run_in_files_of_the_successor(name, shared, tmp_path, monkeypatch):
    """To the last bit what the run's own files give."""
    run, root = "p-kjvmlp02", tmp_path / "theirs"
    monkeypatch.setenv("PARAM_DECOMP_OUT_DIR", str(root))
    write_successor_run(shared / "spd_out" / "runs" / "spd-s-kjvmlp02", root / "runs" / run, name=name)
    (root / "pretrain_cache").symlink_to(shared / "spd_out" / "pretrain_cache")
    writer = StorageWriter(tmp_path, layout="param_decomp")
    data = TokenDataModule(shared / "golden" / "tokens.npy", 8)
    Trainer(**QUIET, callbacks=[writer]).predict(AttributionHarvester(run), datamodule=data)
    assert writer.path.parents[1] == tmp_path / "runs" / run / "dataset_attributions"
    found = AttributionRepo.latest(run, tmp_path).get_attributions()
    assert_same(found, DatasetAttributionStorage.load(shared / "golden" / "s-kjvmlp02.pt"), tolerance=1e-5)
    original = AttributionHarvester(shared / "spd_out" / "runs" / "spd-s-kjvmlp02")
    own = harvest(original, shared / "golden" / "tokens.npy", tmp_path / "own", batch_size=8)
    assert all(one.equal(two) for (_, one), (_, two) in zip(found.named_sums(), own.named_sums(), strict=True))
    assert found.provenance["run_id"] == run


def test_only_the_whole_flip_of_an_undecided_sign_is_the_same_result(shared):
    run = "s-kjvgpt02"
    exact = exact_forward(run, shared)
    first, second = undecided = [exact.by_sign(at) for at in UNDECIDED[run]]
    golden = all_plus(DatasetAttributionStorage.load(shared / "golden" / f"{run}.pt"), undecided)

    def check(sums, flips):
        found = deepcopy(golden)
        sums.add_flips_(found, flips)
        assert_same(all_plus(found, undecided), golden, tolerance=1e-5)

    check(first, -1)
    check(second, -1)
    decided = exact.by_sign(Activation("1.mlp.up", 132, 10, 23))
    # The contribution of `second` is below the tolerance itself.
    for sums, flips in [(first, -0.5), (first, -2), (first, 1), (decided, -1), (decided, 1)]:
        with pytest.raises(AssertionError, match="attr_abs"):
            check(sums, flips)
