"""Models of `transformers` from local folders."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.decomposition.huggingface import build_from_config, load_pretrained
from lit_attr.decomposition.untrained import Svd
from lit_attr.decomposition.untrained.run import load_untrained
from lit_attr.errors import DataError, RunFormatError, RunNotFoundError, UnsupportedModelError
from lit_attr.topology.paths import PathTable, path_table
from tests.attribution.closed_form.examples import assert_close
from tests.attribution.named import named_result
from tests.huggingface_toys import CONTEXT, VARIANTS, VOCAB, huggingface_config, randomise
from tests.sums import full_sums, layout_of
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
    assert model.block_size == config.max_position_embeddings


def test_a_class_that_adds_in_place_and_has_no_longest_sequence(tmp_path):
    """Bloom: positions by their distance alone."""
    sizes = {"vocab_size": VOCAB, "hidden_size": 8, "n_layer": 2, "n_head": 2}
    config = transformers.BloomConfig(**sizes, pad_token_id=None, bos_token_id=0, eos_token_id=0)
    original = transformers.BloomForCausalLM(config)
    randomise(original, seed=0)
    original.save_pretrained(tmp_path)
    blocks = {
        "mlp.up": "transformer.h.{block}.mlp.dense_h_to_4h",
        "mlp.down": "transformer.h.{block}.mlp.dense_4h_to_h",
    }
    table = PathTable("BloomForCausalLM", "transformer.word_embeddings", "lm_head", blocks)
    run = load_untrained(tmp_path, Svd(), table)
    assert run.model.block_size > 10**9
    topology, tokens = trace_topology(run.model), random_tokens(2, 5)
    alive = {layer: torch.ones(n, dtype=torch.bool) for layer, n in run.model.n_components.items()}
    found = []
    for name in ("auto", "autograd"):
        sums = full_sums(topology, torch.float32)
        engine = build_engine(
            choose_engines(name, run.model, topology), run.model, layout_of(topology, alive=alive), 16, 1 << 26
        )
        engine.add_(sums, run.model.component_forward(tokens), run.model.causal_importance(tokens))
        found.append(named_result(sums, run.model, alive, topology))
    assert found[1]["attr/0.mlp.down->1.mlp.up"].norm() > 1
    assert_close(*found, tolerance=1e-5, smallest=1.0)  # a norm behind the embedding leaves noise of its edges


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
        RunFormatError, match=r"of its LlamaForCausalLM, of whose tensors they lack 3: model\.layers\.1\."
    ):
        load_pretrained(str(tmp_path))


def test_weights_of_a_larger_model_are_named(tmp_path):
    """The library would leave them out."""
    saved(tmp_path)
    change_config(tmp_path, num_hidden_layers=1)
    with pytest.raises(RunFormatError, match=r"they have beyond those 9: model\.layers\.1\."):
        load_pretrained(str(tmp_path))


def test_weights_of_other_shapes_are_named(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, intermediate_size=10)
    expected = r"in other shapes 6: model\.layers\.0\.mlp\.\w+\.weight \(expected \(16, 10\), found \(16, 12\)\)"
    with pytest.raises(RunFormatError, match=expected):
        load_pretrained(str(tmp_path))


def test_a_configuration_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunFormatError, match=rf"cannot read {tmp_path}/config\.json: "):
        load_pretrained(str(tmp_path))


def test_damaged_weights(tmp_path):
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunFormatError, match=f"cannot read the weights of {tmp_path}: "):
        load_pretrained(str(tmp_path))


def test_unknown_rotary_positions(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(UnsupportedModelError, match="rotary positions of type 'dynamic' are not known"):
        load_pretrained(str(tmp_path))


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
