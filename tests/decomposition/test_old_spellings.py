"""Configurations and checkpoints of older versions of goodfire-ai/spd."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_attr.decomposition.checkpoint import read_checkpoint
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import load_run
from lit_attr.errors import RunFormatError, UnsupportedModelError
from tests.toys import ARCHITECTURES, run_options, write_run

OLD_CI = ("ci_fn_type", "ci_fn_hidden_dims", "use_global_ci")


def old_options(architecture: str = "LlamaSimpleMLP", **changes: Any) -> dict[str, Any]:
    """As `run_options` with 4 components everywhere, in the oldest spelling."""
    options = run_options(architecture)
    modules = options.pop("module_info")
    options.pop("ci_config")
    options.pop("pretrained_model_name")
    return {
        **options,
        "pretrained_model_class": f"simple_stories_train.models.some.{architecture}",
        "pretrained_model_name_hf": None,
        "C": 4,
        "target_module_patterns": [info["module_pattern"] for info in modules],
        "identity_module_patterns": None,
        "ci_fn_type": "shared_mlp",
        "ci_fn_hidden_dims": [6],
        "use_global_ci": False,
        "eval_metrics": [],
        "n_ci_mlp_neurons": 3,
        **changes,
    }


def new_options(architecture: str = "LlamaSimpleMLP", **changes: Any) -> dict[str, Any]:
    modules = [{**info, "C": 4} for info in run_options(architecture)["module_info"]]
    return run_options(architecture, module_info=modules, **changes)


def read(options: dict[str, Any]) -> RunConfig:
    return RunConfig.from_options(options, "some.yaml")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_old_configuration_means_the_same_as_the_new(architecture: str):
    assert read(old_options(architecture)) == read(new_options(architecture))


@pytest.mark.parametrize(
    ("old", "mode", "fn_type", "hidden"),
    [
        ({"ci_fn_type": "mlp"}, "layerwise", "mlp", [8]),
        ({"ci_fn_hidden_dims": [3, 2]}, "layerwise", "vector_mlp", [3, 2]),
        ({"use_global_ci": False}, "layerwise", "vector_mlp", [8]),
        ({"use_global_ci": True}, "global", "global_shared_mlp", [8]),
        ({"use_global_ci": True, "ci_fn_type": "shared_mlp"}, "global", "global_shared_mlp", [8]),
        ({"ci_fn_type": "global_shared_mlp", "ci_fn_hidden_dims": [5]}, "global", "global_shared_mlp", [5]),
        ({"use_global_ci": True, "ci_fn_type": "global_shared_mlp"}, "global", "global_shared_mlp", [8]),
    ],
)
def test_old_ci_entries_become_a_ci_config(old: dict[str, Any], mode: str, fn_type: str, hidden: list[int]):
    options = {name: value for name, value in old_options().items() if name not in OLD_CI}
    assert read(options | old).ci == {"mode": mode, "fn_type": fn_type, "hidden_dims": hidden}


def test_old_name_of_the_target_is_read():
    assert read(old_options(pretrained_model_name_hf="goodfire/spd/t-9d2b8f02")).pretrained_name == (
        "goodfire/spd/t-9d2b8f02"
    )


def test_old_identity_patterns_are_refused_like_the_new():
    message = re.escape("(identity_module_info: [{'module_pattern': 'h.*.attn.q_proj', 'C': 4}])")
    with pytest.raises(UnsupportedModelError, match=message):
        read(old_options(identity_module_patterns=["h.*.attn.q_proj"]))


def test_old_patterns_without_a_number_of_components_are_refused():
    options = old_options()
    del options["C"]
    with pytest.raises(RunFormatError, match=r"^some\.yaml: module_info must be a list of {module_pattern: text, C: "):
        read(options)


def test_reading_leaves_the_given_options_alone():
    options = old_options()
    read(options)
    assert options == old_options()


def old_names(name: str) -> str:
    name = re.sub(r"^ci_fn\._ci_fns\.", "_gates.", name)
    name = re.sub(r"^target_model\.(.*_proj|.*c_fc)\.weight$", r"patched_model.\1.original.weight", name)
    name = re.sub(r"^target_model\.", "patched_model.", name)
    if found := re.fullmatch(r"_components\.(.*)\.([UV])", name):
        name = f"patched_model.{found[1].replace('-', '.')}.components.{found[2]}"
    return name


def middle_names(name: str) -> str:
    name = re.sub(r"^ci_fn\.", "", name)
    if found := re.fullmatch(r"_components\.(.*)\.([UV])", name):
        name = f"{found[1].replace('-', '.')}.components.{found[2]}"
    return name


@pytest.mark.parametrize("renamed", [old_names, middle_names])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_old_run_loads_to_the_same_model_as_the_new(tmp_path: Path, architecture: str, renamed: Callable[[str], str]):
    modules = new_options(architecture)["module_info"]
    new, old = (write_run(tmp_path / name, architecture, module_info=modules) for name in ("new", "old"))
    state = {renamed(name): tensor for name, tensor in torch.load(old / "model_10.pth").items()}
    assert not any(re.match(r"ci_fn\.|_components\..*\.[UV]$", name) for name in state)
    torch.save(state, old / "model_10.pth")
    (old / "final_config.yaml").write_text(yaml.safe_dump(old_options(architecture)))
    ours, theirs = load_run(old), load_run(new)
    assert ours.weights_digest == theirs.weights_digest
    assert list(ours.model.paths.items()) == list(theirs.model.paths.items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_gates.h-0-mlp-c_fc.layers.0.W", "ci_fn._ci_fns.h-0-mlp-c_fc.layers.0.W"),
        ("_ci_fns.h-0-mlp-c_fc.layers.0.W", "ci_fn._ci_fns.h-0-mlp-c_fc.layers.0.W"),
        ("ci_fn._gates.h-0-mlp-c_fc.layers.0.W", "ci_fn._ci_fns.h-0-mlp-c_fc.layers.0.W"),
        ("patched_model.wte.weight", "target_model.wte.weight"),
        ("patched_model.h.0.mlp.c_fc.original.weight", "target_model.h.0.mlp.c_fc.weight"),
        ("target_model.h.0.mlp.c_fc.original.weight", "target_model.h.0.mlp.c_fc.weight"),
        ("target_model.h.0.mlp.c_fc.original.bias", "target_model.h.0.mlp.c_fc.original.bias"),
        ("patched_model.h.0.mlp.c_fc.components.U", "_components.h-0-mlp-c_fc.U"),
        ("target_model.h.0.mlp.c_fc.components.V", "_components.h-0-mlp-c_fc.V"),
        ("h.0.mlp.c_fc.components.V", "_components.h-0-mlp-c_fc.V"),
        ("_components.h-0-mlp-c_fc.V", "_components.h-0-mlp-c_fc.V"),
        ("ci_fn._global_ci_fn.layers.0.W", "ci_fn._global_ci_fn.layers.0.W"),
    ],
)
def test_old_name_of_a_tensor_is_rewritten(tmp_path: Path, old: str, new: str):
    torch.save({old: torch.ones(2)}, tmp_path / "model.pth")
    assert list(read_checkpoint(tmp_path / "model.pth")) == [new]
