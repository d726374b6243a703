import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_attr.decomposition.load import load_run
from lit_attr.errors import RunFormatError
from tests.toys import write_run

State = dict[str, Tensor]
C_FC = "_components.h-0-mlp-c_fc"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def rewrite(run: Path, change: Callable[[State], object]) -> None:
    state = torch.load(run / "model_10.pth")
    change(state)
    torch.save(state, run / "model_10.pth")


def remove_ci(state: State) -> None:
    for name in [name for name in state if name.startswith("ci_fn.")]:
        del state[name]


FIRST_CI = ", ".join(f"ci_fn._ci_fns.h-0-attn-k_proj.layers.{layer}.{part}" for layer in (0, 2) for part in ("W", "b"))


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda s: s.pop(f"{C_FC}.V"), f"1 missing: {C_FC}.V"),
        (lambda s: s.pop("target_model.lm_head.weight"), "1 missing: target_model.lm_head.weight"),
        (lambda s: s.update({"new.b": torch.ones(1), "new.a": torch.ones(1)}), "2 unexpected: new.a, new.b"),
        (lambda s: s.update({f"{C_FC}.bias": torch.ones(12)}), f"1 unexpected: {C_FC}.bias"),
        (
            lambda s: s.update({f"{C_FC}.V": torch.ones(8, 4)}),
            f"1 of another shape: {C_FC}.V (expected (8, 3), found (8, 4))",
        ),
        (
            lambda s: s.update({"x": s.pop(f"{C_FC}.U"), f"{C_FC}.V": torch.ones(3, 8)}),
            f"1 missing: {C_FC}.U; 1 unexpected: x; 1 of another shape: {C_FC}.V (expected (8, 3), found (3, 8))",
        ),
        (remove_ci, f"48 missing: {FIRST_CI}, ci_fn._ci_fns.h-0-attn-o_proj.layers.0.W, ..."),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(run: Path, change: Callable[[State], object], problems: str):
    rewrite(run, change)
    with pytest.raises(RunFormatError) as caught:
        load_run(run)
    assert str(caught.value) == f"{run / 'model_10.pth'} does not fit the run's configuration: {problems}"


def test_ci_function_of_another_mode_is_refused(run: Path):
    config = (run / "final_config.yaml").read_text()
    config = config.replace("layerwise", "global").replace("shared_mlp", "global_shared_mlp")
    (run / "final_config.yaml").write_text(config)
    with pytest.raises(RunFormatError, match=r"4 missing: ci_fn\._global_ci_fn\..*; 48 unexpected: ci_fn\._ci_fns\."):
        load_run(run)


@pytest.mark.parametrize("kept", [0, 10, 2000, -1])
def test_truncated_checkpoint_is_refused_with_its_path(run: Path, kept: int):
    path = run / "model_10.pth"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunFormatError, match=f"^cannot read the checkpoint {re.escape(str(path))}: "):
        load_run(run)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (torch.ones(3), "Tensor"),
        ([torch.ones(3)], "list"),
        ({"state_dict": {"a": torch.ones(3)}}, "dict"),
        ({"a": torch.ones(3), "step": 4}, "dict"),
    ],
)
def test_checkpoint_that_is_no_state_dict_is_refused_with_its_type(run: Path, content: object, kind: str):
    path = run / "model_10.pth"
    torch.save(content, path)
    with pytest.raises(RunFormatError) as caught:
        load_run(run)
    assert str(caught.value) == f"{path}: expected a state dict (names to tensors), found {kind}"


def test_checkpoint_that_would_run_code_is_refused(run: Path):
    torch.save({"a": Path("somewhere")}, run / "model_10.pth")
    with pytest.raises(RunFormatError, match=r"^cannot read the checkpoint .*Weights only load failed"):
        load_run(run)


def test_of_differing_tied_copies_the_unembedding_is_taken(run: Path):
    rewrite(run, lambda s: s.update({"target_model.wte.weight": torch.zeros(11, 8)}))
    target = load_run(run).model.target_model
    assert torch.equal(target.wte.weight, torch.load(run / "model_10.pth")["target_model.lm_head.weight"])
    assert target.wte.weight is target.lm_head.weight
