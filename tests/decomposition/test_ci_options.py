from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_attr.errors import RunFormatError
from tests.toys import toy_model

KNOWN = (
    "known are: layerwise/mlp, layerwise/vector_mlp, layerwise/shared_mlp, "
    "global/global_shared_mlp, global/global_shared_transformer, global/global_reverse_residual"
)
MLPS = [{"module_pattern": "h.*.mlp.c_fc", "C": 3}, {"module_pattern": "h.*.mlp.down_proj", "C": 4}]
LAST_FIRST = [{"name": "top", "patterns": ["h.1.*"]}, {"name": "low", "patterns": ["h.0.*"]}]


def transformer(**changes: Any) -> dict[str, Any]:
    shape = {"d_model": 8, "n_blocks": 1, "mlp_hidden_dim": [5], "attn_config": {"n_heads": 2}, **changes}
    return {"mode": "global", "fn_type": "global_shared_transformer", "simple_transformer_ci_cfg": shape}


def residual(**changes: Any) -> dict[str, Any]:
    return {
        "mode": "global",
        "fn_type": "global_reverse_residual",
        "reader_hidden_dims": [5],
        "d_resid_ci_fn": 8,
        "block_groups": LAST_FIRST,
        **changes,
    }


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def refusal(ci_config: dict[str, Any]) -> str:
    with pytest.raises(RunFormatError) as caught:
        toy_model(module_info=MLPS, ci_config=ci_config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("mode", "fn_type"),
    [
        ("layerwise", "conv"),
        ("layerwise", "global_shared_mlp"),
        ("global", "shared_mlp"),
        ("local", "mlp"),
        ("global", None),
        (None, "mlp"),
    ],
)
def test_unknown_mode_and_type_are_refused_with_the_known_ones(mode: str | None, fn_type: str | None):
    options = {"mode": mode, "fn_type": fn_type, "hidden_dims": [4]}
    assert refusal(options) == f"ci_config: unknown mode/fn_type {mode}/{fn_type}; {KNOWN}"


@pytest.mark.parametrize("fn_type", ["mlp", "vector_mlp", "shared_mlp", "global_shared_mlp"])
@pytest.mark.parametrize("given", [{}, {"hidden_dims": None}])
def test_missing_hidden_widths_are_refused(fn_type: str, given: dict[str, None]):
    options = {"mode": "global" if fn_type.startswith("global") else "layerwise", "fn_type": fn_type, **given}
    assert refusal(options) == f"ci_config: 'hidden_dims' is missing; found {sorted(options)}"


@pytest.mark.parametrize("fn_type", ["mlp", "vector_mlp"])
def test_functions_of_single_components_need_a_hidden_layer(fn_type: str):
    options = {"mode": "layerwise", "fn_type": fn_type, "hidden_dims": []}
    assert refusal(options) == f"ci_config: hidden_dims must not be empty for fn_type {fn_type!r}"


@pytest.mark.parametrize("name", ["d_model", "n_blocks", "mlp_hidden_dim", "attn_config"])
def test_missing_entry_of_the_transformer_is_refused(name: str):
    shape = without(transformer()["simple_transformer_ci_cfg"], name)
    options = transformer() | {"simple_transformer_ci_cfg": shape}
    assert refusal(options) == f"ci_config: {name!r} is missing; found {sorted(shape)}"


def test_missing_transformer_is_refused():
    options = without(transformer(), "simple_transformer_ci_cfg")
    assert refusal(options) == "ci_config: 'simple_transformer_ci_cfg' is missing; found ['fn_type', 'mode']"


@pytest.mark.parametrize("name", ["reader_hidden_dims", "d_resid_ci_fn", "block_groups"])
def test_missing_entry_of_the_reverse_residual_is_refused(name: str):
    options = without(residual(), name)
    assert refusal(options) == f"ci_config: {name!r} is missing; found {sorted(options)}"


@pytest.mark.parametrize(
    "options", [transformer(attn_config={"max_len": 8}), residual(transition_attn_config={"max_len": 8})]
)
def test_attention_without_a_number_of_heads_is_refused(options: dict[str, Any]):
    assert refusal(options) == "ci_config: 'n_heads' is missing; found ['max_len']"


@pytest.mark.parametrize("heads", [3, 8])
@pytest.mark.parametrize(("options", "entry"), [(transformer, "attn_config"), (residual, "transition_attn_config")])
def test_attention_heads_that_do_not_fit_the_width_are_refused(
    options: Callable[..., dict[str, Any]], entry: str, heads: int
):
    message = f"CI attention: {heads} heads must divide the width 8 into even parts"
    assert refusal(options(**{entry: {"n_heads": heads}})) == message


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"a": ["h.*"], "b": ["h.2.*"]},
            "pattern 'h.2.*' of block group 'b' matches no decomposed matrix",
        ),
        (
            {"a": ["h.*"], "b": ["h.0.attn.*"]},
            "pattern 'h.0.attn.*' of block group 'b' matches no decomposed matrix",
        ),
        ({"a": ["h.1.*"], "b": ["*.c_fc"]}, "['h.1.mlp.c_fc'] matched twice by the patterns of block_groups"),
        ({"a": ["h.1.*", "*.c_fc", "h.0.*"]}, "['h.1.mlp.c_fc'] matched twice by the patterns of block_groups"),
        (
            {"a": ["h.1.*"], "b": ["h.0.mlp.c_fc"]},
            "decomposed matrices in no block group: ['h.0.mlp.down_proj']",
        ),
        ({}, "block_groups must be a list of {name: text, patterns: list of texts}, found []"),
    ],
)
def test_block_groups_that_do_not_partition_the_matrices_are_refused(groups: dict[str, list[str]], message: str):
    options = residual(block_groups=[{"name": name, "patterns": patterns} for name, patterns in groups.items()])
    assert refusal(options) == f"ci_config: {message}"


def test_widths_of_attention_have_the_defaults_of_the_specification():
    plain, explicit = (
        toy_model(ci_config=transformer(attn_config={"n_heads": 2, **more}))
        for more in ({"max_len": None}, {"max_len": 2048, "rope_base": 10000.0})
    )
    assert plain.ci_fn._global_ci_fn._blocks[0].attn.max_len == 2048
    torch.testing.assert_close(plain.state_dict(), explicit.state_dict(), rtol=0, atol=0)
