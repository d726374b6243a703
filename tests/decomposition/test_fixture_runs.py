"""The two real runs, by every way of naming them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.reference import RunReference
from lit_attr.errors import RunNotFoundError

RUNS = {"s-kjvmlp02": "LlamaSimpleMLP", "s-kjvgpt02": "GPT2Simple"}
CHECKPOINTS = {"s-kjvmlp02": "model_1200.pth", "s-kjvgpt02": "model_500.pth"}
COUNTS = {"mlp.up": 160, "mlp.down": 160, "attn.q": 48, "attn.k": 40, "attn.v": 64, "attn.o": 72}
REFERENCES = [
    "{}",
    "goodfire/spd/{}",
    "some-one/spd/{}",
    "goodfire/spd/runs/{}",
    "https://wandb.ai/goodfire/spd/runs/{}",
    "https://wandb.ai/goodfire/spd/runs/{}?nw=nwuser",
    "https://wandb.ai/goodfire/spd/runs/{}/files/a?nw=nwuser",
    "wandb:{}",
    "wandb:goodfire/spd/{}",
    "wandb:goodfire/spd/runs/{}",
    "  goodfire/spd/{}\n",
]


def folder(shared: Path, run_id: str) -> Path:
    return shared / "spd_out" / "runs" / f"spd-{run_id}"


@pytest.fixture
def without_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIT_ATTR_OUT_DIR")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.mark.usefixtures("without_variables")
@pytest.mark.parametrize("as_type", [str, Path])
@pytest.mark.parametrize("run_id", RUNS)
def test_directory_loads_with_the_cache_of_its_own_tree(shared: Path, run_id: str, as_type: Callable[[Path], str]):
    given = as_type(folder(shared, run_id))
    run = load_run(given)
    assert (run.run_id, run.reference) == (run_id, str(given))
    assert run.model.table.architecture == RUNS[run_id]


@pytest.mark.usefixtures("without_variables")
@pytest.mark.parametrize("run_id", RUNS)
def test_checkpoint_file_is_the_run_of_its_directory(shared: Path, run_id: str):
    by_file, by_directory = (load_run(folder(shared, run_id) / name) for name in (CHECKPOINTS[run_id], ""))
    assert (by_file.run_id, by_file.weights_digest) == (run_id, by_directory.weights_digest)


@pytest.mark.parametrize("variable", ["LIT_ATTR_OUT_DIR", "SPD_OUT_DIR"])
@pytest.mark.parametrize("form", REFERENCES)
def test_reference_is_answered_by_the_cache(shared: Path, form: str, variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LIT_ATTR_OUT_DIR")
    monkeypatch.setenv(variable, str(shared / "spd_out"))
    run = load_run(form.format("s-kjvmlp02"))
    assert (run.run_id, run.reference) == ("s-kjvmlp02", form.format("s-kjvmlp02"))


@pytest.mark.parametrize("run_id", RUNS)
def test_reference_loads_what_the_directory_loads(shared: Path, run_id: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(shared / "spd_out"))
    assert load_run(run_id).weights_digest == load_run(folder(shared, run_id)).weights_digest


def test_the_project_is_part_of_the_name(shared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(shared / "spd_out"))
    with pytest.raises(RunNotFoundError, match="no cache holds the run goodfire/other/runs/s-kjvmlp02"):
        load_run("goodfire/other/s-kjvmlp02")


@pytest.mark.parametrize("run_id", RUNS)
def test_loaded_model_has_the_shape_of_the_configuration(shared: Path, run_id: str):
    model = load_run(folder(shared, run_id)).model
    expected = {f"{block}.{matrix}": count for matrix, count in COUNTS.items() for block in (0, 1)}
    assert list(model.n_components.items()) == list(expected.items())
    assert (model.vocab_size, model.block_size, model.d_model) == (768, 64, 64)


@pytest.mark.parametrize("run_id", RUNS)
def test_loaded_model_is_frozen_in_eval_mode_on_the_cpu(shared: Path, run_id: str):
    model = load_run(folder(shared, run_id)).model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("run_id", RUNS)
def test_loaded_tensors_are_those_of_the_checkpoint(shared: Path, run_id: str):
    state = torch.load(folder(shared, run_id) / CHECKPOINTS[run_id], weights_only=True)
    loaded = load_run(folder(shared, run_id)).model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_references_tested_have_all_forms():
    assert all(RunReference.match(form.format("s-kjvmlp02")) for form in REFERENCES)
