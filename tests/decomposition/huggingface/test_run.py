"""Decomposition runs over models of `transformers`."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import decompose_by_config, load_run
from lit_attr.errors import RunFormatError, RunNotFoundError, UnsupportedModelError
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.topology.paths import path_table
from tests.harvest.runs import assert_same, harvest
from tests.huggingface_toys import VOCAB, huggingface_config, huggingface_target, randomise
from tests.toys import random_tokens, write_tokens

MATRICES = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
OPTIONS = {
    "pretrained_model_class": "transformers.GPT2LMHeadModel",
    "pretrained_model_name": "openai-community/gpt2",
    "pretrained_model_output_attr": "logits",
    "module_info": [{"module_pattern": f"transformer.h.*.{m}", "C": 5 + i} for i, m in enumerate(MATRICES)],
    "ci_config": {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [6]},
}


def write(folder: Path, **changes):
    """A run over a tiny GPT-2, its `config.json` beside it; the model."""
    options = {**OPTIONS, **changes}
    config = RunConfig.from_options({**OPTIONS, "module_info": options["module_info"]}, "toy")
    model = decompose_by_config(huggingface_target("gpt2", torch.float32), config, path_table("GPT2LMHeadModel"))
    randomise(model, seed=1)
    folder.mkdir(exist_ok=True)
    (folder / "final_config.yaml").write_text(yaml.safe_dump(options))
    (folder / "config.json").write_text(json.dumps(huggingface_config("gpt2").to_dict()))
    torch.save(model.state_dict(), folder / "model_10.pth")
    return model


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run")
    return tmp_path / "run"


def test_weights_and_addresses(tmp_path):
    model = write(tmp_path / "run")
    loaded = load_run(tmp_path / "run").model
    tokens = random_tokens(2, 9, vocab=VOCAB)
    assert loaded.component_forward(tokens).logits.equal(model.component_forward(tokens).logits)
    for layer, values in loaded.causal_importance(tokens).items():
        assert values.equal(model.causal_importance(tokens)[layer])
    matrices = ("attn_fused.qkv", "attn_fused.o", "mlp.up", "mlp.down")
    assert loaded.n_components == {f"{block}.{m}": 5 + i for i, m in enumerate(matrices) for block in (0, 1)}


@pytest.mark.parametrize("engine", ["closed_form", "auto"])
def test_harvest(run, tmp_path, engine):
    tokens = write_tokens(tmp_path / "tokens.npy", 6)
    found = harvest(AttributionHarvester(run, engine=engine), tokens, tmp_path / engine)
    expected = harvest(AttributionHarvester(run, engine="autograd"), tokens, tmp_path / "autograd")
    assert_same(found, expected)
    assert list(found.provenance["engine_blocks"]) == ["closed_form"]
    assert [list(by) for by in found.provenance["software"]] == [["lit_attr", "torch", "transformers"]]
    blocks = found.provenance["engine_blocks"]["closed_form"]
    assert len(blocks) == len(set(blocks))


def test_buffers_of_older_versions_are_left_out(run):
    checkpoint = run / "model_10.pth"
    state = torch.load(checkpoint)
    expected = load_run(run)
    for block in (0, 1):
        state[f"target_model.transformer.h.{block}.attn.bias"] = torch.ones(1, 1, 4, 4)
        state[f"target_model.transformer.h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, checkpoint)
    assert load_run(run).model.state_dict().keys() == expected.model.state_dict().keys()
    del state["target_model.transformer.h.0.attn.c_attn.bias"]
    torch.save(state, checkpoint)
    with pytest.raises(RunFormatError, match=r"1 missing: target_model\.transformer\.h\.0\.attn\.c_attn\.bias"):
        load_run(run)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("transformer.wte", "the run decomposes 'transformer.wte': attributions start at the undecomposed embedding"),
        ("lm_head", "the run decomposes 'lm_head': attributions start at"),
        ("transformer.wpe", "module 'transformer.wpe' of GPT2LMHeadModel has no canonical address; addressable are: "),
    ],
)
def test_what_has_no_address_is_refused(run, pattern, message):
    options = {**OPTIONS, "module_info": [{"module_pattern": pattern, "C": 3}]}
    (run / "final_config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises((UnsupportedModelError, RunFormatError), match=message):
        load_run(run)


def test_inserted_identities_are_refused(run):
    options = {**OPTIONS, "identity_module_info": [{"module_pattern": "transformer.h.0.mlp.c_fc", "C": 3}]}
    (run / "final_config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(UnsupportedModelError, match=r"inserted identity matrices.*no canonical address"):
        load_run(run)


def test_without_an_architecture(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (run / "config.json").unlink()
    with pytest.raises(RunNotFoundError, match=r"no config\.json for the target model 'openai-community/gpt2': looked"):
        load_run(run)
