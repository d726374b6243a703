"""Models of `transformers` from local folders."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers

from lit_attr.decomposition.huggingface import build_from_config, load_pretrained
from lit_attr.errors import DataError, RunFormatError, RunNotFoundError, UnsupportedModelError
from lit_attr.topology.paths import PathTable, path_table
from tests.huggingface_toys import CONTEXT, VARIANTS, VOCAB, huggingface_config, randomise
from tests.toys import random_tokens


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def saved(folder: Path, variant: str = "llama"):
    """The library's own model, and the folder that it is saved in."""
    config = huggingface_config(variant)
    model = getattr(transformers, VARIANTS[variant][0])(config)
    randomise(model, seed=1)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_names_are_those_of_the_library(tmp_path, variant):
    original = saved(tmp_path, variant)
    model, table = load_pretrained(str(tmp_path))
    tokens = random_tokens(2, 9, vocab=VOCAB)
    assert model(tokens).equal(original(tokens).logits)
    assert list(model.state_dict()) == list(original.state_dict())
    assert (model.n_token_ids, model.block_size, type(model).__name__) == (VOCAB, CONTEXT, VARIANTS[variant][0])
    assert table == path_table(VARIANTS[variant][0])
    assert not model.training
    assert model(tokens).dtype == torch.float32


def test_sequences_beyond_the_context_are_refused(tmp_path):
    saved(tmp_path)
    model, _ = load_pretrained(str(tmp_path))
    with pytest.raises(DataError, match=f"sequences of {CONTEXT + 1} tokens are longer than the model's context of 70"):
        model(random_tokens(1, CONTEXT + 1))


@pytest.mark.parametrize("reference", ["/no/such/folder", "no-such-model", "some-org/no-such-model"])
def test_a_model_that_is_nowhere(reference):
    with pytest.raises(
        RunNotFoundError, match=f"no model at '{reference}': expected a local folder with a config.json"
    ):
        load_pretrained(reference)


def change_config(folder: Path, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_class_without_a_table(tmp_path):
    transformers.OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"unknown target model class 'OPTForCausalLM'.*model\.path_table"):
        load_pretrained(str(tmp_path))


def test_a_configuration_without_a_class(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, architectures=None)
    with pytest.raises(UnsupportedModelError, match=r"its config.json names no class \(architectures\)"):
        load_pretrained(str(tmp_path))


def test_a_class_that_the_library_lacks(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, architectures=["NoSuchModel"])
    table = PathTable("NoSuchModel", "wte", "lm_head", {})
    with pytest.raises(UnsupportedModelError, match="the installed transformers has no model class 'NoSuchModel'"):
        load_pretrained(str(tmp_path), table)


def test_a_users_own_table(tmp_path):
    """Of a class that the package does not know; nothing is known of what lies between its matrices."""
    config = transformers.GemmaConfig(
        vocab_size=VOCAB,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        **{"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0},
    )
    transformers.GemmaForCausalLM(config).save_pretrained(tmp_path)
    blocks = {"mlp.up": "model.layers.{block}.mlp.up_proj"}
    table = PathTable("GemmaForCausalLM", "model.embed_tokens", "lm_head", blocks)
    model, found = load_pretrained(str(tmp_path), table)
    assert found is table
    assert model.anatomy() is None
    assert model(random_tokens(1, 3)).shape == (1, 3, VOCAB)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed": "model.wte"}, "expected the embedding (nn.Embedding) at 'model.wte', found nothing"),
        ({"output": "model.norm"}, "expected the unembedding (nn.Linear) at 'model.norm', found LlamaRMSNorm"),
        (
            {"blocks": {"mlp.up": "model.h.{block}.up"}},
            "expected the matrix mlp.up at 'model.h.0.up', found nothing",
        ),
        ({"architecture": "GPT2LMHeadModel"}, "the path table is of GPT2LMHeadModel, but"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path, changes, message):
    saved(tmp_path)
    own = path_table("LlamaForCausalLM")
    parts = {"architecture": own.architecture, "embed": own.embed, "output": own.output, "blocks": own.blocks}
    with pytest.raises(UnsupportedModelError, match=re.escape(message)):
        load_pretrained(str(tmp_path), PathTable(**{**parts, **changes}))


def test_weights_that_are_missing_are_named(tmp_path):
    model = saved(tmp_path)
    kept = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(
        RunFormatError, match=r"lack 3 tensors of a LlamaForCausalLM: model.layers.1.mlp.down_proj.weig"
    ):
        load_pretrained(str(tmp_path))


def test_damaged_weights(tmp_path):
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunFormatError, match=f"cannot read the weights of {tmp_path}: "):
        load_pretrained(str(tmp_path))


def test_unknown_rotary_positions(tmp_path):
    saved(tmp_path)
    model, _ = load_pretrained(str(tmp_path))
    model.model.rotary_emb.rope_type = "longrope"
    with pytest.raises(UnsupportedModelError, match="rotary positions of type 'longrope' are not known"):
        model.anatomy()


@pytest.mark.parametrize("place", ["run folder", "beside", "absolute"])
def test_the_architecture_of_a_run(tmp_path, place, monkeypatch):
    """From the run's own folder, or from the local folder that the run names."""
    run, model = tmp_path / "run", tmp_path / "model"
    original = saved(model, "gpt2")
    run.mkdir()
    name = str(model)
    if place == "run folder":
        shutil.copy(model / "config.json", run)
        name = "openai-community/gpt2"
    elif place == "beside":
        monkeypatch.chdir(tmp_path)
        name = "model"
    built = build_from_config("GPT2LMHeadModel", name, run, path_table("GPT2LMHeadModel"))
    built.load_state_dict(original.state_dict())
    tokens = random_tokens(2, 9, vocab=VOCAB)
    torch.testing.assert_close(built.eval()(tokens), original(tokens).logits)


@pytest.mark.parametrize("name", [None, "some-org/no-such-model"])
def test_an_architecture_that_is_nowhere(tmp_path, name):
    with pytest.raises(RunNotFoundError, match=f"no config.json for the target model.*looked in {tmp_path}"):
        build_from_config("GPT2LMHeadModel", name, tmp_path, path_table("GPT2LMHeadModel"))


def test_an_architecture_of_another_class(tmp_path):
    saved(tmp_path)
    with pytest.raises(UnsupportedModelError, match="is a LlamaForCausalLM, but the run's configuration says GPT2LMHe"):
        build_from_config("GPT2LMHeadModel", None, tmp_path, path_table("GPT2LMHeadModel"))
