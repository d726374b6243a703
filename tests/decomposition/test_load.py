from pathlib import Path

import numpy as np
import pytest
import torch

from lit_attr.decomposition.load import load_run
from tests.toys import ARCHITECTURES, random_tokens, toy_model, write_run


def test_global_random_states_are_left_alone(tmp_path: Path):
    run = write_run(tmp_path / "run")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_run(run)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_default_precision_and_threads_are_left_alone(tmp_path: Path):
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    load_run(write_run(tmp_path / "run"))
    assert before == (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1])
def test_loaded_model_computes_what_the_saved_one_did(tmp_path: Path, architecture: str, seed: int):
    model = toy_model(architecture, torch.float32, seed)
    loaded = load_run(write_run(tmp_path / "run", architecture, seed)).model
    tokens = random_tokens(2)
    assert torch.equal(loaded.target_model(tokens), model.target_model(tokens))
    assert torch.equal(loaded.component_forward(tokens).logits, model.component_forward(tokens).logits)
    for layer, values in model.causal_importance(tokens).items():
        assert torch.equal(loaded.causal_importance(tokens)[layer], values)


@pytest.mark.parametrize("name", ["spd-s-1234abcd", "s-1234abcd", "some-name"])
def test_run_id_is_that_of_the_folder(tmp_path: Path, name: str):
    expected = name if name == "some-name" else "s-1234abcd"
    assert load_run(write_run(tmp_path / name)).run_id == expected


def test_reference_is_the_text_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert load_run("./run").reference == "./run"


def test_weights_of_the_target_are_not_needed(tmp_path: Path):
    run = write_run(tmp_path / "run")
    assert sorted(path.name for path in run.iterdir()) == ["final_config.yaml", "model_10.pth", "model_config.yaml"]
    load_run(run)


def test_of_several_checkpoints_the_latest_is_loaded(tmp_path: Path):
    for seed, step in enumerate([9, 100, 20]):
        run = write_run(tmp_path / "run", seed=seed, step=step)
    assert load_run(run).weights_digest == load_run(run / "model_100.pth").weights_digest
    assert load_run(run).weights_digest != load_run(run / "model_20.pth").weights_digest
