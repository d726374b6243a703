"""Harvests of language models that are decomposed without training."""

import logging

import pytest
import torch

from lit_attr.decomposition.untrained import Neurons, Svd
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.paths import PathTable
from tests.harvest.runs import assert_same, harvest, stop, work
from tests.huggingface_toys import huggingface_target
from tests.toys import write_tokens

TABLE = PathTable(
    "LlamaForCausalLM",
    embed="model.embed_tokens",
    output="lm_head",
    blocks={"attn.o": "model.layers.{block}.self_attn.o_proj", "glu.down": "model.layers.{block}.mlp.down_proj"},
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders as `save_pretrained` writes them, by variant."""
    folder = tmp_path_factory.mktemp("models")
    for variant in ("gpt2", "llama"):
        huggingface_target(variant, torch.float32).save_pretrained(folder / variant)
    return folder


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "t.npy", 5)


@pytest.mark.parametrize("decomposition", [Svd(threshold=0.1), Neurons(threshold=0.1)], ids=str)
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_closed_forms_equal_gradients(models, tokens, tmp_path, variant, decomposition):
    found = {}
    for engine in ("auto", "autograd"):
        harvester = AttributionHarvester(models / variant, engine=engine, decomposition=decomposition)
        found[engine] = harvest(harvester, tokens, tmp_path / engine, precision="64-true")
        assert ("closed_form" in found[engine].provenance["engine_blocks"]) == (engine == "auto")
    assert_same(found["auto"], found["autograd"], 1e-6)  # norms and softmaxes of transformers are in float32
    assert max(float(tensor.abs().max()) for _, tensor in found["auto"].named_sums()) > 0


def test_provenance(models, tokens, tmp_path):
    harvester = AttributionHarvester(models / "llama", decomposition=Svd(threshold=0.1), path_table=TABLE)
    found = harvest(harvester, tokens, tmp_path).provenance
    assert found["run_id"] == "llama-svd-0.1"
    assert found["decomposition"]["init_args"] == {"threshold": 0.1, "matrices": None}
    assert found["decomposition"]["class_path"].endswith(".Svd")
    assert found["configuration"]["model"]["decomposition"] == found["decomposition"]
    assert found["configuration"]["model"]["path_table"]["blocks"] == dict(TABLE.blocks)
    assert list(found["n_alive"]) == ["0.attn.o", "0.glu.down", "1.attn.o", "1.glu.down"]
    assert set(found["n_alive"].values()) == {12, 16}, "all are targets"


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (
            {"path_table": None},
            r"path_table: the harvest has {'architecture': 'LlamaForCausalLM', .*, this command N",
        ),
    ],
)
def test_other_settings_do_not_continue(models, tokens, tmp_path, change, entry, caplog):
    caplog.set_level(logging.INFO)
    given = {"decomposition": Svd(threshold=0.1, matrices=["1.*"]), "path_table": TABLE}
    folder = stop(1, models / "llama", tokens, tmp_path, model=given)
    with pytest.raises(ConfigurationError, match=f"cannot continue .*{entry}"):
        work(models / "llama", tokens, tmp_path, model={**given, **change}, subrun_id=folder.name)
    assert work(models / "llama", tokens, tmp_path, model={**given, **change}).folder != folder
    assert "not continuing the unfinished" in caplog.text
    continued = work(models / "llama", tokens, tmp_path, model=given)
    assert continued.folder == folder
    whole = harvest(AttributionHarvester(models / "llama", **given), tokens, tmp_path / "whole")
    assert_same(DatasetAttributionStorage.load(continued.path), whole)


def test_other_settings_are_another_result(models, tokens, tmp_path):
    stop(1, models / "gpt2", tokens, tmp_path, model={"decomposition": Svd(threshold=0.1)})
    folder = work(models / "gpt2", tokens, tmp_path, model={"decomposition": Svd(threshold=0.2)}).folder
    assert folder.parent.name == "gpt2-svd-0.2"
    some = Svd(threshold=0.2, matrices=["1.*"])
    other = work(models / "gpt2", tokens, tmp_path, model={"decomposition": some}).folder
    assert other.parent.name.startswith("gpt2-svd-0.2-")


def test_alive_batches(models, tokens, tmp_path):
    """The mean causal importance of a component is how often its share is large."""
    settings = {"decomposition": Svd(threshold=0.1), "alive_batches": 3, "ci_threshold": 0.2}
    found = harvest(AttributionHarvester(models / "gpt2", **settings), tokens, tmp_path).provenance["n_alive"]
    assert 0 < sum(found.values()) < 2 * (16 + 16 + 12 + 12)


def test_contradictions(models):
    with pytest.raises(
        ConfigurationError, match=r"model\.harvest_db is of a trained run: drop it, or model.decomposit"
    ):
        AttributionHarvester(models / "gpt2", harvest_db="x.db", decomposition=Svd())
    with pytest.raises(ConfigurationError, match=r"without training has not: give --data.tokens FILE.npy, or"):
        TokenDataModule()
