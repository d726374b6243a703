import pytest

from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.runs import assert_same, harvest


@pytest.mark.parametrize("engine", [pytest.param("autograd", marks=pytest.mark.slow), "closed_form"])
@pytest.mark.parametrize("run", ["s-kjvmlp02", "s-kjvgpt02"])
def test_equals_the_other_implementation_on_every_tensor(run, engine, shared, tmp_path):
    harvester = AttributionHarvester(shared / "spd_out" / "runs" / f"spd-{run}", engine=engine)
    found = harvest(harvester, shared / "golden" / "tokens.npy", tmp_path, batch_size=8)
    golden = DatasetAttributionStorage.load(shared / "golden" / f"{run}.pt")
    assert_same(found, golden, tolerance=1e-5)
    assert found.w_unembed.equal(golden.w_unembed)
    assert (found.ci_threshold, found.n_tokens_processed) == (golden.ci_threshold, golden.n_tokens_processed)
    assert found.provenance["run_id"] == run
    assert list(found.provenance["engine_blocks"]) == [engine]
