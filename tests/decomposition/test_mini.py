"""Agreement with goodfire-ai/spd, for every causal-importance function."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.checkpoint import check_fits
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import decompose_by_config
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.decomposition.targets import build_target
from lit_attr.topology.paths import path_table

CASES = [
    "gpt2-global_mlp",
    "gpt2-reverse_residual_plain",
    "llama-global_transformer",
    "llama-shared_mlp",
    "llama_mlp-adjacent_bias-vector_mlp",
    "llama_mlp-mlp",
    "llama_mlp-reverse_residual",
]
TOLERANCE = 1e-5


@dataclass
class Case:
    theirs: dict[str, Any]
    model: DecomposedModel
    capture: Capture

    @property
    def tokens(self) -> Tensor:
        return self.theirs["tokens"].long()

    def by_path(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {self.model.paths[layer]: tensor for layer, tensor in values.items()}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    theirs = torch.load(shared / "mini" / f"{request.param}.pt", weights_only=True)
    config = RunConfig.from_options(theirs["final_config"], request.param)
    table = path_table(config.architecture)
    model = decompose_by_config(build_target(config.architecture, theirs["model_config"]), config, table)
    check_fits(model, theirs["state_dict"], request.param)
    model.load_state_dict(theirs["state_dict"])
    return Case(theirs, model, model.component_forward(theirs["tokens"].long()))


def pre_sigmoid(model: DecomposedModel, tokens: Tensor) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}

    def record(path: str, _module: object, args: tuple[Tensor, ...]) -> None:
        inputs[path] = args[0]

    target = model.target_model
    handles = [target.get_submodule(p).register_forward_pre_hook(partial(record, p)) for p in model.paths.values()]
    with torch.no_grad():
        target(tokens)
        values = dict(model.ci_fn(inputs))
    for handle in handles:
        handle.remove()
    return values


def worst_errors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    assert ours.keys() == theirs.keys()
    return {name: (ours[name] - theirs[name]).abs().max().item() for name in ours}


def test_all_cases_of_the_folder_are_tested(shared: Path):
    assert sorted(path.stem for path in (shared / "mini").glob("*.pt")) == sorted(CASES)


def test_logits_agree(case: Case):
    assert (case.model.target_model(case.tokens) - case.theirs["logits"]).abs().max() < TOLERANCE


def test_all_ones_logits_agree(case: Case):
    assert (case.capture.logits - case.theirs["all_ones_logits"]).abs().max() < TOLERANCE


def test_component_activations_agree(case: Case):
    errors = worst_errors(case.by_path(dict(case.capture.pre)), case.theirs["component_acts"])
    assert max(errors.values()) < TOLERANCE, errors


def test_causal_importance_agrees(case: Case):
    """As near as what they are a function of, see below: its slope is at most 1."""
    errors = worst_errors(case.by_path(case.model.causal_importance(case.tokens)), case.theirs["ci"])
    for path, error in errors.items():
        assert error < max(TOLERANCE, 1e-6 * case.theirs["ci_pre_sigmoid"][path].abs().max().item()), path


def test_pre_sigmoid_causal_importance_agrees(case: Case):
    """Where they are large, to float32 rounding of sums of that size, which differs between processors."""
    theirs = case.theirs["ci_pre_sigmoid"]
    errors = worst_errors(pre_sigmoid(case.model, case.tokens), theirs)
    for path, error in errors.items():
        assert error < max(TOLERANCE, 1e-6 * theirs[path].abs().max().item()), path


def test_module_order_agrees_in_everything_that_has_one(case: Case):
    orders = [
        list(case.model.paths.values()),
        [case.model.paths[layer] for layer in case.model.n_components],
        list(case.by_path(dict(case.capture.pre))),
        list(case.by_path(dict(case.capture.post))),
        list(case.by_path(case.model.causal_importance(case.tokens))),
    ]
    assert orders == [case.theirs["module_order"]] * len(orders)
