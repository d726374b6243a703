"""Runs of goodfire-ai/param-decomp in torch: other folders, ids and configurations, the same model."""

import json

import pytest
import torch
import yaml

from lit_attr.data.spec import DatasetOptions
from lit_attr.decomposition.load import load_run, load_without_numbers
from lit_attr.decomposition.locate import locate_run
from lit_attr.errors import RunFormatError, RunNotFoundError, UnsupportedModelError
from lit_attr.harvest.sources import dataset_of_run
from tests.decomposition.huggingface.test_run import write
from tests.successor_runs import nested, write_successor_run
from tests.toys import MODEL_OPTIONS, run_options, write_run

RUN_ID = "p-0a1b2c3d"


@pytest.fixture
def spd_run(tmp_path):
    return write_run(tmp_path / "spd", seed=3)


@pytest.mark.parametrize("name", ["run_meta.yaml", "experiment_config.yaml"])
@pytest.mark.parametrize("folder", ["runs", "param_decomp", "decompositions"])
def test_a_bare_id_is_found_in_its_folders(tmp_path, spd_run, monkeypatch, name, folder):
    monkeypatch.setenv("PARAM_DECOMP_OUT_DIR", str(tmp_path / "theirs"))
    written = write_successor_run(spd_run, tmp_path / "theirs" / folder / RUN_ID, name=name)
    files = locate_run(RUN_ID)
    assert (files.run_id, files.config, files.checkpoint.parent) == (RUN_ID, written / name, written)
    mine, theirs = load_run(spd_run), load_run(RUN_ID)
    assert theirs.weights_digest == mine.weights_digest
    assert theirs.model.n_components == mine.model.n_components
    assert load_without_numbers(written).n_components == mine.model.n_components


def test_what_no_folder_holds_is_asked_for_in_their_project():
    with pytest.raises(RunNotFoundError, match="no cache holds the run goodfire/param-decomp/runs/p-0a1b2c3d"):
        locate_run(RUN_ID)


def test_a_checkpoint_that_ends_in_pt(tmp_path, spd_run):
    folder = write_successor_run(spd_run, tmp_path / RUN_ID)
    (folder / "model_10.pth").rename(folder / "model_400000.pt")
    assert load_run(folder).checkpoint == "model_400000.pt"


def test_their_dataset(tmp_path):
    task = {"dataset_name": "a/b", "column_name": "input_ids", "max_seq_len": 7, "train_data_split": "part"}
    more = {"is_tokenized": True, "streaming": True, "buffer_size": 9, "shuffle_each_epoch": False}
    run = write_run(tmp_path / "spd", task_config={**task, **more}, tokenizer_name="c/d", seed=0)
    options = yaml.safe_load((run / "final_config.yaml").read_text())
    (run / "final_config.yaml").write_text(yaml.safe_dump({**options, "seed": 5}))
    folder = write_successor_run(run, tmp_path / RUN_ID)
    mine, theirs = (dataset_of_run(place, DatasetOptions()) for place in (run, folder))
    assert theirs == mine
    assert (mine.split, mine.seed, mine.tokenizer, mine.column_name) == ("part", 5, "c/d", "input_ids")


@pytest.mark.parametrize("is_nested", [False, True])
def test_tied_components_are_the_others_transposed(tmp_path, is_nested):
    info = [{"module_pattern": f"h.0.mlp.{name}", "C": 4} for name in ("c_fc", "down_proj")]
    pair = ["h.0.mlp.c_fc", "h.0.mlp.down_proj"]
    run = write_run(tmp_path / "spd", module_info=info, tied_weights=[pair])
    run = write_successor_run(run, tmp_path / RUN_ID) if is_nested else run
    model = load_run(run).model
    up, down = model.components("0.mlp.up"), model.components("0.mlp.down")
    assert down.U.equal(up.V.T)
    assert down.V.equal(up.U.T)
    stored = torch.load(next(run.glob("*.pth")), weights_only=True)
    assert up.V.equal(stored["_components.h-0-mlp-c_fc.V"])
    assert not down.V.equal(stored["_components.h-0-mlp-down_proj.V"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([["h.0.mlp.c_fc", "h.9.mlp.c_fc"]], r"'h.9.mlp.c_fc' are tied, but there is no _components.h-9-mlp-c_fc.V"),
        ([["h.0.mlp.c_fc"]], r"tied_weights must be a list of pairs of paths, or null, found \[\['h.0.mlp.c_fc'\]\]"),
        (
            [["h.0.mlp.c_fc", "h.0.attn.q_proj"]],
            r"of another shape: _components.h-0-attn-q_proj.V \(expected \(8, 5\), found",
        ),
    ],
)
def test_ties_that_make_no_sense_are_refused(tmp_path, pairs, message):
    run = write_run(tmp_path / "spd")
    (run / "final_config.yaml").write_text(yaml.safe_dump(run_options(tied_weights=pairs)))
    with pytest.raises(RunFormatError, match=message):
        load_run(run)


@pytest.mark.parametrize(
    ("section", "value", "error", "message"),
    [
        ("target", None, RunFormatError, "run_meta.yaml: target must be a mapping, found None"),
        ("target", {"spec": 3}, RunFormatError, "run_meta.yaml: target.spec must be a mapping, found 3"),
        (
            "target",
            {"spec": {"kind": "pretrained_qwen35_moe", "run_path": "x"}},
            UnsupportedModelError,
            r"target.spec.kind must be one of \['pretrained', 'hf', 'hf_weights_in_vendored'\], found 'pretrained_q",
        ),
        ("pd", [], RunFormatError, r"run_meta.yaml: pd must be a mapping, found \[\]"),
        ("pd", {}, RunFormatError, "run_meta.yaml: module_info must be"),
        ("data", "x", RunFormatError, "run_meta.yaml: data must be a mapping, found 'x'"),
    ],
)
def test_sections_that_are_not_understood_are_refused(tmp_path, spd_run, section, value, error, message):
    folder = write_successor_run(spd_run, tmp_path / RUN_ID)
    options = {**nested(run_options()), section: value}
    (folder / "run_meta.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(error, match=message):
        load_run(folder)


def test_inserted_identities_are_refused(tmp_path, spd_run):
    folder = write_successor_run(spd_run, tmp_path / RUN_ID)
    options = nested(run_options(identity_module_info=[{"module_pattern": "h.*.attn.q_proj", "C": 2}]))
    (folder / "run_meta.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(UnsupportedModelError, match="decomposes inserted identity matrices"):
        load_run(folder)


@pytest.mark.parametrize("name", ["launch_config.yaml", "ckpts"])
def test_runs_in_jax_are_refused_by_name(tmp_path, name):
    (tmp_path / RUN_ID).mkdir()
    (tmp_path / RUN_ID / name).touch()
    with pytest.raises(RunFormatError, match=f"has {name}: it is a run of param-decomp in JAX, which cannot be read"):
        load_run(tmp_path / RUN_ID)


def write_rebuilt(tmp_path, **changes):
    """A run over the weights of GPT-2 in a GPT2Simple."""
    pytest.importorskip("transformers")
    source = tmp_path / "gpt2"
    source.mkdir()
    shape = MODEL_OPTIONS["GPT2Simple"]
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_positions": shape["block_size"],
        **{name: shape[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
        **changes,
    }
    (source / "config.json").write_text(json.dumps(config))
    run = write_run(tmp_path / "spd", "GPT2Simple")
    options = {**run_options("GPT2Simple"), "pretrained_model_name": str(source)}
    (run / "final_config.yaml").write_text(yaml.safe_dump(options))
    folder = write_successor_run(run, tmp_path / RUN_ID, kind="hf_weights_in_vendored")
    (folder / "model_config.yaml").unlink()
    return folder


def test_a_target_with_the_weights_of_another_library(tmp_path):
    folder = write_rebuilt(tmp_path)
    loaded, expected = load_run(folder).model, load_run(write_run(tmp_path / "known", "GPT2Simple")).model
    tokens = torch.arange(8)[None]
    assert loaded.target_model(tokens).equal(expected.target_model(tokens))
    assert load_without_numbers(folder).n_components == expected.n_components


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "relu"}, "activation_function must be gelu_new, found 'relu'"),
        ({"n_inner": 7}, "n_inner must be None, found 7"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be False, found True"),
    ],
)
def test_weights_that_the_target_cannot_have_are_refused(tmp_path, changes, message):
    with pytest.raises(UnsupportedModelError, match=f"cannot be rebuilt as GPT2Simple: {message}"):
        load_run(write_rebuilt(tmp_path, **changes))


def test_other_rebuilt_targets_are_refused(tmp_path, spd_run):
    folder = write_successor_run(spd_run, tmp_path / RUN_ID, kind="hf_weights_in_vendored")
    with pytest.raises(UnsupportedModelError, match="is known for GPT2Simple, found 'LlamaSimpleMLP'"):
        load_run(folder)


def test_a_target_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    expected = write(tmp_path / "spd")
    folder = write_successor_run(tmp_path / "spd", tmp_path / RUN_ID, kind="hf")
    loaded = load_run(folder).model
    assert loaded.paths == expected.paths
    tokens = torch.arange(6)[None]
    assert loaded.target_model(tokens).equal(expected.target_model(tokens))
